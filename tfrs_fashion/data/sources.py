"""The sources by name: loads what `[data]` of a pipeline file asks for."""

from pathlib import Path

import ibis
from rich.console import Console

from tfrs_fashion.data import complete_journey, hm, retail, sequences
from tfrs_fashion.data.generated import simulator
from tfrs_fashion.data.generated.hm_scale import GENERATOR_VERSION, write_hm_scale
from tfrs_fashion.schema import Tables
from tfrs_fashion.settings.data import DataConfig


def source_files(config: DataConfig) -> list[Path]:
    """Returns the raw files that `load_source` reads.

    Raises:
        InputError: One is missing.
    """
    match config.source:
        case "complete_journey":
            return complete_journey.source_files(config.path)
        case "simulator" | "hm_scale":
            return []
        case "sequences":
            return sequences.source_files(path=config.path, **config.sequences.model_dump())
        case "hm":
            return retail.source_files(hm.complete_mapping(config))
        case "retail":
            return retail.source_files(config)


def load_source(
    connection: ibis.BaseBackend, config: DataConfig, *, seed: int, console: Console | None = None
) -> Tables:
    """Loads the tables of a source.

    Args:
        connection: DuckDB backend of Ibis, which holds the tables.
        config: The source and the mapping of its columns.
        seed: Random seed of generated tables.
        console: Console for the progress bar of generated tables.

    Raises:
        InputError: A file cannot be read or is not what the source expects.
    """
    match config.source:
        case "complete_journey":
            return complete_journey.load_tables(connection, path=config.path)
        case "simulator":
            sizes = config.model_dump(include={"num_customers", "num_articles", "num_days"})
            return simulator.make_tables(**sizes, seed=seed, connection=connection)
        case "hm_scale":
            sizes = config.model_dump(include={"num_customers", "num_articles", "num_transactions"})
            # Equal sizes and seeds give equal files in one version of the generator, so they are written only once.
            name = "-".join(str(value) for value in (f"v{GENERATOR_VERSION}", *sizes.values(), seed))
            folder = Path(config.path or "data/hm_scale") / name
            if not folder.is_dir():
                write_hm_scale(folder, **sizes, seed=seed, console=console)
            return load_source(connection, DataConfig(source="hm", path=str(folder)), seed=seed)
        case "sequences":
            return sequences.load_tables(connection, path=config.path, **config.sequences.model_dump())
        case "hm":
            return retail.load_tables(connection, hm.complete_mapping(config))
        case "retail":
            return retail.load_tables(connection, config)
