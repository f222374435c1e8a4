"""Any retailer's tables: a mapping in the pipeline file brings their columns to the canonical ones.

One file of transactions is enough; articles and customers without a file of their own are derived from it.
"""

from dataclasses import replace
from pathlib import Path

import ibis
from ibis import _

from tfrs_fashion.data.baskets import basket_of
from tfrs_fashion.data.conversions import Kind, Wanted, convert
from tfrs_fashion.data.raw import PLAIN, Dialect, find_files, keep, read_raw
from tfrs_fashion.data.returns import net_returns
from tfrs_fashion.data.rows import Rows
from tfrs_fashion.schema import ANONYMOUS_CUSTOMER, TRANSACTION_COLUMNS, RowCount, Tables
from tfrs_fashion.settings.data import ArticlesConfig, CustomersConfig, TransactionsConfig

_KINDS: dict[str, Kind] = {
    "customer_id": "id",
    "article_id": "id",
    "t_dat": "instant",
    "price": "number",
    "quantity": "whole",
    "discount": "number",
    "sales_channel_id": "whole",
    "store_id": "id",
    "basket_id": "id",
}
_ABSENT = {
    "price": ibis.null("float64"),
    "quantity": ibis.literal(1, "int64"),
    "discount": ibis.null("float64"),
    "sales_channel_id": ibis.null("int64"),
    "store_id": ibis.null("string"),
    "basket_id": ibis.null("string"),
}
_CANONICAL = tuple(column.name for column in TRANSACTION_COLUMNS)


def source_files(
    *, path: str | Path, transactions: TransactionsConfig, articles: ArticlesConfig, customers: CustomersConfig
) -> list[Path]:
    """Returns the files that `load_tables` reads.

    Raises:
        InputError: One is missing.
    """
    named = {"transactions": transactions.file, "articles": articles.file, "customers": customers.file}
    return [
        file
        for table, name in named.items()
        if name
        for file in find_files(Path(path) / name, key=f"data.{table}.file")
    ]


def _wanted(config: TransactionsConfig) -> list[Wanted]:
    required = {"article_id", "t_dat"} | (set() if "" in config.anonymous_ids else {"customer_id"})
    return [
        Wanted(
            name,
            raw,
            f"data.transactions.{name}",
            kind,
            required=name in required,
            digits=config.article_id_digits if name == "article_id" else 0,
            date_format=config.date_format,
            ordinal=config.ordinal,
            is_percent=name == "discount" and config.discount_unit == "percent",
        )
        for name, kind in _KINDS.items()
        if (raw := getattr(config, name))
    ]


def _clean(lines: ibis.Table, config: TransactionsConfig) -> tuple[ibis.Table, tuple[RowCount, ...]]:
    """Applies the rules for single lines; each dropped line counts under the first rule that it breaks."""
    lines = lines.mutate(**{name: value for name, value in _ABSENT.items() if name not in lines.columns})
    if config.anonymous_ids:
        is_anonymous = lines.customer_id.fill_null("").isin(config.anonymous_ids)
        lines = lines.mutate(customer_id=ibis.ifelse(is_anonymous, ANONYMOUS_CUSTOMER, lines.customer_id))
    rules: list[tuple[ibis.Value, str]] = []
    if config.not_merchandise:
        rules.append((_.article_id.isin(config.not_merchandise), "dropped: the article is not merchandise"))
    rules.append((_.quantity == 0, "dropped: quantity is 0"))
    if config.returns == "drop":
        rules.append((_.quantity < 0, "dropped: a return (quantity below 0)"))
    else:
        anonymous_return = (_.quantity < 0) & (_.customer_id == ANONYMOUS_CUSTOMER)
        rules.append((anonymous_return, "dropped: a return by an anonymous customer, of nobody knows what"))
    lines = lines.mutate(cause=ibis.cases(*rules, else_=""))
    changes = {
        "quantity is missing: 1 instead": (_.cause == "") & _.quantity.isnull(),
        "price is 0: unknown instead": (_.cause == "") & (_.price == 0),
    }
    if config.basket_id:
        missing = (_.cause == "") & _.basket_id.isnull()
        changes["basket_id is missing: the basket of that customer and day instead"] = missing
    figures = {f"rule {place}": _.count(where=_.cause == rule) for place, (_bad, rule) in enumerate(rules)}
    figures |= {f"change {place}": _.count(where=bad) for place, bad in enumerate(changes.values())}
    found = lines.agg(**figures).execute().iloc[0]
    named = [(f"rule {place}", rule) for place, (_bad, rule) in enumerate(rules)]
    named += [(f"change {place}", rule) for place, rule in enumerate(changes)]
    counts = tuple(RowCount("transactions", rule, int(found[key])) for key, rule in named if found[key])
    lines = lines.filter(_.cause == "").drop("cause")
    return lines.mutate(quantity=_.quantity.fill_null(1), price=_.price.nullif(0)), counts


def _with_baskets(lines: ibis.Table, *, has_anonymous: bool) -> ibis.Table:
    """Fills missing basket ids: the day for a customer, a basket of its own for each anonymous line."""
    # A date written as text takes a third of the time of a format.
    day = _.basket_id.fill_null(_.t_dat.date().cast("string"))
    if not has_anonymous:
        return lines.mutate(basket_id=day)
    is_alone = (_.customer_id == ANONYMOUS_CUSTOMER) & _.basket_id.isnull()
    # Numbered in time order, so that no later line changes the number of an earlier one; equal lines may swap.
    order = ["t_dat", *(name for name in lines.columns if name != "t_dat")]
    alone = lines.filter(is_alone)
    alone = alone.mutate(number=ibis.row_number().over(ibis.window(order_by=order)))
    alone = alone.mutate(basket_id="line " + (_.number + 1).cast("string")).drop("number")
    others = lines.filter(~is_alone).mutate(basket_id=day)
    return others.union(alone.select(*others.columns))


def _sum_identical(lines: ibis.Table) -> ibis.Table:
    keys = [name for name in _CANONICAL if name != "quantity"]
    return lines.group_by(keys).agg(quantity=_.quantity.sum().cast("int64")).select(*_CANONICAL)


def _replace(connection: ibis.BaseBackend, former: ibis.Table, made_of_it: ibis.Table) -> ibis.Table:
    """Keeps a table and lets go of the one that it was made of, since two of all transactions may be many."""
    kept = keep(connection, made_of_it)
    # `drop_table` of Ibis 12 writes what DuckDB 2 cannot parse.
    connection.raw_sql(f'DROP TABLE "{former.op().name}"')
    return kept


def load_tables(
    connection: ibis.BaseBackend,
    *,
    path: str | Path,
    transactions: TransactionsConfig,
    articles: ArticlesConfig,
    customers: CustomersConfig,
    dialect: Dialect = PLAIN,
) -> Tables:
    """Loads tables by a mapping; docs/your_tables.md lists its rules.

    Args:
        connection: A DuckDB backend of Ibis.
        path: Folder of the files.
        transactions: Columns of the transactions.
        articles: Columns of the articles.
        customers: Columns of the customers.
        dialect: How the files are written.

    Returns:
        Tables in canonical columns, held by DuckDB, with the files' names of those columns, and what was dropped or
        changed. A derived row holds the values of the first transaction that names its id, and is known from then on.

    Raises:
        InputError: A file cannot be read, a mapped column does not exist, or a value is not what it should be.
    """
    folder = Path(path)
    raw = read_raw(connection, folder / transactions.file, dialect=dialect, key="data.transactions.file")
    both = (
        Rows("customers", customers, customers.customer_id or transactions.customer_id),
        Rows("articles", articles, articles.article_id or transactions.article_id, transactions.article_id_digits),
    )
    wanted = _wanted(transactions)
    raw_names = {"transactions": {column.name: column.raw for column in wanted}}
    raw_names |= {rows.table: rows.raw_names() for rows in both}
    derived = [rows for rows in both if not rows.config.file]
    wanted += [replace(column, name=f"{rows.table}.{column.name}") for rows in derived for column in rows.wanted()]
    lines, counts = convert(raw, wanted, table="transactions")
    converted = keep(connection, lines)
    lines, more = _clean(converted, transactions)
    counts += more
    lines = _with_baskets(lines, has_anonymous=bool(transactions.anonymous_ids))
    # Where nothing else is made of single lines they are summed at once.
    is_summed = transactions.identical_lines == "sum" and transactions.returns == "drop" and not derived
    if is_summed:
        num_lines = int(lines.count().execute())
        lines = _sum_identical(lines)
    lines = _replace(connection, converted, lines)
    bought = lines.filter(_.quantity > 0)
    bought = bought.mutate(start=_.t_dat.min().over(ibis.window(group_by=basket_of(bought))))

    made = {}
    for rows in both:
        if rows.config.file:
            first_sold = bought.group_by(rows.key).agg(start=_.start.min())
            made[rows.table], more = rows.read(connection, folder, dialect=dialect, first_sold=first_sold)
        else:
            made[rows.table], more = rows.derive(connection, bought.filter(bought[rows.key] != ANONYMOUS_CUSTOMER))
        counts += more

    if transactions.returns == "net":
        netted, more = net_returns(lines)
        lines = _replace(connection, lines, netted)
        counts += more
    if transactions.identical_lines == "sum":
        if not is_summed:
            num_lines = int(lines.count().execute())
            lines = _replace(connection, lines, _sum_identical(lines))
        if merged := num_lines - int(lines.count().execute()):
            rule = "made one line with another that is equal in all but quantity: units of it"
            counts += (RowCount("transactions", rule, merged),)
    lines = lines.select(*_CANONICAL)
    return Tables(**made, transactions=lines, counts=tuple(dict.fromkeys(counts)), raw_names=raw_names)
