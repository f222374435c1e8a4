"""The sources by name: what `[data]` of a pipeline file asks for."""

from pathlib import Path

import ibis
from rich.console import Console

from tfrs_fashion.data import complete_journey, hm, retail, sequences
from tfrs_fashion.data.generated import simulator
from tfrs_fashion.data.generated.hm_scale import GENERATOR_VERSION, write_hm_scale
from tfrs_fashion.data.raw import Dialect
from tfrs_fashion.schema import Tables
from tfrs_fashion.settings.data import ArticlesConfig, CustomersConfig, DataConfig, TransactionsConfig


def _mapping(config: DataConfig) -> tuple[TransactionsConfig, ArticlesConfig, CustomersConfig]:
    if config.source != "hm":
        return config.transactions, config.articles, config.customers
    return hm.make_mapping(
        config.path, transactions=config.transactions, articles=config.articles, customers=config.customers
    )


def make_dialect(config: DataConfig) -> Dialect:
    """Returns how the source's files are written."""
    return Dialect(**config.model_dump(include={"missing_values", "encoding", "decimal", "thousands"}))


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
        case "hm" | "retail":
            transactions, articles, customers = _mapping(config)
            return retail.source_files(
                path=config.path, transactions=transactions, articles=articles, customers=customers
            )


def load_source(
    connection: ibis.BaseBackend, config: DataConfig, *, seed: int, console: Console | None = None
) -> Tables:
    """Loads the tables of a source.

    Args:
        connection: A DuckDB backend of Ibis, to which the tables belong.
        config: Which source, and how its columns are called.
        seed: Of generated tables.
        console: Where the progress of generating them is shown.

    Raises:
        InputError: A file cannot be read or is not what the source expects.
    """
    match config.source:
        case "complete_journey":
            return complete_journey.load_tables(connection, path=config.path)
        case "simulator":
            sizes = config.model_dump(include={"num_customers", "num_articles", "num_days"})
            return simulator.load_tables(connection, **sizes, seed=seed)
        case "hm_scale":
            sizes = config.model_dump(include={"num_customers", "num_articles", "num_transactions"})
            # One version of the generator writes equal files for equal sizes and seeds, so they are written once.
            name = "-".join(str(part) for part in (f"v{GENERATOR_VERSION}", *sizes.values(), seed))
            folder = Path(config.path or "data/hm_scale") / name
            if not folder.is_dir():
                write_hm_scale(folder, **sizes, seed=seed, console=console)
            return load_source(connection, DataConfig(source="hm", path=str(folder)), seed=seed)
        case "sequences":
            return sequences.load_tables(connection, path=config.path, **config.sequences.model_dump())
        case "hm" | "retail":
            transactions, articles, customers = _mapping(config)
            return retail.load_tables(
                connection,
                path=config.path,
                transactions=transactions,
                articles=articles,
                customers=customers,
                dialect=make_dialect(config),
            )
