"""Tables as a run keeps them: indexed, completed and written to Parquet."""

import json
from dataclasses import asdict
from pathlib import Path

import ibis
from ibis import _

from tfrs_fashion.schema import FIRST_INDEX, InputError, RowCount, Tables

_NAMES = ("customers", "articles", "transactions")


def _with_unknown(table: ibis.Table, transactions: ibis.Table, key: str) -> tuple[ibis.Table, int]:
    """Appends a row, empty but for its id, for each id that only the transactions know."""
    unknown = transactions.select(key).distinct().anti_join(table, key)
    empty = unknown.mutate(**{name: ibis.null(dtype) for name, dtype in table.schema().items() if name != key})
    return table.union(empty.select(*table.columns)), int(unknown.count().execute())


def _indexed(table: ibis.Table, transactions: ibis.Table, *, key: str, index: str, first: str) -> ibis.Table:
    """Numbers the rows by first purchase, then id; rows that were never bought come last."""
    taken = [name for name in (index, first) if name in table.columns]
    if taken:
        raise InputError(
            f"the table of `{key}` has column(s) {', '.join(f'`{name}`' for name in taken)}, which are made from the "
            "transactions. Rename them in the source."
        )
    firsts = transactions.group_by(key).agg(**{first: _.t_dat.min()})
    joined = table.left_join(firsts, key).drop(f"{key}_right")
    order = ibis.row_number().over(
        ibis.window(order_by=[joined[first].isnull().cast("int8"), joined[first], joined[key]])
    )
    return joined.mutate(**{index: (order + FIRST_INDEX).cast("int32")})


def index_tables(tables: Tables) -> Tables:
    """Gives customers and articles their indices, and completes what the transactions refer to.

    Indices follow the first purchase (then the id). So for any cutoff the articles sold before it are exactly the
    indices below some bound, and rows after the cutoff cannot change an index below it.

    Args:
        tables: Checked tables.

    Returns:
        Tables with `customer_index` and `first_bought`, `article_index` and `first_sold` (null where never), and
        both indices in the transactions. Ids without a row get an empty one. The lines of one basket all get the
        time of its first line, since a basket is one event. Each rule that touched rows adds to `counts`.

    Raises:
        InputError: A table has a column with a name that is made here.
    """
    starts = tables.transactions.group_by(["customer_id", "basket_id"]).agg(start=_.t_dat.min())
    transactions = tables.transactions.inner_join(starts, ["customer_id", "basket_id"])
    moved = int(transactions.filter(_.t_dat != _.start).count().execute())
    transactions = transactions.mutate(t_dat=_.start).drop("start")
    customers, new_customers = _with_unknown(tables.customers, transactions, "customer_id")
    articles, new_articles = _with_unknown(tables.articles, transactions, "article_id")
    customers = _indexed(customers, transactions, key="customer_id", index="customer_index", first="first_bought")
    articles = _indexed(articles, transactions, key="article_id", index="article_index", first="first_sold")
    transactions = transactions.inner_join(customers.select("customer_id", "customer_index"), "customer_id")
    transactions = transactions.inner_join(articles.select("article_id", "article_index"), "article_id")
    found = (
        ("transactions", "moved to the first instant of their basket", moved),
        ("customers", "added: bought, but without a row; empty profile", new_customers),
        ("articles", "added: sold, but without a row; no features", new_articles),
    )
    counts = tuple(RowCount(table=table, rule=rule, rows=rows) for table, rule, rows in found if rows)
    return Tables(
        customers=customers.order_by("customer_index"),
        articles=articles.order_by("article_index"),
        transactions=transactions.order_by(["customer_index", "t_dat", "basket_id", "article_index"]),
        counts=tables.counts + counts,
    )


def write_tables(tables: Tables, folder: Path) -> None:
    """Writes indexed tables as `customers`, `articles` and `transactions` in Parquet, and `counts.json`."""
    for name in _NAMES:
        getattr(tables, name).to_parquet(folder / f"{name}.parquet")
    counts = [asdict(count) for count in tables.counts]
    (folder / "counts.json").write_text(json.dumps(counts, indent=2, ensure_ascii=False), encoding="utf-8")


def read_tables(connection: ibis.BaseBackend, folder: Path) -> Tables:
    """Reads the tables that `write_tables` wrote.

    Raises:
        InputError: The folder lacks a file.
    """
    for name in _NAMES:
        if not (folder / f"{name}.parquet").is_file():
            raise InputError(f"{folder / name}.parquet: no such file. Run `prepare` first.")
    counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    customers, articles, transactions = (connection.read_parquet(folder / f"{name}.parquet") for name in _NAMES)
    return Tables(customers, articles, transactions, counts=tuple(RowCount(**count) for count in counts))
