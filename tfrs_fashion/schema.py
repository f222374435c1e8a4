"""The canonical columns, the types that hold them, the checks of tables, and the package's two errors.

Every source is brought to these columns once, in `tfrs_fashion.data`; every later module relies on them.
Identifiers are strings. Integers made from them are called `*_index`: 0 is padding, 1 is out of vocabulary.
"""

import datetime
import difflib
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal, NamedTuple

import ibis
import numpy as np
from ibis import _

PADDING_INDEX = 0
OUT_OF_VOCABULARY_INDEX = 1
FIRST_INDEX = 2

# The id shared by all anonymous customers: their baskets count for articles, and they have no history.
ANONYMOUS_CUSTOMER = "<anonymous>"

# Maximum number of characters read from a description; those of real articles have a few hundred.
MAX_DESCRIPTION = 10_000

# Plausible values in tables and requests. An age outside these bounds counts as unknown; a discount is a share.
YOUNGEST, OLDEST = 10, 110
LOWEST_DISCOUNT, HIGHEST_DISCOUNT = 0.0, 1.0

# Timelines and requests store numbers in 32 bits; a larger one would be changed without notice.
MAX_INT32 = 2**31 - 1
MAX_FLOAT32 = float(np.finfo(np.float32).max)

Kind = Literal["string", "timestamp", "float", "int"]


class InputError(ValueError):
    """Bad input or usage: the message says what, where, how many, and how to fix it. Exit code 2."""


class RunError(RuntimeError):
    """A failure that the input did not cause (a full disk, a corrupted artifact). Exit code 1."""


@dataclass(frozen=True)
class Column:
    """A column that a table must have, or may have if it is not `required`."""

    name: str
    kind: Kind
    required: bool = True


TRANSACTION_COLUMNS = (
    Column("customer_id", "string"),
    Column("article_id", "string"),
    Column("t_dat", "timestamp"),
    Column("price", "float"),
    Column("quantity", "int"),
    Column("discount", "float"),
    Column("sales_channel_id", "int"),
    Column("store_id", "string"),
    Column("basket_id", "string"),
)
ARTICLE_COLUMNS = (
    Column("article_id", "string"),
    Column("description", "string"),
    Column("list_price", "float", required=False),
    Column("margin", "float", required=False),
    Column("image_path", "string", required=False),
    Column("product_code", "string", required=False),
    Column("available_from", "timestamp", required=False),
    Column("available_to", "timestamp", required=False),
    # The instant from which the row is known; null if it always was. A row that was derived from the transactions is
    # known from its first one on.
    Column("known_from", "timestamp", required=False),
)
CUSTOMER_COLUMNS = (
    Column("customer_id", "string"),
    Column("age", "float", required=False),
    Column("status", "string", required=False),
    Column("known_from", "timestamp", required=False),
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
    """The number of rows of a table that a rule dropped or changed: nothing is repaired in silence."""

    table: str
    rule: str
    rows: int


@dataclass(frozen=True)
class Tables:
    """A retailer's tables in canonical columns.

    Attributes:
        customers: One row per customer: `CUSTOMER_COLUMNS` and the declared profile features.
        articles: One row per article: `ARTICLE_COLUMNS` and the declared categorical features.
        transactions: One row per article in a basket: `TRANSACTION_COLUMNS`.
        counts: Rows that the source dropped or changed, by rule.
        raw_names: For each table, the source's own names of canonical columns, used in messages.
    """

    customers: ibis.Table
    articles: ibis.Table
    transactions: ibis.Table
    counts: tuple[RowCount, ...] = field(default=())
    raw_names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def find_nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that a misspelt one most likely means, ignoring case; None if none is similar."""
    by_lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def _backquoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def check_names(table: ibis.Table, names: Sequence[str], *, setting: str, where: str, is_numeric: bool = False) -> None:
    """Checks that a table has the columns that a setting names.

    Args:
        table: Any Ibis table.
        names: Names of columns, from the pipeline file.
        setting: The setting that holds them, e.g. `features.categorical`.
        where: Name of the table for messages.
        is_numeric: Whether the columns must hold numbers.

    Raises:
        InputError: A column is missing (the message names the nearest existing one) or does not hold numbers.
    """
    missing = [name for name in names if name not in table.columns]
    if missing:
        near = {name: find_nearest(name, table.columns) for name in missing}
        hints = ", ".join(f"`{name}`" + (f" (did you mean `{near[name]}`?)" if near[name] else "") for name in missing)
        raise InputError(f"{setting}: the {where} table has no column(s) {hints}; found {_backquoted(table.columns)}.")
    types = {name: table[name].type() for name in names if is_numeric}
    if not_numeric := [name for name, dtype in types.items() if not (dtype.is_numeric() or dtype.is_null())]:
        raise InputError(f"{setting}: column(s) {', '.join(not_numeric)} of the {where} do not hold numbers.")


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
    """Checks that a table has the required columns, and that columns have the expected kinds.

    Args:
        table: Any Ibis table.
        columns: Expected columns; additional ones are allowed.
        where: Name of the file or table for messages.

    Raises:
        InputError: A required column is missing, or a column is of another kind.
    """
    schema = table.schema()
    missing = [column.name for column in columns if column.required and column.name not in schema]
    if missing:
        raise InputError(
            f"{where}: missing {len(missing)} column(s) {_backquoted(missing)}; found {_backquoted(schema)}. "
            "Add them, or map your own names to them."
        )
    for column in columns:
        if column.name not in schema:
            continue
        kind = _kind_of(schema[column.name])
        if kind != column.kind and not (kind == "int" and column.kind == "float"):
            raise InputError(
                f"{where}: column `{column.name}` has type {schema[column.name]}, expected {column.kind}. "
                "Convert the column in the source."
            )


def _samples(rows: ibis.Table, column: str) -> str:
    return ", ".join(map(repr, rows.select(column).limit(5).execute()[column].tolist()))


class _Rule(NamedTuple):
    """A condition on rows that are refused, with a description of the problem and how to fix it."""

    is_bad: ibis.Value
    column: str
    problem: str
    fix: str


def _refuse(table: ibis.Table, rules: Sequence[_Rule], *, where: str, raw_names: Mapping[str, str]) -> None:
    """Raises an error for the first broken rule. One pass counts the rows of all rules, which lazy tables need."""
    counts = table.agg(**{str(number): table.count(where=rule.is_bad) for number, rule in enumerate(rules)}).execute()
    for number, rule in enumerate(rules):
        if count := int(counts[str(number)][0]):
            raw = raw_names.get(rule.column, rule.column)
            column = f"`{rule.column}`" + (f" (from `{raw}`)" if raw != rule.column else "")
            samples = _samples(table.filter(rule.is_bad), rule.column)
            raise InputError(f"{where}: {count:,} row(s) where {column} {rule.problem}, e.g. {samples}. {rule.fix}")


def check_unique(table: ibis.Table, column: str, *, where: str) -> None:
    """Raises an InputError if a value of a column appears more than once."""
    repeated = table.group_by(column).agg(rows=_.count()).filter(_.rows > 1).order_by(column)
    if count := int(repeated.count().execute()):
        raise InputError(
            f"{where}: {count:,} value(s) of `{column}` appear more than once, e.g. {_samples(repeated, column)}. "
            "Keep one row for each."
        )


def _id_rules(table: ibis.Table, column: str) -> list[_Rule]:
    is_missing = table[column].isnull() | (table[column] == "")
    is_broken = table[column].re_search(r"[\x00-\x1f\x7f]")
    fix = "Artifacts store ids as lines of text: remove line breaks and tabs."
    return [
        _Rule(is_missing, column, "is null or empty", "Every row needs an id."),
        _Rule(is_broken, column, "holds control characters", fix),
    ]


def _is_too_large(number: ibis.Value) -> ibis.Value:
    """Whether a number is infinite, at least in 32 bits. False for NaN."""
    return (number.abs() > MAX_FLOAT32) & ~number.isnan()


def _number_rules(table: ibis.Table) -> list[_Rule]:
    problem = f"is infinite or beyond {MAX_FLOAT32:.1e} in size"
    return [
        _Rule(_is_too_large(table[name].cast("float64")), name, problem, "Leave an unknown number null.")
        for name, dtype in table.schema().items()
        if dtype.is_numeric()
    ]


def _transaction_rules(table: ibis.Table, now: datetime.datetime) -> list[_Rule]:
    is_future = table.t_dat >= ibis.literal(now + datetime.timedelta(days=1))
    unknown_price = "Leave an unknown price null."
    is_no_share = (table.discount < LOWEST_DISCOUNT) | (table.discount > HIGHEST_DISCOUNT)

    def int32_rule(column: str, fix: str) -> _Rule:
        lowest, highest = -MAX_INT32 - 1, MAX_INT32
        is_outside = (table[column] < lowest) | (table[column] > highest)
        return _Rule(is_outside, column, f"lies outside [{lowest:,}, {highest:,}]", fix)

    return [
        _Rule(table.t_dat.isnull(), "t_dat", "is null or could not be read as a date", "Write dates as YYYY-MM-DD."),
        _Rule(is_future, "t_dat", f"lies in the future (after {now:%Y-%m-%d})", "Check the date format and the clock."),
        _Rule(table.price.isnan() | table.price.isinf(), "price", "is NaN or infinite", unknown_price),
        _Rule(_is_too_large(table.price), "price", f"is beyond {MAX_FLOAT32:.1e} in size", unknown_price),
        _Rule(
            table.price < 0,
            "price",
            "is negative",
            "A return is a negative quantity at the price that was paid (data.transactions.returns says how it is read).",
        ),
        _Rule(
            table.quantity.isnull() | (table.quantity < 1),
            "quantity",
            "is null or below 1",
            "Drop returns and empty lines.",
        ),
        int32_rule("quantity", "Give the units of a line."),
        int32_rule("sales_channel_id", "Number the channels from 1, or leave the column out."),
        _Rule(
            is_no_share,
            "discount",
            f"lies outside [{LOWEST_DISCOUNT:g}, {HIGHEST_DISCOUNT:g}]",
            'Give the share off the list price, or set data.transactions.discount_unit = "percent".',
        ),
    ]


def check_tables(tables: Tables, *, now: datetime.datetime | None = None) -> None:
    """Checks tables against the canonical columns.

    Args:
        tables: Tables as loaded from a source.
        now: The present, by default this machine's clock. Purchases more than a day later are refused: a day, because
            tables and machine may be in different time zones.

    Raises:
        InputError: A column is missing or of another type; a table is empty; an id is null or repeated; a price
            is negative, NaN or infinite; a quantity is below 1; a discount lies outside [0, 1]; a date is null or in the
            future; a number does not fit 32 bits.
    """
    now = now or datetime.datetime.now()
    for name, columns in (
        ("customers", CUSTOMER_COLUMNS),
        ("articles", ARTICLE_COLUMNS),
        ("transactions", TRANSACTION_COLUMNS),
    ):
        table = getattr(tables, name)
        check_columns(table, columns, where=name)
        if int(table.count().execute()) == 0:
            dropped = "; ".join(f"{row.rows:,} {row.rule}" for row in tables.counts if row.table == name)
            raise InputError(f"{name}: the table is empty{f' ({dropped})' if dropped else ''}. Nothing to learn from.")
    for name, key in (("customers", "customer_id"), ("articles", "article_id")):
        table = getattr(tables, name)
        rules = [*_id_rules(table, key), *_number_rules(table)]
        _refuse(table, rules, where=name, raw_names=tables.raw_names.get(name, {}))
        check_unique(table, key, where=name)
    table = tables.transactions.mutate(price=_.price.cast("float64"), discount=_.discount.cast("float64"))
    raw_names = tables.raw_names.get("transactions", {})
    for key in ("customer_id", "article_id", "basket_id"):
        # Ids repeat, so each distinct one is checked once; the rows are only read if one is bad.
        distinct = table.select(key).distinct()
        is_bad = reduce(operator.or_, (rule.is_bad for rule in _id_rules(distinct, key)))
        if int(distinct.count(where=is_bad).execute()):
            _refuse(table, _id_rules(table, key), where="transactions", raw_names=raw_names)
    _refuse(table, _transaction_rules(table, now), where="transactions", raw_names=raw_names)
