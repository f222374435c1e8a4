"""The tables of a run: indexed, completed and written to Parquet."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import ibis
from ibis import _

from tfrs_fashion.data.baskets import basket_of
from tfrs_fashion.data.raw import materialize
from tfrs_fashion.schema import (
    ANONYMOUS_CUSTOMER,
    FIRST_INDEX,
    MAX_DESCRIPTION,
    OUT_OF_VOCABULARY_INDEX,
    InputError,
    RowCount,
    Tables,
)

_NAMES = ("customers", "articles", "transactions")
_MAX_MEMORY = 6 * 2**30


@contextlib.contextmanager
def open_scratch(folder: Path) -> Iterator[ibis.BaseBackend]:
    """Opens a temporary DuckDB for the computation of a folder's files, which is deleted when the block ends.

    Args:
        folder: Folder to which DuckDB spills what does not fit into its memory limit (6 GB, or 60% of the machine's).
    """
    spill = folder / "spill"
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = min(_MAX_MEMORY, machine * 6 // 10)
    # Wherever the order of rows matters it is requested; preserving it elsewhere costs memory.
    settings = {"memory_limit": f"{limit // 2**20}MiB", "temp_directory": str(spill), "preserve_insertion_order": False}
    connection = ibis.duckdb.connect(**settings)
    try:
        yield connection
    finally:
        connection.disconnect()
        shutil.rmtree(spill, ignore_errors=True)


def _compute(table: ibis.Table) -> ibis.Table:
    """Computes a table once that several others are made from."""
    backend = table.get_backend()
    # Ibis's own cache cannot drop its tables from DuckDB 2.
    return materialize(backend, table) if backend.name == "duckdb" else table.cache()


def _complete(table: ibis.Table, bought: ibis.Table, key: str) -> tuple[ibis.Table, int]:
    """Appends a row with only an id and `known_from` for each id that occurs only in transactions; counts these rows."""
    known_from = table.known_from if "known_from" in table.columns else ibis.null("timestamp")
    table = table.mutate(known_from=known_from.cast("timestamp"))
    unknown = _compute(bought.anti_join(table, key))
    empty = unknown.mutate(
        known_from=_.known_from.cast(table.schema()["known_from"]),
        **{name: ibis.null(dtype) for name, dtype in table.schema().items() if name not in {key, "known_from"}},
    )
    return table.union(empty.select(*table.columns)), int(unknown.count().execute())


def _indexed(table: ibis.Table, *, key: str, index: str) -> ibis.Table:
    """Numbers the rows by the instant from which they are known (those always known come first), then by id."""
    if index in table.columns:
        raise InputError(
            f"the table of `{key}` has a column `{index}`, which is reserved for its index. Rename it in the source."
        )
    order = [table.known_from.notnull().cast("int8"), table.known_from, table[key]]
    number = (ibis.row_number().over(ibis.window(order_by=order)) + FIRST_INDEX).cast("int32")
    return _compute(table.mutate(**{index: number}))


def _start_together(transactions: ibis.Table) -> tuple[ibis.Table, int, int]:
    """Gives all lines of a basket the time of its first line.

    If a customer's `basket_id` occurs on several days, the day is appended to that of every basket except the first,
    so that no later line changes an earlier basket.

    Returns:
        The transactions, the number of lines that were moved, and the number of lines that got another `basket_id`.
    """
    key = ["customer_id", "basket_id"]
    baskets = transactions.group_by(key).agg(start=_.t_dat.min(), end=_.t_dat.max())
    long = _compute(baskets.filter(_.start < _.end).select(*key))
    if not int(long.count().execute()):
        return transactions, 0, 0
    # Few baskets span more than an instant. Only those are grouped by day, which is expensive for all rows.
    lines = transactions.semi_join(long, key)
    days = _compute(lines.group_by(basket_of(lines)).agg(start=_.t_dat.min(), rows=_.count()))
    days = days.mutate(is_again=days.day > days.day.min().over(ibis.window(group_by=key)))
    reused = int(days.rows.sum(where=days.is_again).fill_null(0).execute())
    dated = transactions.mutate(*basket_of(transactions))
    joined = dated.left_join(days.drop("rows"), [*key, "day"])
    moved = int(joined.filter(_.t_dat > _.start).count().execute())
    dated_id = _.basket_id + " " + _.day.date().cast("string")
    together = joined.mutate(t_dat=_.start.fill_null(_.t_dat), basket_id=ibis.ifelse(_.is_again, dated_id, _.basket_id))
    return together.select(*transactions.columns), moved, reused


def index_tables(tables: Tables) -> Tables:
    """Numbers customers and articles, and adds rows for ids that only occur in transactions.

    Indices follow the instant from which a row is known, then the id. So for any cutoff, the customers and articles
    known before it are exactly those with an index below some bound, and no later row can change or reorder them.

    Args:
        tables: Checked tables.

    Returns:
        Tables with `customer_index` and `article_index`, both also in the transactions, and `known_from`. Ids without
        a row get an empty one, known from their first transaction on. Anonymous customers have no row, and the
        out-of-vocabulary index. All lines of a basket (of one customer and day) get the time of its first line, since a
        basket is one event. Each rule that touched rows adds to `counts`.

    Raises:
        InputError: A table already has a column named like an index.
    """
    transactions, moved, reused = _start_together(tables.transactions)
    named = transactions.filter(_.customer_id != ANONYMOUS_CUSTOMER)
    anonymous = int(transactions.filter(_.customer_id == ANONYMOUS_CUSTOMER).count().execute())
    # Indices are joined to distinct ids first, because joining all transactions by text is slow.
    buyers, sold = (
        _compute(lines.group_by(key).agg(known_from=_.t_dat.min()))
        for lines, key in ((named, "customer_id"), (transactions, "article_id"))
    )
    customers, new_customers = _complete(tables.customers, buyers, "customer_id")
    articles, new_articles = _complete(tables.articles, sold, "article_id")
    customers = _indexed(customers, key="customer_id", index="customer_index")
    articles = _indexed(articles, key="article_id", index="article_index")
    for ids, rows, key in ((buyers, customers, "customer_id"), (sold, articles, "article_id")):
        index = f"{key.removesuffix('_id')}_index"
        numbers = _compute(ids.select(key).inner_join(rows.select(key, index), key).select(ids[key], index))
        transactions = transactions.left_join(numbers, key).drop(f"{key}_right")
    transactions = transactions.mutate(customer_index=_.customer_index.fill_null(OUT_OF_VOCABULARY_INDEX).cast("int32"))
    order = ["customer_index", "t_dat", "basket_id", "article_index"]
    # Ties are broken by all other columns, so that equal input gives equal files.
    order += [name for name in transactions.columns if name not in {*order, "customer_id", "article_id"}]
    long = int(articles.filter(_.description.length() > MAX_DESCRIPTION).count().execute())
    rows_by_rule = (
        ("transactions", "moved to the first instant of their basket", moved),
        ("transactions", "with a basket_id that the customer had on an earlier day: a basket of its own", reused),
        ("transactions", "of anonymous customers: count for articles, but belong to no history", anonymous),
        ("customers", "added: bought, but without a row; empty profile", new_customers),
        ("articles", "added: sold, but without a row; no features", new_articles),
        ("articles", f"with a description of more than {MAX_DESCRIPTION:,} characters: the rest is not read", long),
    )
    counts = tuple(RowCount(table=table, rule=rule, rows=rows) for table, rule, rows in rows_by_rule if rows)
    return Tables(
        customers=customers.order_by("customer_index"),
        articles=articles.order_by("article_index"),
        transactions=transactions.order_by(order),
        counts=tables.counts + counts,
    )


def write_counts(counts: Sequence[RowCount], folder: Path) -> None:
    """Writes `counts.json`."""
    rows = [asdict(count) for count in counts]
    (folder / "counts.json").write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")


def read_counts(folder: Path) -> tuple[RowCount, ...]:
    """Reads `counts.json`."""
    rows = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    return tuple(RowCount(**row) for row in rows)


def write_tables(tables: Tables, folder: Path) -> None:
    """Writes indexed tables as `customers`, `articles` and `transactions` in Parquet, and `counts.json`."""
    for name in _NAMES:
        table, path = getattr(tables, name), folder / f"{name}.parquet"
        backend = table.get_backend()
        if backend.name != "duckdb":
            table.to_parquet(path)
            continue
        # Enum columns become text only after sorting, because enums are cheaper to move.
        texts = [f'CAST("{key}" AS VARCHAR) AS "{key}"' for key, dtype in table.schema().items() if dtype.is_string()]
        file = str(path).replace("'", "''")
        query = f"SELECT * REPLACE ({', '.join(texts)}) FROM ({ibis.to_sql(table, dialect='duckdb')})"
        backend.raw_sql(f"COPY ({query}) TO '{file}' (FORMAT PARQUET)")
    write_counts(tables.counts, folder)


def read_tables(connection: ibis.BaseBackend, folder: Path) -> Tables:
    """Reads the tables that `write_tables` wrote.

    Raises:
        InputError: The folder lacks a file.
    """
    for name in _NAMES:
        if not (folder / f"{name}.parquet").is_file():
            raise InputError(f"{folder / name}.parquet: no such file. Run `prepare` first.")
    customers, articles, transactions = (connection.read_parquet(folder / f"{name}.parquet") for name in _NAMES)
    return Tables(customers, articles, transactions, counts=read_counts(folder))
