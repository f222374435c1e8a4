"""Conversion of raw columns to text, numbers and times; a value that cannot be parsed is an error, never a silent null."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import ibis
import ibis.expr.datatypes as dt
from ibis import _

from tfrs_fashion.data.raw import Dialect, RawFile, explain_read_error
from tfrs_fashion.data.tally import Tally, count_values
from tfrs_fashion.schema import MAX_FLOAT32, MAX_INT32, InputError, RowCount, find_nearest

# Beyond this, floating point does not represent every whole number, so an id could turn into another one.
_LARGEST_EXACT = 2**53
# White space of any script at either end.
_EDGES = r"^[\s\v\pZ]+|[\s\v\pZ]+$"
# A time of day with its offset from UTC.
_OFFSET = r":\d.*(Z|[+-]\d\d(:?\d\d)?)$"
# The last second of the year 9999.
_LAST_SECOND = 253_402_300_799
_YEARS = (ibis.timestamp("0001-01-01 00:00:00"), ibis.timestamp("9999-12-31 23:59:59"))
_SECONDS = {"days": 86_400, "seconds": 1}

Kind = Literal["id", "category", "text", "number", "integer", "timestamp"]
_MEANING: dict[Kind, str] = {
    "id": "an id",
    "category": "text",
    "text": "text",
    "number": "a finite number",
    "integer": "a whole number",
    "timestamp": "a time",
}


@ibis.udf.scalar.builtin
def try_strptime(text: dt.string, pattern: dt.string) -> dt.Timestamp(scale=6):  # type: ignore[valid-type]
    """DuckDB's function: parses text by a pattern, null if it does not match."""


@ibis.udf.scalar.builtin
def make_timestamp(microseconds: dt.int64) -> dt.Timestamp(scale=6):  # type: ignore[valid-type]
    """DuckDB's function: microseconds since 1970 as a timestamp, independent of the machine's time zone."""


@ibis.udf.scalar.builtin
def timezone(zone: dt.string, instant: dt.Timestamp(timezone="UTC", scale=6)) -> dt.Timestamp(scale=6):  # type: ignore[valid-type]
    """DuckDB's function: the local time of an instant in a zone."""


@dataclass(frozen=True)
class MappedColumn:
    """A column of a raw file that the pipeline file maps to a column of a table.

    Attributes:
        name: Name in the result.
        raw: Name in the file.
        key: Setting that maps it, e.g. `data.transactions.price`.
        kind: What its values are. A `category` is a value of a feature; `text` is prose, which is left as written.
        required: Whether a missing value is an error.
        digits: For ids: number of digits to which shorter ids of digits alone are padded with zeros; 0 for no padding.
        date_format: For timestamps written as text: their strptime pattern; ISO 8601 if empty.
        ordinal: For timestamps written as whole numbers: `days` or `seconds` since 1970.
        is_percent: For numbers: whether they are percentages, to be divided by 100.
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
class _Conversion:
    """A converted value, whether a raw value is unreadable, and conditions under which it was changed, by description."""

    value: ibis.Value
    is_unreadable: ibis.Value
    changes: tuple[tuple[str, ibis.Value], ...] = ()


def _is_padded(column: ibis.Value) -> ibis.Value:
    # Most texts begin and end with printable ASCII, which is much cheaper to test than the regular expression.
    is_plain = column.left(1).between("!", "~") & column.right(1).between("!", "~")
    return ibis.ifelse(is_plain, False, column.re_search(_EDGES))


def _trim(column: ibis.Value) -> ibis.Value:
    """Removes white space at both ends, only where there is some: replacing is slower than searching."""
    return ibis.ifelse(_is_padded(column), column.re_replace(_EDGES, ""), column).nullif("")


def _to_text(column: ibis.Value, mapped: MappedColumn, *, is_typed: bool) -> _Conversion:
    """Trims text, and writes whole numbers without a fraction, so that Parquet and CSV give the same ids."""
    dtype = column.type()
    changes: list[tuple[str, ibis.Value]] = []
    is_unreadable: ibis.Value = ibis.literal(False)
    if dtype.is_string():
        text = _trim(column)
        changes.append(("trimmed", _is_padded(column)))
        if mapped.kind != "text" and not is_typed:
            is_float = ibis.ifelse(text.contains(".0"), text.re_search(r"^-?[0-9]+\.0+$"), False)
            changes.append(("a whole number written with .0, read without", is_float))
            text = ibis.ifelse(is_float, text.re_replace(r"\.0+$", ""), text)
    elif dtype.is_floating() or (dtype.is_decimal() and dtype.scale != 0):
        number = _to_number(column).value
        integer = _exact_integer(number)
        text = ibis.coalesce(integer.cast("string"), number.cast("string"))
        if mapped.kind == "id":
            is_unreadable = number.notnull() & integer.isnull()
    else:
        text = column.cast("string")
    if mapped.digits:
        is_short = ibis.ifelse(text.length() < mapped.digits, text.re_search(r"^[0-9]+$"), False)
        changes.append((f"leading zeros restored, to {mapped.digits} digits", is_short))
        text = ibis.ifelse(is_short, text.lpad(mapped.digits, "0"), text)
    return _Conversion(text, is_unreadable, tuple(changes))


def _normalize_number(column: ibis.Value, dialect: Dialect, *, is_percent: bool) -> ibis.Value:
    """Rewrites numbers in text with a decimal point and no separators; misplaced separators give an unreadable text."""
    is_plain = (dialect.decimal, dialect.thousands) == (".", "")
    if is_plain and not is_percent:
        return column
    text = _trim(column)
    if is_percent:
        text = text.re_replace(r"[\s\pZ]*%$", "")
    if is_plain:
        return text
    # The space between groups of digits is often a no-break space.
    separator = {" ": "[ \u00a0\u202f]", "'": "['\u2019]"}.get(dialect.thousands, re.escape(dialect.thousands))
    grouped = rf"\d{{1,3}}(?:{separator}\d{{3}})+|" if dialect.thousands else ""
    pattern = rf"^[+-]?(?:{grouped}\d*)(?:{re.escape(dialect.decimal)}\d*)?(?:[eE][+-]?\d+)?$"
    plain = (text.re_replace(separator, "") if dialect.thousands else text).replace(dialect.decimal, ".")
    # Words without a digit, such as `nan` and `inf`, mean the same in every dialect.
    return ibis.ifelse(text.re_search(pattern), plain, ibis.ifelse(text.re_search(r"\d"), "no number", text))


def _to_number(column: ibis.Value) -> _Conversion:
    """Reads NaN as missing, which is how files write it; infinite numbers, even if only in 32 bits, are unreadable."""
    is_text = column.type().is_string()
    value = column.try_cast("float64") if is_text else column.cast("float64")
    is_unreadable = (value.abs() > MAX_FLOAT32) & ~value.isnan()
    if is_text:
        is_unreadable = ibis.ifelse(value.isnull(), _trim(column).notnull(), is_unreadable)
    return _Conversion(ibis.ifelse(value.isnan(), ibis.null("float64"), value), is_unreadable)


def _to_integer(column: ibis.Value) -> _Conversion:
    if column.type().is_integer():
        value = column.try_cast("int64")
        return _Conversion(value, column.notnull() & value.isnull())
    number = _to_number(column)
    integer = _exact_integer(number.value)
    if column.type().is_string():
        # Text without a fraction is cast directly, which keeps every digit. (A cast of "1.5" would round.)
        text = _trim(column)
        integer = ibis.ifelse(text.re_search(r"^[+-]?[0-9]+$"), text.try_cast("int64"), integer)
    return _Conversion(integer, number.is_unreadable | (number.value.notnull() & integer.isnull()))


def _exact_integer(number: ibis.Value) -> ibis.Value:
    """Casts whole numbers to int64; null for all others."""
    # Not `floor`, which casts to an integer at once and fails on numbers out of range.
    is_whole = (number % 1 == 0) & (number.abs() < _LARGEST_EXACT)
    return ibis.ifelse(is_whole, number.try_cast("int64"), ibis.null("int64"))


def _to_timestamp(column: ibis.Value, mapped: MappedColumn, where: str) -> _Conversion:
    dtype = column.type()
    if mapped.ordinal:
        integer = _to_integer(column)
        is_inside = integer.value.between(0, _LAST_SECOND // _SECONDS[mapped.ordinal])
        microseconds = ibis.ifelse(is_inside, integer.value, ibis.null("int64")) * (_SECONDS[mapped.ordinal] * 10**6)
        is_unreadable = integer.is_unreadable | (integer.value.notnull() & ~is_inside)
        return _Conversion(make_timestamp(microseconds), is_unreadable)
    if dtype.is_timestamp() or dtype.is_date():
        has_zone = dtype.is_timestamp() and dtype.timezone is not None
        value = timezone("UTC", column) if has_zone else column.cast("timestamp(6)")
        return _Conversion(value, ~value.between(*_YEARS))
    if not dtype.is_string() and not mapped.date_format:
        raise InputError(
            f"{where}: column `{mapped.raw}` has type {dtype}, expected a time. Set `date_format` "
            f'(e.g. "%Y%m%d") or, for transactions, `ordinal` ("days" or "seconds" since 1970) beside `{mapped.key}`.'
        )
    text = _trim(column if dtype.is_string() else column.cast("string"))
    if mapped.date_format:
        value = try_strptime(text, mapped.date_format)
    else:
        # A cast to a timestamp without a zone would ignore the offset from UTC.
        zoned = timezone("UTC", text.try_cast("timestamp('UTC', 6)"))
        has_offset = ibis.ifelse(text.length() > len("YYYY-MM-DD"), text.re_search(_OFFSET), False)
        value = ibis.ifelse(has_offset, zoned, text.try_cast("timestamp(6)"))
    return _Conversion(value, text.notnull() & (value.isnull() | ~value.between(*_YEARS)))


def _convert_column(column: ibis.Value, mapped: MappedColumn, raw: RawFile) -> _Conversion:
    """Converts values of a column, which may be the file's own or a tally of them."""
    dtype = column.type()
    is_number = mapped.kind in {"number", "integer"}
    is_supported = dtype.is_string() or dtype.is_numeric()
    if not is_number:
        is_supported |= dtype.is_boolean() or dtype.is_date() or dtype.is_timestamp()
    if not is_supported:
        raise InputError(
            f"{raw.where}: column `{mapped.raw}` has type {dtype}, expected {_MEANING[mapped.kind]} "
            f"(`{mapped.key}`). Convert the column in the file."
        )
    if is_number and dtype.is_string():
        column = _normalize_number(column, raw.dialect, is_percent=mapped.is_percent)
    match mapped.kind:
        case "id" | "category" | "text":
            return _to_text(column, mapped, is_typed=raw.is_typed)
        case "number":
            number = _to_number(column)
            return replace(number, value=number.value / 100) if mapped.is_percent else number
        case "integer":
            integer = _to_integer(column)
            fits = integer.value.between(-MAX_INT32 - 1, MAX_INT32)
            return replace(integer, is_unreadable=integer.is_unreadable | ~fits)
        case "timestamp":
            return _to_timestamp(column, mapped, raw.where)


def _cast_directly(column: ibis.Value, mapped: MappedColumn) -> ibis.Value | None:
    """Returns a cheap cast of text that equals the conversion of clean values; None if there is no such cast."""
    if not column.type().is_string() or mapped.is_percent:
        return None
    match mapped.kind:
        case "id" | "category" | "text":
            return column
        case "number":
            return column.try_cast("float64")
        case "integer":
            return column.try_cast("int64")
        case "timestamp":
            return None if mapped.date_format or mapped.ordinal else column.try_cast("timestamp(6)")


def _check_names(raw: RawFile, columns: Sequence[MappedColumn]) -> None:
    for mapped in columns:
        if mapped.raw not in raw.table.columns:
            near = find_nearest(mapped.raw, raw.table.columns)
            hint = f' Did you mean "{near}"?' if near else ""
            names = ", ".join(f"`{name}`" for name in raw.table.columns)
            raise InputError(f'{raw.where}: no column for {mapped.key} = "{mapped.raw}".{hint} The file has {names}.')


def _advise(mapped: MappedColumn, dialect: Dialect) -> str:
    """Says how to write values so that they can be read, or which setting would read them as they are."""
    missing = "list texts that mean a missing value in `data.missing_values`"
    match mapped.kind:
        case "id":
            return "Write ids as text or whole numbers."
        case "category" | "text":
            return "Write text."
        case "number":
            sign = {".": "a point", ",": "a comma"}[dialect.decimal]
            separators = f"{dialect.thousands!r} between thousands" if dialect.thousands else "without separators"
            signs = "set `data.decimal` and `data.thousands` if yours are others"
            return f"Write numbers with {sign}, {separators}, up to {MAX_FLOAT32:.1e}; {signs}; {missing}."
        case "integer":
            return f"Write whole numbers up to {MAX_INT32:,}; {missing}."
        case "timestamp":
            section = mapped.key.rpartition(".")[0]
            if mapped.ordinal:
                return f'It is read as {mapped.ordinal} since 1970, by {section}.ordinal = "{mapped.ordinal}".'
            if mapped.date_format:
                return f'It is read by {section}.date_format = "{mapped.date_format}": change that, or the values.'
            return f'Set {section}.date_format, e.g. "%d.%m.%Y %H:%M", or write YYYY-MM-DD.'


def _refuse(raw: RawFile, mapped: MappedColumn, rows: int, is_bad: ibis.Value, problem: str, fix: str) -> None:
    samples = raw.table.filter(is_bad).select(_[mapped.raw]).limit(5).execute()[mapped.raw].tolist()
    raise InputError(
        f"{raw.where}: {rows:,} row(s) where `{mapped.raw}` {problem}, e.g. {', '.join(map(repr, samples))}. {fix} "
        f'({mapped.key} = "{mapped.raw}")'
    )


def _count_conversions(tally: Tally, raw: RawFile, columns: Sequence[MappedColumn]) -> dict[str, int]:
    """Converts each distinct value once, and counts the rows with each outcome, in one pass over all columns."""
    aggregates = {"rows": tally.count(columns[0].raw)}
    for number, mapped in enumerate(columns):
        values = tally.values(mapped.raw)
        conversion, cast = _convert_column(values, mapped, raw), _cast_directly(values, mapped)
        aggregates[f"unreadable {number}"] = tally.count(mapped.raw, conversion.is_unreadable)
        aggregates[f"values {number}"] = tally.count_values(mapped.raw)
        if mapped.required:
            aggregates[f"missing {number}"] = tally.count(mapped.raw, conversion.value.isnull())
        if cast is not None:
            aggregates[f"changed {number}"] = tally.count(mapped.raw, ~cast.identical_to(conversion.value))
        for place, (_description, is_changed) in enumerate(conversion.changes):
            aggregates[f"change {number} {place}"] = tally.count(mapped.raw, is_changed)
    return {name: int(value) for name, value in tally.table.agg(**aggregates).execute().iloc[0].items()}


def convert(raw: RawFile, columns: Sequence[MappedColumn], *, table: str) -> tuple[ibis.Table, tuple[RowCount, ...]]:
    """Converts columns of a raw file, after checking each of their distinct values once.

    Args:
        raw: The file.
        columns: Columns to convert.
        table: Name of the table that they belong to, for the counts.

    Returns:
        A lazy table of the columns by their new names, and the number of rows in which values were changed. Text is
        trimmed, and empty text is missing.

    Raises:
        InputError: The file has no rows or lacks a column, a value is unreadable, or a required value is missing.
            Messages use the file's own names.
    """
    _check_names(raw, columns)
    conversions = [_convert_column(raw.table[mapped.raw], mapped, raw) for mapped in columns]
    try:
        tally = count_values(raw.table.get_backend(), raw.table, [mapped.raw for mapped in columns])
    except Exception as error:
        raise explain_read_error(error, where=raw.where) from error
    num_rows = _count_conversions(tally, raw, columns)
    if not num_rows["rows"]:
        raise InputError(f"{raw.where}: the file has columns and no rows.")

    counts = []
    for number, (mapped, conversion) in enumerate(zip(columns, conversions, strict=True)):
        if rows := num_rows[f"unreadable {number}"]:
            problem = f"cannot be read as {_MEANING[mapped.kind]}"
            _refuse(raw, mapped, rows, conversion.is_unreadable, problem, _advise(mapped, raw.dialect))
        if rows := num_rows.get(f"missing {number}", 0):
            fix = "Every row needs one."
            if mapped.key == "data.transactions.customer_id":
                fix += ' If such rows are anonymous: data.transactions.anonymous_ids = [""].'
            _refuse(raw, mapped, rows, conversion.value.isnull(), "is missing", fix)
        for place, (description, _is_changed) in enumerate(conversion.changes):
            if rows := num_rows[f"change {number} {place}"]:
                counts.append(RowCount(table=table, rule=f"`{mapped.raw}`: {description}", rows=rows))
    is_clean = [num_rows.get(f"changed {number}") == 0 for number, _mapped in enumerate(columns)]
    repeated = {
        mapped.raw: tally.list_values(mapped.raw)
        for number, mapped in enumerate(columns)
        if mapped.kind == "id" and is_clean[number] and 2 * num_rows[f"values {number}"] <= num_rows["rows"]
    }
    encoded = raw.encode(repeated).table
    values = {}
    for number, mapped in enumerate(columns):
        value = encoded[mapped.raw]
        cast = _cast_directly(value, mapped) if is_clean[number] else None
        values[mapped.name] = _convert_column(value, mapped, raw).value if cast is None else cast
    return encoded.select(**values), tuple(counts)
