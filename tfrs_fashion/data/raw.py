"""Raw files: the one way to read Parquet and CSV, lazily, with text left as it is written.

DuckDB reads them; no row is held in Python. Of CSV every column is text, so that ids keep their leading zeros;
`data.conversions` reads numbers and times from it and refuses what does not parse.
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

_KINDS = {".parquet": "parquet", ".csv": "csv", ".csv.gz": "csv", ".tsv": "csv", ".tsv.gz": "csv"}

_ENCODE = 'Save the file as UTF-8, or say how it is written, e.g. data.encoding = "latin-1".'

# The longest line of a CSV file, in bytes. A cell is cut to `MAX_DESCRIPTION` characters only once it is read.
_MAX_LINE = 16 * 2**20


@dataclass(frozen=True)
class Dialect:
    """How a retailer writes files.

    Attributes:
        missing_values: Texts that mean a missing value; in CSV an empty cell always does.
        encoding: Of CSV: `utf-8`, `latin-1` or `utf-16`.
        decimal: Sign before the fraction of a number written as text.
        thousands: Sign between its groups of three digits; empty for none.
    """

    missing_values: Sequence[str] = ()
    encoding: str = "utf-8"
    decimal: str = "."
    thousands: str = ""


PLAIN = Dialect()


@dataclass(frozen=True)
class RawFile:
    """A raw file, or several parts of one, as a lazy table.

    Attributes:
        table: Columns as the file names them; columns without a type, all null, are text.
        where: The file, to be named in messages.
        dialect: How it writes numbers.
        is_typed: Whether the file itself tells numbers and times from text, as Parquet does and CSV does not.
        untyped: Columns of a typed file that hold nothing, so that they have no type of their own.
        read_as: Reads the file again with types of DuckDB's for some columns; None where the file tells types itself or
            some of its texts mean a missing value.
    """

    table: ibis.Table
    where: str
    is_typed: bool
    dialect: Dialect = PLAIN
    untyped: frozenset[str] = frozenset()
    read_as: Callable[[Mapping[str, str]], ibis.Table] | None = None

    def encode(self, values: Mapping[str, ibis.Table]) -> "RawFile":
        """Reads columns of text as numbers that stand for their values, which look and behave like the text.

        A column of ids takes 4 bytes a row then, and is grouped, joined and sorted as numbers are.

        Args:
            values: For each column a table of one column: all values that it has.
        """
        if self.read_as is None or not values:
            return self
        types = {}
        for name, table in values.items():
            types[name] = ibis.util.gen_name("values")
            # The numbers follow the order of the texts, so that sorting by either is the same.
            query = ibis.to_sql(table.order_by(table.columns), dialect="duckdb")
            table.get_backend().raw_sql(f"CREATE TEMP TYPE {types[name]} AS ENUM ({query})")
        return replace(self, table=self.read_as(types))


def kind_of(path: Path) -> str | None:
    """Returns `parquet` or `csv` by the ending of a file's name, and None for any other."""
    name = path.name.lower()
    return next((kind for ending, kind in _KINDS.items() if name.endswith(ending)), None)


def _named_by(key: str) -> str:
    return f", which `{key}` names" if key else ""


def _others(path: Path) -> str:
    """Says what there is instead of a file: the nearest one, or what the folder holds, if there is a folder."""
    if not path.parent.is_dir():
        return f" Neither is there a folder {path.parent}: set `data.path`, e.g. --set data.path=FOLDER."
    found = sorted(other.name for other in path.parent.iterdir() if other.name[0] not in "._")
    if near := find_nearest(path.name, found):
        return f" Did you mean `{near}`?"
    more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
    return f" The folder holds {', '.join(f'`{name}`' for name in found[:5])}{more}." if found else ""


def find_files(path: Path, *, key: str = "") -> list[Path]:
    """Returns the files behind a path, in order of their names.

    Args:
        path: A file, a folder of part files, or a glob such as `sales/2024-*.csv`.
        key: Where the pipeline file names it, e.g. `data.transactions.file`.

    Raises:
        InputError: There is no such file, or its kind is unknown, or the parts are of several kinds.
    """
    expected = f"Expected one of {', '.join(_KINDS)}."
    if path.is_dir():
        parts = sorted(part for part in path.iterdir() if part.is_file() and part.name[0] not in "._")
        if not parts:
            raise InputError(f"{path}: the folder holds no file. {expected}")
    elif path.exists():
        parts = [path]
    elif any(sign in path.name for sign in "*?["):
        parts = sorted(path.parent.glob(path.name))
        if not parts:
            raise InputError(f"{path}: no file matches{_named_by(key)}. {expected}")
    else:
        raise InputError(f"{path}: no such file{_named_by(key)}.{_others(path)}")
    kinds = {kind_of(part): part for part in reversed(parts)}
    if None in kinds:
        raise InputError(f"{kinds[None]}: of no kind that can be read. {expected}")
    if len(kinds) > 1:
        named = ", ".join(part.name for part in kinds.values())
        raise InputError(f"{path}: parts of several kinds ({named}). Keep parts of one kind together.")
    return parts


def _check_names(names: Sequence[str], where: Path) -> None:
    """DuckDB renames columns whose names differ in case alone, so nobody could say which one is meant."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            twice = f"`{name}`" if seen[name.lower()] == name else f"`{seen[name.lower()]}` and `{name}`"
            raise InputError(f"{where}: the column {twice} appears twice. Give each column a name of its own.")
        seen[name.lower()] = name


def _is_utf8(line: bytes) -> bool:
    """Whether a line holds other characters than those of ASCII, in UTF-8: in no other encoding it makes words."""
    try:
        return not line.decode("utf-8").isascii()
    except UnicodeDecodeError:
        return False


def _read_header(path: Path, encoding: str) -> tuple[list[str], str]:
    """Returns the names in the first line of a CSV file, and what separates them."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            if encoding == "utf-16":
                first = io.TextIOWrapper(file, encoding=encoding, newline="").readline()
            else:
                line = file.readline()
                if encoding != "utf-8" and _is_utf8(line):
                    raise InputError(f"{path}: line 1 is UTF-8. Leave out `data.encoding`, which is {encoding}.")
                first = line.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeError as error:
        raise InputError(f"{path}: line 1 is not {encoding.upper()}. {_ENCODE}") from error
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error
    if not first.strip():
        raise InputError(f"{path}: the file is empty. Expected a line of column names.")
    signs = "\t" if ".tsv" in path.name.lower() else ",;\t|"
    records = {sign: next(csv.reader(io.StringIO(first, newline=""), delimiter=sign)) for sign in signs}
    sign = max(signs, key=lambda sign: len(records[sign]))
    names = records[sign]
    if any(line in name for name in names for line in "\r\n"):
        raise InputError(f"{path}: a column name holds a line break. Name the columns in one line.")
    if "" in names:
        raise InputError(
            f"{path}: column {names.index('') + 1} of {len(names)} has no name. Name it in the first line."
        )
    return names, sign


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _read_csv(
    connection: ibis.BaseBackend, paths: Sequence[Path], where: Path, encoding: str
) -> Callable[[Mapping[str, str]], ibis.Table]:
    """Returns a function that opens the files, with types of DuckDB's for some columns and text for the others."""
    headers = [_read_header(path, encoding) for path in paths]
    for path, header in zip(paths, headers, strict=True):
        _check_names(header[0], path)
        if header != headers[0]:
            raise InputError(
                f"{path}: its columns ({', '.join(header[0])}) are not those of {paths[0].name} "
                f"({', '.join(headers[0][0])}). Parts of one table need the same first line."
            )
    names, sign = headers[0]
    files = ", ".join(_quoted(glob.escape(str(path))) for path in paths)

    def read_as(types: Mapping[str, str]) -> ibis.Table:
        columns = ", ".join(f"{_quoted(name)}: {_quoted(types.get(name, 'VARCHAR'))}" for name in names)
        view = ibis.util.gen_name("csv")
        # Ibis's own reader knows no types that were made here. By itself DuckDB would take buffers of sixteen times the
        # longest line, which would be memory for nothing.
        query = (
            f"CREATE TEMP VIEW {view} AS SELECT * FROM read_csv([{files}], columns = {{{columns}}}, header = true, "
            f"auto_detect = false, delim = {_quoted(sign)}, quote = '\"', escape = '\"', encoding = {_quoted(encoding)}, "
            f"max_line_size = {_MAX_LINE}, buffer_size = {2 * _MAX_LINE})"
        )
        try:
            connection.raw_sql(query)
        except Exception as error:
            raise read_error(error, where=str(where)) from error
        return name_table(connection, view, ibis.schema(dict.fromkeys(names, "string")))

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
        dialect: How it is written; UTF-8 may begin with a byte order mark.
        key: See `find_files`.

    Returns:
        The file as a lazy table. CSV has a first line of names, and its separator (comma, semicolon, tab or bar) is found
        in that line.

    Raises:
        InputError: The file is missing, empty, broken, or of another kind, or a column name appears twice.
    """
    paths = find_files(path, key=key)
    is_typed = kind_of(paths[0]) == "parquet"
    untyped: frozenset[str] = frozenset()
    read_as = None
    if is_typed:
        table, untyped = _read_parquet(connection, paths, path)
    else:
        read_as = _read_csv(connection, paths, path, dialect.encoding)
        table = read_as({})
    if missing := dialect.missing_values:
        read_as = None
        texts = [name for name, dtype in table.schema().items() if dtype.is_string() and name not in untyped]
        table = table.mutate(
            **{name: ibis.ifelse(_[name].strip().isin(missing), ibis.null("string"), _[name]) for name in texts}
        )
    return RawFile(table=table, where=str(path), is_typed=is_typed, dialect=dialect, untyped=untyped, read_as=read_as)


def name_table(connection: ibis.BaseBackend, name: str, schema: ibis.Schema) -> ibis.Table:
    """Returns a temporary table of DuckDB's as one of Ibis.

    Ibis would ask for the types of the columns, and read all values of an encoded one to find that they are text.
    """
    namespace = ops.Namespace(catalog="temp", database="main")
    return ops.DatabaseTable(name=name, schema=schema, source=connection, namespace=namespace).to_expr()


def keep(connection: ibis.BaseBackend, table: ibis.Table) -> ibis.Table:
    """Computes a table once, inside DuckDB, which moves to disk what memory does not hold."""
    name = ibis.util.gen_name("kept")
    # What `create_table` does, but for the question about types.
    connection._run_pre_execute_hooks(table)
    connection.raw_sql(f"CREATE TEMP TABLE {name} AS {connection.compile(table)}")
    return name_table(connection, name, table.schema())


def read_error(error: Exception, *, where: str) -> InputError:
    """Turns what DuckDB says of a broken file, which it meets only while reading rows, into one line."""
    words = str(error)
    line = f"line {found[1]}" if (found := re.search(r"Error on Line: (\d+)", words)) else "a line"
    file = found[1] if (found := re.search(r"^  file = (.+)$", words, flags=re.MULTILINE)) else where
    if "Maximum line size of" in words:
        return InputError(
            f"{file}: {line} has more than {_MAX_LINE:,} bytes, or opens a quote that never ends. Double the quotes "
            "inside a cell, shorten its text, or write the table as Parquet."
        )
    if found := re.search(r"File is not (\S+) encoded", words):
        return InputError(f"{file}: is not {found[1].upper()}, as `data.encoding` says. {_ENCODE}")
    if "unicode" in words.lower():
        return InputError(f"{file}: {line} is not UTF-8. {_ENCODE}")
    if found := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", words):
        return InputError(
            f"{file}: {line} has {found[2]} column(s), expected {found[1]}. Quote cells that hold the separator."
        )
    if "unterminated quote" in words:
        return InputError(f"{file}: {line} opens a quote that never ends. Double the quotes inside a cell.")
    return InputError(f"{file}: cannot be read ({words.splitlines()[0]}).")
