"""Any retailer's tables: a mapping in the pipeline file translates their columns to the canonical ones.

One file of transactions is enough; articles and customers without a file of their own are derived from it.
"""

from dataclasses import replace
from pathlib import Path

import ibis
from ibis import _

from tfrs_fashion.data.baskets import basket_of
from tfrs_fashion.data.conversions import Kind, MappedColumn, convert
from tfrs_fashion.data.raw import find_files, make_dialect, materialize, read_raw
from tfrs_fashion.data.returns import net_returns
from tfrs_fashion.data.row_counts import count_rows
from tfrs_fashion.data.rows import Rows
from tfrs_fashion.schema import ANONYMOUS_CUSTOMER, TRANSACTION_COLUMNS, RowCount, Tables
from tfrs_fashion.settings.data import DataConfig, TransactionsConfig

_KINDS: dict[str, Kind] = {
    "customer_id": "id",
    "article_id": "id",
    "t_dat": "timestamp",
    "price": "number",
    "quantity": "integer",
    "discount": "number",
    "sales_channel_id": "integer",
    "store_id": "id",
    "basket_id": "id",
}
# Values of the columns of transactions that a source does not have.
ABSENT = {
    "price": ibis.null("float64"),
    "quantity": ibis.literal(1, "int64"),
    "discount": ibis.null("float64"),
    "sales_channel_id": ibis.null("int64"),
    "store_id": ibis.null("string"),
    "basket_id": ibis.null("string"),
}
_CANONICAL = tuple(column.name for column in TRANSACTION_COLUMNS)


def source_files(config: DataConfig) -> list[Path]:
    """Returns the files that `load_tables` reads.

    Raises:
        InputError: One is missing.
    """
    return [
        path
        for table in ("transactions", "articles", "customers")
        if (file := getattr(config, table).file)
        for path in find_files(Path(config.path) / file, key=f"data.{table}.file")
    ]


def _columns(config: TransactionsConfig) -> list[MappedColumn]:
    required = {"article_id", "t_dat"} | (set() if "" in config.anonymous_ids else {"customer_id"})
    return [
        MappedColumn(
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
    lines = lines.mutate(**{name: value for name, value in ABSENT.items() if name not in lines.columns})
    if config.anonymous_ids:
        is_anonymous = lines.customer_id.fill_null("").isin(config.anonymous_ids)
        lines = lines.mutate(customer_id=ibis.ifelse(is_anonymous, ANONYMOUS_CUSTOMER, lines.customer_id))
    drops: dict[str, ibis.Value] = {}
    if config.not_merchandise:
        drops["dropped: the article is not merchandise"] = lines.article_id.isin(config.not_merchandise)
    drops["dropped: quantity is 0"] = lines.quantity == 0
    is_return = lines.quantity < 0
    if config.returns == "drop":
        drops["dropped: a return (quantity below 0)"] = is_return
    else:
        is_anonymous_return = is_return & (lines.customer_id == ANONYMOUS_CUSTOMER)
        drops["dropped: a return by an anonymous customer, whose purchase is unknown"] = is_anonymous_return
    lines = lines.mutate(cause=ibis.cases(*((is_bad, rule) for rule, is_bad in drops.items()), else_=""))
    is_kept = lines.cause == ""
    changes = {
        "quantity is missing: 1 instead": is_kept & lines.quantity.isnull(),
        "price is 0: unknown instead": is_kept & (lines.price == 0),
    }
    if config.basket_id:
        is_missing = is_kept & lines.basket_id.isnull()
        changes["basket_id is missing: the basket of that customer and day instead"] = is_missing
    rules = {rule: lines.cause == rule for rule in drops} | changes
    counts = count_rows(lines, rules, name="transactions")
    lines = lines.filter(_.cause == "").drop("cause")
    return lines.mutate(quantity=_.quantity.fill_null(1), price=_.price.nullif(0)), counts


def _with_baskets(lines: ibis.Table, *, has_anonymous: bool) -> ibis.Table:
    """Fills missing basket ids: the day for a customer, and a basket of its own for each anonymous line."""
    # Casting a date to text takes a third of the time of formatting it.
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


def _replace(connection: ibis.BaseBackend, former: ibis.Table, query: ibis.Table) -> ibis.Table:
    """Materializes a query and drops the table that it reads, since two copies of all transactions may not fit."""
    table = materialize(connection, query)
    # Ibis 12's `drop_table` writes SQL that DuckDB 2 cannot parse.
    connection.raw_sql(f'DROP TABLE "{former.op().name}"')
    return table


def load_tables(connection: ibis.BaseBackend, config: DataConfig) -> Tables:
    """Loads tables by a mapping; docs/your_tables.md lists its rules.

    Args:
        connection: DuckDB backend of Ibis.
        config: The folder of the files, how they are written, and the mapping of their columns.

    Returns:
        Tables in canonical columns, stored in DuckDB, with the files' names of those columns, and counts of rows that
        were dropped or changed. A derived row holds the values of the first transaction with its id, and is known from
        then on.

    Raises:
        InputError: A file cannot be read, a mapped column does not exist, or a value is unreadable or invalid.
    """
    folder, dialect, transactions = Path(config.path), make_dialect(config), config.transactions
    articles, customers = config.articles, config.customers
    raw = read_raw(connection, folder / transactions.file, dialect=dialect, key="data.transactions.file")
    both = (
        Rows("customers", customers, customers.customer_id or transactions.customer_id),
        Rows("articles", articles, articles.article_id or transactions.article_id, transactions.article_id_digits),
    )
    columns = _columns(transactions)
    raw_names = {"transactions": {column.name: column.raw for column in columns}}
    raw_names |= {rows.table: rows.raw_names() for rows in both}
    derived = [rows for rows in both if not rows.config.file]
    columns += [replace(column, name=f"{rows.table}.{column.name}") for rows in derived for column in rows.columns()]
    lines, counts = convert(raw, columns, table="transactions")
    converted = materialize(connection, lines)
    lines, more_counts = _clean(converted, transactions)
    counts += more_counts
    lines = _with_baskets(lines, has_anonymous=bool(transactions.anonymous_ids))
    # Identical lines are summed at once if nothing else depends on single lines.
    is_summed = transactions.identical_lines == "sum" and transactions.returns == "drop" and not derived
    if is_summed:
        num_lines = int(lines.count().execute())
        lines = _sum_identical(lines)
    lines = _replace(connection, converted, lines)
    bought = lines.filter(_.quantity > 0)
    bought = bought.mutate(start=_.t_dat.min().over(ibis.window(group_by=basket_of(bought))))

    tables = {}
    for rows in both:
        if rows.config.file:
            first_sold = bought.group_by(rows.key).agg(start=_.start.min())
            table, more_counts = rows.read(connection, folder, dialect=dialect, first_sold=first_sold)
        else:
            table, more_counts = rows.derive(connection, bought.filter(bought[rows.key] != ANONYMOUS_CUSTOMER))
        tables[rows.table] = table
        counts += more_counts

    if transactions.returns == "net":
        netted, more_counts = net_returns(lines)
        lines = _replace(connection, lines, netted)
        counts += more_counts
    if transactions.identical_lines == "sum":
        if not is_summed:
            num_lines = int(lines.count().execute())
            lines = _replace(connection, lines, _sum_identical(lines))
        if merged := num_lines - int(lines.count().execute()):
            rule = "merged into another line that differs at most in quantity"
            counts += (RowCount("transactions", rule, merged),)
    lines = lines.select(*_CANONICAL)
    return Tables(**tables, transactions=lines, counts=tuple(dict.fromkeys(counts)), raw_names=raw_names)
