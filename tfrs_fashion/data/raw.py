"""Raw files: Parquet and CSV as lazy tables, with text as it is written in the file.

DuckDB reads them; no row is held in Python. Every column of a CSV file is text, so that ids keep their leading zeros;
`data.conversions` parses numbers and times in it and refuses values that it cannot parse.
"""

import csv
import glob
import gzip
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ibis
import ibis.expr.operations as ops
import pyarrow as pa
import pyarrow.parquet as pq
from ibis import _

from tfrs_fashion.schema import InputError, find_nearest
from tfrs_fashion.settings.data import DataConfig

_KINDS = {".parquet": "parquet", ".csv": "csv", ".csv.gz": "csv", ".tsv": "csv", ".tsv.gz": "csv"}

_ENCODE = 'Save the file as UTF-8, or name its encoding, e.g. data.encoding = "latin-1".'

# Maximum length of a line of CSV, in bytes. A cell is only cut to `MAX_DESCRIPTION` characters after it was read.
_MAX_LINE = 16 * 2**20


@dataclass(frozen=True)
class Dialect:
    """The way in which a retailer writes files.

    Attributes:
        missing_values: Texts that mean a missing value; an empty cell of CSV always does.
        encoding: Encoding of CSV files: `utf-8`, `latin-1` or `utf-16`.
        decimal: Decimal separator of numbers written as text.
        thousands: Separator between groups of three digits; empty if there is none.
    """

    missing_values: Sequence[str] = ()
    encoding: str = "utf-8"
    decimal: str = "."
    thousands: str = ""


PLAIN = Dialect()


def make_dialect(config: DataConfig) -> Dialect:
    """Returns the way in which the files of a source are written."""
    return Dialect(**config.model_dump(include={"missing_values", "encoding", "decimal", "thousands"}))


@dataclass(frozen=True)
class RawFile:
    """A raw file, or several parts of one, as a lazy table.

    Attributes:
        table: Columns by their names in the file; columns without a type, all null, are text.
        where: The path, for messages.
        is_typed: Whether the file has types for numbers and times, as Parquet does and CSV does not.
        dialect: The way in which it is written.
        untyped: Columns of a typed file that are null in every row, so that they have no type of their own.
        read_as: Opens the file with the given DuckDB types for some columns; None if the file has types of its own or
            some texts mean a missing value.
    """

    table: ibis.Table
    where: str
    is_typed: bool
    dialect: Dialect = PLAIN
    untyped: frozenset[str] = frozenset()
    read_as: Callable[[Mapping[str, str]], ibis.Table] | None = None

    def encode(self, values: Mapping[str, ibis.Table]) -> "RawFile":
        """Reads columns of text as DuckDB enums, which behave like text but are stored and compared as numbers.

        A column of ids then takes 4 bytes per row, and is grouped, joined and sorted as fast as numbers.

        Args:
            values: For each column, a table of one column with all of its distinct values.
        """
        if self.read_as is None or not values:
            return self
        types = {}
        for name, table in values.items():
            types[name] = ibis.util.gen_name("values")
            # Enums sort by their numbers, which are given in the order of the texts.
            query = ibis.to_sql(table.order_by(table.columns), dialect="duckdb")
            table.get_backend().raw_sql(f"CREATE TEMP TYPE {types[name]} AS ENUM ({query})")
        return replace(self, table=self.read_as(types))


def kind_of(path: Path) -> str | None:
    """Returns `parquet` or `csv` by a file's extension, or None if it has another one."""
    name = path.name.lower()
    return next((kind for ending, kind in _KINDS.items() if name.endswith(ending)), None)


def _suggest_files(path: Path) -> str:
    """Describes the alternatives to a missing file: the nearest name, or the content of the folder if it exists."""
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either: set `data.path`, e.g. --set data.path=FOLDER."
    names = sorted(other.name for other in path.parent.iterdir() if other.name[0] not in "._")
    if near := find_nearest(path.name, names):
        return f" Did you mean `{near}`?"
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return f" The folder holds {', '.join(f'`{name}`' for name in names[:5])}{more}." if names else ""


def find_files(path: Path, *, key: str = "") -> list[Path]:
    """Returns the files that a path stands for, sorted by name.

    Args:
        path: A file, a folder of part files, or a glob such as `sales/2024-*.csv`.
        key: Setting that holds the path, e.g. `data.transactions.file`, for messages.

    Raises:
        InputError: There is no such file, its extension is unknown, or the parts have different extensions.
    """
    expected = f"Expected one of {', '.join(_KINDS)}."
    named_by = f" (`{key}`)" if key else ""
    if path.is_dir():
        parts = sorted(part for part in path.iterdir() if part.is_file() and part.name[0] not in "._")
        if not parts:
            raise InputError(f"{path}: the folder holds no file. {expected}")
    elif path.exists():
        parts = [path]
    elif any(sign in path.name for sign in "*?["):
        parts = sorted(path.parent.glob(path.name))
        if not parts:
            raise InputError(f"{path}: no file matches this pattern{named_by}. {expected}")
    else:
        raise InputError(f"{path}: no such file{named_by}.{_suggest_files(path)}")
    kinds = {kind_of(part): part for part in reversed(parts)}
    if None in kinds:
        raise InputError(f"{kinds[None]}: not a kind of file that can be read. {expected}")
    if len(kinds) > 1:
        names = ", ".join(part.name for part in kinds.values())
        raise InputError(f"{path}: parts of several kinds ({names}). Use one kind for all parts.")
    return parts


def _check_names(names: Sequence[str], where: Path) -> None:
    """Refuses names that differ at most in case: DuckDB renames such columns, so a mapping would be ambiguous."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            other = seen[name.lower()]
            problem = f"`{name}` appears twice" if other == name else f"`{other}` differs from `{name}` only in case"
            raise InputError(f"{where}: the column {problem}. Give each column a name of its own.")
        seen[name.lower()] = name


def _is_utf8(line: bytes) -> bool:
    """Whether a line is valid UTF-8 beyond ASCII, which text in another encoding practically never is."""
    try:
        return not line.decode("utf-8").isascii()
    except UnicodeDecodeError:
        return False


def _read_header(path: Path, encoding: str) -> tuple[list[str], str]:
    """Returns the names in the first line of a CSV file, and their separator."""
    open_file = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with open_file(path, "rb") as file:
            if encoding == "utf-16":
                first = io.TextIOWrapper(file, encoding=encoding, newline="").readline()
            else:
                line = file.readline()
                if encoding != "utf-8" and _is_utf8(line):
                    raise InputError(f"{path}: line 1 is UTF-8. Remove `data.encoding`, which is {encoding}.")
                first = line.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeError as error:
        raise InputError(f"{path}: line 1 is not {encoding.upper()}. {_ENCODE}") from error
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error
    if not first.strip():
        raise InputError(f"{path}: the file is empty. Expected a line of column names.")
    separators = "\t" if ".tsv" in path.name.lower() else ",;\t|"
    records = {sign: next(csv.reader(io.StringIO(first, newline=""), delimiter=sign)) for sign in separators}
    separator = max(separators, key=lambda sign: len(records[sign]))
    names = records[separator]
    if any(line in name for name in names for line in "\r\n"):
        raise InputError(f"{path}: a column name holds a line break. Name the columns in one line.")
    if "" in names:
        raise InputError(
            f"{path}: column {names.index('') + 1} of {len(names)} has no name. Name it in the first line."
        )
    return names, separator


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _read_csv(
    connection: ibis.BaseBackend, paths: Sequence[Path], where: Path, encoding: str
) -> Callable[[Mapping[str, str]], ibis.Table]:
    """Returns a function that opens the files, with given DuckDB types for some columns and text for the others."""
    headers = [_read_header(path, encoding) for path in paths]
    for path, header in zip(paths, headers, strict=True):
        _check_names(header[0], path)
        if header != headers[0]:
            raise InputError(
                f"{path}: its columns ({', '.join(header[0])}) are not those of {paths[0].name} "
                f"({', '.join(headers[0][0])}). Parts of one table need the same first line."
            )
    names, separator = headers[0]
    files = ", ".join(_quoted(glob.escape(str(path))) for path in paths)

    def read_as(types: Mapping[str, str]) -> ibis.Table:
        columns = ", ".join(f"{_quoted(name)}: {_quoted(types.get(name, 'VARCHAR'))}" for name in names)
        view = ibis.util.gen_name("csv")
        # SQL, because Ibis's own reader does not know the enum types of `RawFile.encode`. The buffer size is explicit
        # because DuckDB's default is sixteen times the longest line, far more memory than it needs.
        query = (
            f"CREATE TEMP VIEW {view} AS SELECT * FROM read_csv([{files}], columns = {{{columns}}}, header = true, "
            f"auto_detect = false, delim = {_quoted(separator)}, quote = '\"', escape = '\"', encoding = {_quoted(encoding)}, "
            f"max_line_size = {_MAX_LINE}, buffer_size = {2 * _MAX_LINE})"
        )
        try:
            connection.raw_sql(query)
        except Exception as error:
            raise explain_read_error(error, where=str(where)) from error
        return refer_to_table(connection, view, ibis.schema(dict.fromkeys(names, "string")))

    return read_as


def _read_parquet(
    connection: ibis.BaseBackend, paths: Sequence[Path], where: Path
) -> tuple[ibis.Table, frozenset[str]]:
    schemas = []
    for path in paths:
        try:
            schemas.append(pq.read_schema(path))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]}).") from error
        _check_names(schemas[-1].names, path)
        if set(schemas[-1].names) != set(schemas[0].names):
            differing = sorted(set(schemas[-1].names) ^ set(schemas[0].names))
            raise InputError(
                f"{path}: its columns are not those of {paths[0].name}; they differ in "
                f"{', '.join(f'`{name}`' for name in differing)}. Parts of one table need the same columns."
            )
    untyped = frozenset(
        name for name in schemas[0].names if all(pa.types.is_null(schema.field(name).type) for schema in schemas)
    )
    try:
        table = connection.read_parquet([glob.escape(str(path)) for path in paths], union_by_name=True)
    except Exception as error:
        raise InputError(f"{where}: cannot be read as Parquet ({str(error).splitlines()[0]}).") from error
    return table.mutate(**{name: ibis.null("string") for name in untyped}), untyped


def read_raw(connection: ibis.BaseBackend, path: Path, *, dialect: Dialect = PLAIN, key: str = "") -> RawFile:
    """Opens a raw file.

    Args:
        connection: A DuckDB backend of Ibis.
        path: See `find_files`.
        dialect: The way in which it is written; UTF-8 may begin with a byte order mark.
        key: See `find_files`.

    Returns:
        The file as a lazy table. CSV has a first line of names, which also tells the separator (comma, semicolon, tab
        or bar).

    Raises:
        InputError: The file is missing, empty, broken, or of another kind, or a column name appears twice.
    """
    paths = find_files(path, key=key)
    if kind_of(paths[0]) == "parquet":
        table, untyped = _read_parquet(connection, paths, path)
        raw = RawFile(table, str(path), is_typed=True, dialect=dialect, untyped=untyped)
    else:
        read_as = _read_csv(connection, paths, path, dialect.encoding)
        raw = RawFile(read_as({}), str(path), is_typed=False, dialect=dialect, read_as=read_as)
    if not dialect.missing_values:
        return raw
    texts = [name for name, dtype in raw.table.schema().items() if dtype.is_string() and name not in raw.untyped]
    values = {
        name: ibis.ifelse(_[name].strip().isin(dialect.missing_values), ibis.null("string"), _[name]) for name in texts
    }
    return replace(raw, table=raw.table.mutate(**values), read_as=None)


def refer_to_table(connection: ibis.BaseBackend, name: str, schema: ibis.Schema) -> ibis.Table:
    """Returns a temporary table or view of DuckDB as an Ibis table.

    `connection.table` would query the types of the columns, and read every value of an enum to find that it is text.
    """
    namespace = ops.Namespace(catalog="temp", database="main")
    return ops.DatabaseTable(name=name, schema=schema, source=connection, namespace=namespace).to_expr()


def materialize(connection: ibis.BaseBackend, table: ibis.Table) -> ibis.Table:
    """Computes a table once and stores it in DuckDB, which spills to disk what does not fit into memory."""
    name = ibis.util.gen_name("materialized")
    # The same as `create_table`, without its query of the types; see `refer_to_table`.
    connection._run_pre_execute_hooks(table)
    connection.raw_sql(f"CREATE TEMP TABLE {name} AS {connection.compile(table)}")
    return refer_to_table(connection, name, table.schema())


def explain_read_error(error: Exception, *, where: str) -> InputError:
    """Turns DuckDB's error about a broken file, which it only raises while reading rows, into a message of one line."""
    text = str(error)
    line = f"line {match[1]}" if (match := re.search(r"Error on Line: (\d+)", text)) else "a line"
    file = match[1] if (match := re.search(r"^  file = (.+)$", text, flags=re.MULTILINE)) else where
    if "Maximum line size of" in text:
        return InputError(
            f"{file}: {line} has more than {_MAX_LINE:,} bytes, or opens a quote that is never closed. Double the "
            "quotes inside a cell, shorten its text, or write the table as Parquet."
        )
    if match := re.search(r"File is not (\S+) encoded", text):
        return InputError(f"{file}: is not {match[1].upper()}, as `data.encoding` says. {_ENCODE}")
    if "unicode" in text.lower():
        return InputError(f"{file}: {line} is not UTF-8. {_ENCODE}")
    if match := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text):
        return InputError(
            f"{file}: {line} has {match[2]} column(s), expected {match[1]}. Quote cells that contain the separator."
        )
    if "unterminated quote" in text:
        return InputError(f"{file}: {line} opens a quote that is never closed. Double the quotes inside a cell.")
    return InputError(f"{file}: cannot be read ({text.splitlines()[0]}).")
