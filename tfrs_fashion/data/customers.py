"""Lists of customers to recommend to, read from a file that the user provides."""

from collections.abc import Sequence
from pathlib import Path

import ibis

from tfrs_fashion.data.conversions import MappedColumn, convert
from tfrs_fashion.data.raw import PLAIN, Dialect, kind_of, read_raw
from tfrs_fashion.schema import InputError


def _read_lines(path: Path, encoding: str) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig" if encoding == "utf-8" else encoding)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: cannot read the customers ({error}).") from error
    return [line.strip() for line in text.splitlines()]


def _read_column(path: Path, names: Sequence[str], dialect: Dialect) -> list[str | None]:
    connection = ibis.duckdb.connect()
    try:
        raw = read_raw(connection, path, dialect=dialect)
        name = next((name for name in names if name in raw.table.columns), None)
        if name is None:
            expected, existing = ([f"`{column}`" for column in some] for some in (names, raw.table.columns))
            raise InputError(f"{path}: no column {' or '.join(expected)}; found {', '.join(existing)}.")
        table, _counts = convert(raw, [MappedColumn("customer_id", name, "--customers", "id")], table="customers")
        return table.customer_id.to_pyarrow().to_pylist()
    finally:
        connection.disconnect()


def read_customers(
    path: Path, *, names: Sequence[str] = ("customer_id",), dialect: Dialect = PLAIN
) -> tuple[list[str], int]:
    """Reads the ids of customers to recommend to, from a text file with one id per line or from a table.

    Args:
        path: Parquet, CSV or TSV file, by its extension; any other file is read as lines of text.
        names: Possible names of the id column; the first one that the table has is read.
        dialect: The way in which the file is written.

    Returns:
        The ids in the file's order without duplicates, and the number of empty or repeated ids that were left out.

    Raises:
        InputError: The file cannot be read, lacks the column, or holds no id.
    """
    is_lines = path.is_file() and kind_of(path) is None
    ids = _read_lines(path, dialect.encoding) if is_lines else _read_column(path, names, dialect)
    kept = list(dict.fromkeys(customer for customer in ids if customer))
    if not kept:
        raise InputError(f"{path}: no customer id in {len(ids):,} row(s). Give one id per line.")
    return kept, len(ids) - len(kept)
