"""Tables as a run keeps them: indexed, completed and written to Parquet."""

import json
from dataclasses import asdict
from pathlib import Path

import ibis
from ibis import _

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


def _complete(table: ibis.Table, transactions: ibis.Table, key: str) -> tuple[ibis.Table, int]:
    """Appends a row, empty but for its id and `known_from`, for each id that only the transactions know."""
    if "known_from" not in table.columns:
        table = table.mutate(known_from=ibis.null("timestamp"))
    table = table.mutate(known_from=_.known_from.cast("timestamp"))
    unknown = transactions.group_by(key).agg(known_from=_.t_dat.min().cast("timestamp")).anti_join(table, key)
    made = {key, "known_from"}
    empty = unknown.mutate(**{name: ibis.null(dtype) for name, dtype in table.schema().items() if name not in made})
    return table.union(empty.select(*table.columns)), int(unknown.count().execute())


def _indexed(table: ibis.Table, *, key: str, index: str) -> ibis.Table:
    """Numbers the rows by the instant from which they are known, those always known first, then by id."""
    if index in table.columns:
        raise InputError(f"the table of `{key}` has a column `{index}`, which is made here. Rename it in the source.")
    order = [table.known_from.notnull().cast("int8"), table.known_from, table[key]]
    return table.mutate(**{index: (ibis.row_number().over(ibis.window(order_by=order)) + FIRST_INDEX).cast("int32")})


def index_tables(tables: Tables) -> Tables:
    """Gives customers and articles their indices, and completes what the transactions refer to.

    Indices follow the instant from which a row is known, then the id. So for any cutoff the customers and articles
    known before it are exactly the indices below some bound, and no row after it can change or order them.

    Args:
        tables: Checked tables.

    Returns:
        Tables with `customer_index` and `article_index`, both also in the transactions, and `known_from`. Ids without
        a row get an empty one, known from their first transaction on. Anonymous customers have no row, and the index
        of what is out of vocabulary. The lines of one basket all get the time of its first line, since a basket is one
        event. Each rule that touched rows adds to `counts`.

    Raises:
        InputError: A table has a column with a name that is made here.
    """
    starts = tables.transactions.group_by(["customer_id", "basket_id"]).agg(start=_.t_dat.min())
    transactions = tables.transactions.inner_join(starts, ["customer_id", "basket_id"])
    moved = int(transactions.filter(_.t_dat != _.start).count().execute())
    transactions = transactions.mutate(t_dat=_.start).drop("start")
    named = transactions.filter(_.customer_id != ANONYMOUS_CUSTOMER)
    customers, new_customers = _complete(tables.customers, named, "customer_id")
    articles, new_articles = _complete(tables.articles, transactions, "article_id")
    customers = _indexed(customers, key="customer_id", index="customer_index")
    articles = _indexed(articles, key="article_id", index="article_index")
    transactions = transactions.left_join(customers.select("customer_id", "customer_index"), "customer_id")
    transactions = transactions.mutate(
        customer_index=_.customer_index.fill_null(OUT_OF_VOCABULARY_INDEX).cast("int32")
    ).drop("customer_id_right")
    transactions = transactions.inner_join(articles.select("article_id", "article_index"), "article_id")
    anonymous = int(transactions.filter(_.customer_index == OUT_OF_VOCABULARY_INDEX).count().execute())
    long = int(articles.filter(_.description.length() > MAX_DESCRIPTION).count().execute())
    found = (
        ("transactions", "moved to the first instant of their basket", moved),
        ("transactions", "of anonymous customers: they count for articles and belong to no history", anonymous),
        ("customers", "added: bought, but without a row; empty profile", new_customers),
        ("articles", "added: sold, but without a row; no features", new_articles),
        ("articles", f"with a description of more than {MAX_DESCRIPTION:,} characters, whose rest is not read", long),
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
