"""Lists of customers to answer, as a user hands them over."""

from collections.abc import Sequence
from pathlib import Path

import ibis

from tfrs_fashion.data.conversions import Wanted, convert
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
            wanted, found = (", ".join(f"`{name}`" for name in some) for some in (names, raw.table.columns))
            raise InputError(f"{path}: no column {wanted.replace(', ', ' or ')}; found {found}.")
        table, _counts = convert(raw, [Wanted("customer_id", name, "--customers", "id")], table="customers")
        return table.customer_id.to_pyarrow().to_pylist()
    finally:
        connection.disconnect()


def read_customers(
    path: Path, *, names: Sequence[str] = ("customer_id",), dialect: Dialect = PLAIN
) -> tuple[list[str], int]:
    """Reads the customers to answer: one id a line, or a table as a retailer's own are.

    Args:
        path: Parquet, CSV or TSV by its ending, otherwise lines.
        names: What the column of ids may be called; the first that the table has is read.
        dialect: How the file is written.

    Returns:
        The ids in the file's order, each once, and how many empty or repeated ones were left out.

    Raises:
        InputError: The file cannot be read, lacks the column, or holds no id.
    """
    is_lines = path.is_file() and kind_of(path) is None
    ids = _read_lines(path, dialect.encoding) if is_lines else _read_column(path, names, dialect)
    kept = list(dict.fromkeys(customer for customer in ids if customer))
    if not kept:
        raise InputError(f"{path}: no customer id in {len(ids):,} row(s). Give one id a line.")
    return kept, len(ids) - len(kept)
