"""The sources by name: what `[data]` of a pipeline file asks for."""

from pathlib import Path

import ibis

from tfrs_fashion.data import complete_journey, hm, retail, simulator
from tfrs_fashion.data_sections import ArticlesConfig, CustomersConfig, DataConfig, TransactionsConfig
from tfrs_fashion.schema import Tables


def _mapping(config: DataConfig) -> tuple[TransactionsConfig, ArticlesConfig, CustomersConfig]:
    if config.source != "hm":
        return config.transactions, config.articles, config.customers
    return hm.make_mapping(
        config.path, transactions=config.transactions, articles=config.articles, customers=config.customers
    )


def source_files(config: DataConfig) -> list[Path]:
    """Returns the raw files that `load_source` reads.

    Raises:
        InputError: One is missing.
    """
    match config.source:
        case "complete_journey":
            return complete_journey.source_files(config.path)
        case "simulator":
            return []
        case "hm" | "retail":
            transactions, articles, customers = _mapping(config)
            return retail.source_files(
                path=config.path, transactions=transactions, articles=articles, customers=customers
            )


def load_source(connection: ibis.BaseBackend, config: DataConfig, *, seed: int) -> Tables:
    """Loads the tables of a source.

    Args:
        connection: A DuckDB backend of Ibis, to which the tables belong.
        config: Which source, and how its columns are called.
        seed: Of generated tables.

    Raises:
        InputError: A file cannot be read or is not what the source expects.
    """
    match config.source:
        case "complete_journey":
            return complete_journey.load_tables(connection, path=config.path)
        case "simulator":
            sizes = config.model_dump(include={"num_customers", "num_articles", "num_days"})
            return simulator.load_tables(connection, **sizes, seed=seed)
        case "hm" | "retail":
            transactions, articles, customers = _mapping(config)
            return retail.load_tables(
                connection,
                path=config.path,
                transactions=transactions,
                articles=articles,
                customers=customers,
                missing_values=config.missing_values,
            )
