"""Conversions of raw columns: text, numbers and times, where nothing that fails to parse becomes null in silence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import ibis
import ibis.expr.datatypes as dt
from ibis import _

from tfrs_fashion.data.raw import Dialect, RawFile, read_error
from tfrs_fashion.data.tally import count_values
from tfrs_fashion.schema import MAX_FLOAT32, MAX_INT32, InputError, RowCount, find_nearest

# Whole numbers beyond this are not exact in floating point, so an id would not be itself.
_LARGEST_EXACT = 2**53
# White space of any script at either end.
_EDGES = r"^[\s\v\pZ]+|[\s\v\pZ]+$"
# A time of day with its offset from UTC.
_OFFSET = r":\d.*(Z|[+-]\d\d(:?\d\d)?)$"
# The last second of the year 9999.
_LAST_SECOND = 253_402_300_799
_YEARS = (ibis.timestamp("0001-01-01 00:00:00"), ibis.timestamp("9999-12-31 23:59:59"))
_SECONDS = {"days": 86_400, "seconds": 1}

Kind = Literal["id", "text", "words", "number", "whole", "instant"]
_MEANING = {
    "id": "an id",
    "text": "text",
    "words": "text",
    "number": "a finite number",
    "whole": "a whole number",
    "instant": "a time",
}


@ibis.udf.scalar.builtin
def try_strptime(text: dt.string, pattern: dt.string) -> dt.Timestamp(scale=6):  # type: ignore[valid-type]
    """DuckDB's: null where the text does not follow the pattern."""


@ibis.udf.scalar.builtin
def make_timestamp(microseconds: dt.int64) -> dt.Timestamp(scale=6):  # type: ignore[valid-type]
    """DuckDB's: microseconds since 1970, whatever time zone the machine is in."""


@ibis.udf.scalar.builtin
def timezone(zone: dt.string, instant: dt.Timestamp(timezone="UTC", scale=6)) -> dt.Timestamp(scale=6):  # type: ignore[valid-type]
    """DuckDB's: the clock's time in a zone."""


@dataclass(frozen=True)
class Wanted:
    """A column that a pipeline file asks for.

    Attributes:
        name: Its name in the result.
        raw: Its name in the file.
        key: Where the pipeline file says so, e.g. `data.transactions.price`.
        kind: What it becomes; `text` is a category, `words` are for reading.
        required: Whether a missing value is refused.
        digits: Of ids: shorter ones of digits alone get leading zeros; 0 for none.
        date_format: Of times written as text; ISO 8601 where empty.
        ordinal: Of times written as whole numbers: `days` or `seconds` since 1970.
        is_percent: Of numbers: whether they are percents, of which shares are made.
    """

    name: str
    raw: str
    key: str
    kind: Kind
    required: bool = False
    digits: int = 0
    date_format: str = ""
    ordinal: str = ""
    is_percent: bool = False


@dataclass(frozen=True)
class _Converted:
    value: ibis.Value
    unread: ibis.Value
    notes: tuple[tuple[str, ibis.Value], ...] = ()


def _is_padded(column: ibis.Value) -> ibis.Value:
    # Most texts begin and end with a printable character of ASCII; an expression takes longer to say so.
    is_plain = column.left(1).between("!", "~") & column.right(1).between("!", "~")
    return ibis.ifelse(is_plain, False, column.re_search(_EDGES))


def _text_of(column: ibis.Value) -> ibis.Value:
    """Trims; the rows in need of it are found first, since trimming costs more than finding them."""
    return ibis.ifelse(_is_padded(column), column.re_replace(_EDGES, ""), column).nullif("")


def _as_text(column: ibis.Value, wanted: Wanted, *, is_typed: bool) -> _Converted:
    """Trims, and writes whole numbers without a fraction, so that an id is the same from Parquet and from CSV."""
    dtype = column.type()
    notes: list[tuple[str, ibis.Value]] = []
    unread: ibis.Value = ibis.literal(False)
    if dtype.is_string():
        text = _text_of(column)
        notes.append(("trimmed", _is_padded(column)))
        if wanted.kind != "words" and not is_typed:
            is_float = ibis.ifelse(text.contains(".0"), text.re_search(r"^-?[0-9]+\.0+$"), False)
            notes.append(("a whole number written with .0, read without", is_float))
            text = ibis.ifelse(is_float, text.re_replace(r"\.0+$", ""), text)
    elif dtype.is_floating() or (dtype.is_decimal() and dtype.scale != 0):
        number = _as_number(column).value
        whole = _exact(number)
        text = ibis.coalesce(whole.cast("string"), number.cast("string"))
        if wanted.kind == "id":
            unread = number.notnull() & whole.isnull()
    else:
        text = column.cast("string")
    if wanted.digits:
        short = ibis.ifelse(text.length() < wanted.digits, text.re_search(r"^[0-9]+$"), False)
        notes.append((f"leading zeros put back, to {wanted.digits} digits", short))
        text = ibis.ifelse(short, text.lpad(wanted.digits, "0"), text)
    return _Converted(text, unread, tuple(notes))


def _with_point(column: ibis.Value, dialect: Dialect, *, is_percent: bool) -> ibis.Value:
    """Writes numbers in text with a point and without separators; what has these elsewhere becomes no number."""
    is_plain = (dialect.decimal, dialect.thousands) == (".", "")
    if is_plain and not is_percent:
        return column
    text = _text_of(column)
    if is_percent:
        text = text.re_replace(r"[\s\pZ]*%$", "")
    if is_plain:
        return text
    # Spaces between digits are often such as break no line.
    between = {" ": "[ \u00a0\u202f]", "'": "['\u2019]"}.get(dialect.thousands, re.escape(dialect.thousands))
    grouped = rf"\d{{1,3}}(?:{between}\d{{3}})+|" if dialect.thousands else ""
    pattern = rf"^[+-]?(?:{grouped}\d*)(?:{re.escape(dialect.decimal)}\d*)?(?:[eE][+-]?\d+)?$"
    plain = (text.re_replace(between, "") if dialect.thousands else text).replace(dialect.decimal, ".")
    # Words, such as those for no number and for an infinite one, mean what they mean elsewhere.
    return ibis.ifelse(text.re_search(pattern), plain, ibis.ifelse(text.re_search(r"\d"), "no number", text))


def _as_number(column: ibis.Value) -> _Converted:
    """NaN is how files write a missing number; one that is infinite, if only in 32 bits, is refused."""
    is_text = column.type().is_string()
    value = column.try_cast("float64") if is_text else column.cast("float64")
    unread = (value.abs() > MAX_FLOAT32) & ~value.isnan()
    if is_text:
        unread = ibis.ifelse(value.isnull(), _text_of(column).notnull(), unread)
    return _Converted(ibis.ifelse(value.isnan(), ibis.null("float64"), value), unread)


def _as_whole(column: ibis.Value) -> _Converted:
    if column.type().is_integer():
        value = column.try_cast("int64")
        return _Converted(value, column.notnull() & value.isnull())
    number = _as_number(column)
    whole = _exact(number.value)
    if column.type().is_string():
        # Written without a fraction it keeps every digit. (DuckDB would round "1.5" as well.)
        text = _text_of(column)
        whole = ibis.ifelse(text.re_search(r"^[+-]?[0-9]+$"), text.try_cast("int64"), whole)
    return _Converted(whole, number.unread | (number.value.notnull() & whole.isnull()))


def _exact(number: ibis.Value) -> ibis.Value:
    """Returns whole numbers as such, and null for the others."""
    # `floor` would make an integer at once, and fail on those out of range.
    is_whole = (number % 1 == 0) & (number.abs() < _LARGEST_EXACT)
    return ibis.ifelse(is_whole, number.try_cast("int64"), ibis.null("int64"))


def _as_instant(column: ibis.Value, wanted: Wanted, where: str) -> _Converted:
    dtype = column.type()
    if wanted.ordinal:
        whole = _as_whole(column)
        inside = whole.value.between(0, _LAST_SECOND // _SECONDS[wanted.ordinal])
        microseconds = ibis.ifelse(inside, whole.value, ibis.null("int64")) * (_SECONDS[wanted.ordinal] * 1_000_000)
        return _Converted(make_timestamp(microseconds), whole.unread | (whole.value.notnull() & ~inside))
    if dtype.is_timestamp() or dtype.is_date():
        has_zone = dtype.is_timestamp() and dtype.timezone is not None
        value = timezone("UTC", column) if has_zone else column.cast("timestamp(6)")
        return _Converted(value, ~value.between(*_YEARS))
    if not dtype.is_string() and not wanted.date_format:
        raise InputError(
            f"{where}: column `{wanted.raw}` has type {dtype}, expected a time. Set `date_format` "
            f'(e.g. "%Y%m%d") or, for transactions, `ordinal` ("days" or "seconds" since 1970) beside `{wanted.key}`.'
        )
    text = _text_of(column if dtype.is_string() else column.cast("string"))
    if wanted.date_format:
        value = try_strptime(text, wanted.date_format)
    else:
        # A plain cast would read the clock and leave out the offset from UTC.
        zoned = timezone("UTC", text.try_cast("timestamp('UTC', 6)"))
        has_offset = ibis.ifelse(text.length() > len("YYYY-MM-DD"), text.re_search(_OFFSET), False)
        value = ibis.ifelse(has_offset, zoned, text.try_cast("timestamp(6)"))
    return _Converted(value, text.notnull() & (value.isnull() | ~value.between(*_YEARS)))


def _converted(column: ibis.Value, wanted: Wanted, raw: RawFile) -> _Converted:
    dtype = column.type()
    scalar = dtype.is_string() or dtype.is_numeric() or dtype.is_boolean() or dtype.is_date() or dtype.is_timestamp()
    if wanted.kind in {"number", "whole"} and not (dtype.is_string() or dtype.is_numeric()):
        scalar = False
    if not scalar:
        raise InputError(
            f"{raw.where}: column `{wanted.raw}` has type {dtype}, expected {_MEANING[wanted.kind]} "
            f"(`{wanted.key}`). Convert the column in the file."
        )
    if wanted.kind in {"number", "whole"} and dtype.is_string():
        column = _with_point(column, raw.dialect, is_percent=wanted.is_percent)
    match wanted.kind:
        case "id" | "text" | "words":
            return _as_text(column, wanted, is_typed=raw.is_typed)
        case "number":
            number = _as_number(column)
            return replace(number, value=number.value / 100) if wanted.is_percent else number
        case "whole":
            whole = _as_whole(column)
            return replace(whole, unread=whole.unread | ~whole.value.between(-MAX_INT32 - 1, MAX_INT32))
        case "instant":
            return _as_instant(column, wanted, raw.where)


def _plain(column: ibis.Value, wanted: Wanted) -> ibis.Value | None:
    """Returns what text becomes where nothing is to be mended in it, which takes less time; None where nobody knows."""
    if not column.type().is_string() or wanted.is_percent:
        return None
    match wanted.kind:
        case "id" | "text" | "words":
            return column
        case "number":
            return column.try_cast("float64")
        case "whole":
            return column.try_cast("int64")
        case "instant":
            return None if wanted.date_format or wanted.ordinal else column.try_cast("timestamp(6)")


def _check_names(raw: RawFile, wanted: Sequence[Wanted]) -> None:
    for column in wanted:
        if column.raw not in raw.table.columns:
            near = find_nearest(column.raw, raw.table.columns)
            hint = f' Did you mean "{near}"?' if near else ""
            found = ", ".join(f"`{name}`" for name in raw.table.columns)
            raise InputError(f'{raw.where}: no column for {column.key} = "{column.raw}".{hint} The file has {found}.')


def _advise(wanted: Wanted, dialect: Dialect) -> str:
    """Says how to write what cannot be read, or which setting would read it."""
    missing = "name what means a missing one in `data.missing_values`"
    match wanted.kind:
        case "id":
            return "Write ids as text or whole numbers."
        case "text" | "words":
            return "Write text."
        case "number":
            sign = {".": "a point", ",": "a comma"}[dialect.decimal]
            between = f"{dialect.thousands!r} between thousands" if dialect.thousands else "without separators"
            signs = "set `data.decimal` and `data.thousands` if yours are others"
            return f"Write numbers with {sign}, {between}, up to {MAX_FLOAT32:.1e}; {signs}; {missing}."
        case "whole":
            return f"Write whole numbers up to {MAX_INT32:,}; {missing}."
        case "instant":
            section = wanted.key.rpartition(".")[0]
            if wanted.ordinal:
                return f'It is read as {wanted.ordinal} since 1970, by {section}.ordinal = "{wanted.ordinal}".'
            if wanted.date_format:
                return f'It is read by {section}.date_format = "{wanted.date_format}": change that, or the values.'
            return f'Set {section}.date_format, e.g. "%d.%m.%Y %H:%M", or write YYYY-MM-DD.'


def convert(raw: RawFile, wanted: Sequence[Wanted], *, table: str) -> tuple[ibis.Table, tuple[RowCount, ...]]:
    """Reads columns of a raw file, after one pass that checks each distinct value before anything relies on it.

    Args:
        raw: The file.
        wanted: Columns to read.
        table: The table that they belong to, for the counts.

    Returns:
        A lazy table of the wanted columns by their new names, and what was changed in how many rows: text is trimmed
        and empty text is missing.

    Raises:
        InputError: The file has no rows or lacks a column, a value cannot be read as what it should be, or a required
            one is missing. All are named as in the file.
    """
    _check_names(raw, wanted)
    made = {column.name: _converted(raw.table[column.raw], column, raw) for column in wanted}
    try:
        tally = count_values(raw.table.get_backend(), raw.table, [column.raw for column in wanted])
    except Exception as error:
        raise read_error(error, where=raw.where) from error
    figures = {"rows": tally.count(wanted[0].raw)}
    for number, column in enumerate(wanted):
        values = tally.values(column.raw)
        found, plain = _converted(values, column, raw), _plain(values, column)
        figures[f"unread {number}"] = tally.count(column.raw, found.unread)
        figures[f"values {number}"] = tally.count_values(column.raw)
        if column.required:
            figures[f"missing {number}"] = tally.count(column.raw, found.value.isnull())
        if plain is not None:
            figures[f"mended {number}"] = tally.count(column.raw, ~plain.identical_to(found.value))
        for place, (_rule, touched) in enumerate(found.notes):
            figures[f"note {number} {place}"] = tally.count(column.raw, touched)
    counted = {name: int(value) for name, value in tally.table.agg(**figures).execute().iloc[0].items()}
    if not counted["rows"]:
        raise InputError(f"{raw.where}: the file has columns and no rows.")

    def refuse(column: Wanted, rows: int, bad: ibis.Value, what: str, fix: str) -> None:
        found = raw.table.filter(bad).select(_[column.raw]).limit(5).execute()[column.raw].tolist()
        raise InputError(
            f"{raw.where}: {rows:,} row(s) where `{column.raw}` {what}, e.g. {', '.join(map(repr, found))}. {fix} "
            f'({column.key} = "{column.raw}")'
        )

    counts = []
    for number, column in enumerate(wanted):
        found = made[column.name]
        if rows := counted[f"unread {number}"]:
            refuse(
                column, rows, found.unread, f"cannot be read as {_MEANING[column.kind]}", _advise(column, raw.dialect)
            )
        if column.required and (rows := counted[f"missing {number}"]):
            fix = "Every row needs one."
            if column.key == "data.transactions.customer_id":
                fix += ' If such rows are anonymous: data.transactions.anonymous_ids = [""].'
            refuse(column, rows, found.value.isnull(), "is missing", fix)
        for place, (rule, _touched) in enumerate(found.notes):
            if rows := counted[f"note {number} {place}"]:
                counts.append(RowCount(table=table, rule=f"`{column.raw}`: {rule}", rows=rows))
    is_plain = {column.name: counted.get(f"mended {number}") == 0 for number, column in enumerate(wanted)}
    repeated = {
        column.raw: tally.list_values(column.raw)
        for number, column in enumerate(wanted)
        if column.kind == "id" and is_plain[column.name] and 2 * counted[f"values {number}"] <= counted["rows"]
    }
    rows_read = raw.encode(repeated).table
    result = {}
    for column in wanted:
        value = rows_read[column.raw]
        plain = _plain(value, column) if is_plain[column.name] else None
        result[column.name] = _converted(value, column, raw).value if plain is None else plain
    return rows_read.select(**result), tuple(counts)
