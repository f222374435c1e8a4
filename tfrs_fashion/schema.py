"""The canonical columns, the nouns stored in them, and the checks at their edges.

Every source is brought to these columns once, in `tfrs_fashion.data`; every later module relies on them.
Identifiers are strings. Integers made from them are called `*_index`: 0 is padding, 1 is out of vocabulary.
"""

import datetime
import difflib
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

import ibis
import numpy as np
from ibis import _

PADDING_INDEX = 0
OUT_OF_VOCABULARY_INDEX = 1
FIRST_INDEX = 2

# The one id of all customers who are not told apart: their baskets count for articles, and they have no history.
ANONYMOUS_CUSTOMER = "<anonymous>"

# Characters of a description that are read; descriptions of articles have a few hundred.
MAX_DESCRIPTION = 10_000

# What tables and requests may say of a customer and of a purchase: an age outside these is unknown, and so is a price of
# 0; a discount is a share.
YOUNGEST, OLDEST = 10, 110
LOWEST_DISCOUNT, HIGHEST_DISCOUNT = 0.0, 1.0

# Timelines and requests hold whole numbers and fractions in 32 bits; a larger one would come back as another.
MAX_INT32 = 2**31 - 1
MAX_FLOAT32 = float(np.finfo(np.float32).max)

Kind = Literal["string", "timestamp", "float", "int"]


class InputError(ValueError):
    """Bad input or usage: the message says what, where, how many, and how to fix it. Exit code 2."""


class RunError(RuntimeError):
    """Something failed that was not the input's fault (disk, a corrupted artifact). Exit code 1."""


@dataclass(frozen=True)
class Column:
    """A canonical column: its name, its kind, whether a table must have it, and whether it may be null."""

    name: str
    kind: Kind
    required: bool = True
    nullable: bool = False


TRANSACTION_COLUMNS = (
    Column("customer_id", "string"),
    Column("article_id", "string"),
    Column("t_dat", "timestamp"),
    Column("price", "float", nullable=True),
    Column("quantity", "int"),
    Column("discount", "float", nullable=True),
    Column("sales_channel_id", "int", nullable=True),
    Column("store_id", "string", nullable=True),
    Column("basket_id", "string"),
)
ARTICLE_COLUMNS = (
    Column("article_id", "string"),
    Column("description", "string", nullable=True),
    Column("list_price", "float", required=False, nullable=True),
    Column("margin", "float", required=False, nullable=True),
    Column("image_path", "string", required=False, nullable=True),
    Column("product_code", "string", required=False, nullable=True),
    Column("available_from", "timestamp", required=False, nullable=True),
    Column("available_to", "timestamp", required=False, nullable=True),
    # First instant at which the row was known; null where the catalogue always held it. Rows that are made from the
    # transactions are known from the first of these on.
    Column("known_from", "timestamp", required=False, nullable=True),
)
CUSTOMER_COLUMNS = (
    Column("customer_id", "string"),
    Column("age", "float", required=False, nullable=True),
    Column("status", "string", required=False, nullable=True),
    Column("known_from", "timestamp", required=False, nullable=True),
)

CANDIDATE_COLUMNS = {
    "customer_index": "int32",
    "article_index": "int32",
    "rank": "int32",
    "score": "float32",
    "source": "string",
}
TARGET_RANK_COLUMNS = {
    "customer_index": "int32",
    "article_index": "int32",
    "rank": "int32",
    "num_ranked": "int32",
    "source": "string",
}


@dataclass(frozen=True)
class RowCount:
    """How many rows of a table a rule touched, and why: nothing is dropped or changed in silence."""

    table: str
    rule: str
    rows: int


@dataclass(frozen=True)
class Tables:
    """A retailer's tables in canonical columns.

    Attributes:
        customers: One row a customer, `CUSTOMER_COLUMNS` and the declared profile features.
        articles: One row an article, `ARTICLE_COLUMNS` and the declared categorical features.
        transactions: One row an article in a basket, `TRANSACTION_COLUMNS`.
        counts: What the source dropped or changed, by rule.
        raw_names: For each table the source's own names of canonical columns, for messages.
    """

    customers: ibis.Table
    articles: ibis.Table
    transactions: ibis.Table
    counts: tuple[RowCount, ...] = field(default=())
    raw_names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def find_nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that a misspelt one most likely means, whatever the case; None where none is near."""
    by_lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def check_names(table: ibis.Table, names: Sequence[str], *, setting: str, where: str, is_numeric: bool = False) -> None:
    """Checks that a table has the columns that a setting names.

    Args:
        table: Any Ibis table.
        names: As in the pipeline file.
        setting: Where the pipeline file says so, e.g. `features.categorical`.
        where: What the table is called.
        is_numeric: Whether they must hold numbers, if anything.

    Raises:
        InputError: It lacks some, and the nearest that it has are named; or some hold no numbers.
    """
    lacking = [name for name in names if name not in table.columns]
    if lacking:
        near = {name: find_nearest(name, table.columns) for name in lacking}
        words = ", ".join(f"`{name}`" + (f" (did you mean `{near[name]}`?)" if near[name] else "") for name in lacking)
        found = ", ".join(f"`{name}`" for name in table.columns)
        raise InputError(f"{setting}: the {where} table has no column(s) {words}; found {found}.")
    types = {name: table[name].type() for name in names if is_numeric}
    if no_numbers := [name for name, dtype in types.items() if not (dtype.is_numeric() or dtype.is_null())]:
        raise InputError(f"{setting}: column(s) {', '.join(no_numbers)} of the {where} are no numbers.")


def _samples(values: Iterable[object], limit: int = 5) -> str:
    listed = [repr(value) for value, _index in zip(values, range(limit), strict=False)]
    return ", ".join(listed)


def _kind_of(dtype: ibis.DataType) -> str:
    if dtype.is_string():
        return "string"
    if dtype.is_date() or (dtype.is_timestamp() and dtype.timezone is None):
        return "timestamp"
    if dtype.is_integer():
        return "int"
    if dtype.is_floating() or dtype.is_decimal():
        return "float"
    return str(dtype)


def check_columns(table: ibis.Table, columns: Sequence[Column], *, where: str) -> None:
    """Checks that a table has the columns it needs, of the right kinds.

    Args:
        table: Any Ibis table.
        columns: What it should hold; extra columns are allowed.
        where: File or table to name in messages.

    Raises:
        InputError: A required column is missing, or a column has another kind.
    """
    schema = table.schema()
    missing = [column.name for column in columns if column.required and column.name not in schema]
    if missing:
        raise InputError(
            f"{where}: missing {len(missing)} column(s) {', '.join(f'`{name}`' for name in missing)}; "
            f"found {', '.join(f'`{name}`' for name in schema)}. Add them, or map your own names to them."
        )
    for column in columns:
        if column.name not in schema:
            continue
        found = _kind_of(schema[column.name])
        if found != column.kind and not (found == "int" and column.kind == "float"):
            raise InputError(
                f"{where}: column `{column.name}` has type {schema[column.name]}, expected {column.kind}. "
                "Convert the column in the source."
            )


@dataclass(frozen=True)
class _Rule:
    """Rows that are refused, what is wrong with them, and how to mend it."""

    bad: ibis.Value
    column: str
    what: str
    fix: str


def _refuse(table: ibis.Table, rules: Sequence[_Rule], *, where: str, raw_names: Mapping[str, str]) -> None:
    """Refuses the first rule that rows break; all are counted in one pass, which a lazy table pays for once."""
    counts = table.agg(**{str(place): table.count(where=rule.bad) for place, rule in enumerate(rules)}).execute()
    for place, rule in enumerate(rules):
        if count := int(counts[str(place)][0]):
            found = table.filter(rule.bad).select(rule.column).limit(5).execute()[rule.column].tolist()
            raw = raw_names.get(rule.column, rule.column)
            column = f"`{rule.column}`" + (f" (from `{raw}`)" if raw != rule.column else "")
            raise InputError(
                f"{where}: {count:,} row(s) where {column} {rule.what}, e.g. {_samples(found)}. {rule.fix}"
            )


def check_unique(table: ibis.Table, column: str, *, where: str) -> None:
    """Checks that each value of a column appears once.

    Raises:
        InputError: Some values appear more than once.
    """
    repeated = table.group_by(column).agg(rows=_.count()).filter(_.rows > 1).order_by(column)
    count = int(repeated.count().execute())
    if count:
        found = repeated.limit(5).execute()[column].tolist()
        raise InputError(
            f"{where}: {count:,} value(s) of `{column}` appear more than once, e.g. {_samples(found)}. "
            "Keep one row for each."
        )


def _id_rules(table: ibis.Table, column: str) -> list[_Rule]:
    missing = table[column].isnull() | (table[column] == "")
    broken = table[column].re_search(r"[\x00-\x1f\x7f]")
    advice = "Ids are written one a line into the artifact: remove line breaks and tabs."
    return [
        _Rule(missing, column, "is null or empty", "Every row needs an id."),
        _Rule(broken, column, "holds control characters", advice),
    ]


def _any(rules: Sequence[_Rule]) -> ibis.Value:
    return reduce(operator.or_, (rule.bad for rule in rules))


def _too_large(number: ibis.Value) -> ibis.Value:
    """Whether a number is infinite, or not even finite in 32 bits; NaN is neither."""
    return (number.abs() > MAX_FLOAT32) & ~number.isnan()


def _number_rules(table: ibis.Table) -> list[_Rule]:
    what = f"is infinite or beyond {MAX_FLOAT32:.1e} in size"
    return [
        _Rule(_too_large(table[name].cast("float64")), name, what, "Leave an unknown number null.")
        for name, dtype in table.schema().items()
        if dtype.is_numeric()
    ]


def _int32_rule(table: ibis.Table, column: str, fix: str) -> _Rule:
    lowest, highest = -MAX_INT32 - 1, MAX_INT32
    outside = (table[column] < lowest) | (table[column] > highest)
    return _Rule(outside, column, f"lies outside [{lowest:,}, {highest:,}]", fix)


def check_tables(tables: Tables, *, now: datetime.datetime | None = None) -> None:
    """Checks tables against the canonical columns.

    Args:
        tables: Tables as a source loaded them.
        now: The present, by default of this machine; purchases more than a day after it are refused, a day because
            tables and machine may stand in different time zones.

    Raises:
        InputError: A column is missing or of another type; a table is empty; an id is null or repeated; a price
            is negative, NaN or infinite; a quantity is below 1; a discount lies outside [0, 1]; a date is null or in the
            future; a number is too large for 32 bits.
    """
    now = now or datetime.datetime.now()
    for name, table, columns in (
        ("customers", tables.customers, CUSTOMER_COLUMNS),
        ("articles", tables.articles, ARTICLE_COLUMNS),
        ("transactions", tables.transactions, TRANSACTION_COLUMNS),
    ):
        check_columns(table, columns, where=name)
        if int(table.count().execute()) == 0:
            dropped = "; ".join(f"{row.rows:,} {row.rule}" for row in tables.counts if row.table == name)
            raise InputError(f"{name}: the table is empty{f' ({dropped})' if dropped else ''}. Nothing to learn from.")
    for name, table, key in (
        ("customers", tables.customers, "customer_id"),
        ("articles", tables.articles, "article_id"),
    ):
        rules = [*_id_rules(table, key), *_number_rules(table)]
        _refuse(table, rules, where=name, raw_names=tables.raw_names.get(name, {}))
        check_unique(table, key, where=name)
    table = tables.transactions.mutate(price=_.price.cast("float64"), discount=_.discount.cast("float64"))
    future = table.t_dat >= ibis.literal(now + datetime.timedelta(days=1))
    late = f"lies in the future (after {now:%Y-%m-%d})"
    raw_names = tables.raw_names.get("transactions", {})
    for key in ("customer_id", "article_id", "basket_id"):
        # Ids come again and again: those that are there are looked at once. The rows are read where one is bad.
        distinct = table.select(key).distinct()
        if int(distinct.count(where=_any(_id_rules(distinct, key))).execute()):
            _refuse(table, _id_rules(table, key), where="transactions", raw_names=raw_names)
    rules = [
        _Rule(table.t_dat.isnull(), "t_dat", "is null or could not be read as a date", "Write dates as YYYY-MM-DD."),
        _Rule(future, "t_dat", late, "Check the date format and the clock."),
        _Rule(table.price.isnan() | table.price.isinf(), "price", "is NaN or infinite", "Leave an unknown price null."),
        _Rule(
            _too_large(table.price),
            "price",
            f"is beyond {MAX_FLOAT32:.1e} in size",
            "Leave an unknown price null.",
        ),
        _Rule(
            table.price < 0,
            "price",
            "is negative",
            "A return is a negative quantity at the price that was paid (data.transactions.returns says what becomes of it).",
        ),
        _Rule(
            table.quantity.isnull() | (table.quantity < 1),
            "quantity",
            "is null or below 1",
            "Drop returns and empty lines.",
        ),
        _int32_rule(table, "quantity", "Give the units of a line."),
        _int32_rule(table, "sales_channel_id", "Number the channels from 1, or leave the column out."),
        _Rule(
            (table.discount < LOWEST_DISCOUNT) | (table.discount > HIGHEST_DISCOUNT),
            "discount",
            f"lies outside [{LOWEST_DISCOUNT:g}, {HIGHEST_DISCOUNT:g}]",
            'Give the share off the list price, or set data.transactions.discount_unit = "percent".',
        ),
    ]
    _refuse(table, rules, where="transactions", raw_names=raw_names)
