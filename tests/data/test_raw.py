import gzip
from pathlib import Path

import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrs_fashion.data.conversions import MappedColumn, convert
from tfrs_fashion.data.raw import PLAIN, Dialect, RawFile, find_files, materialize, read_raw
from tfrs_fashion.schema import InputError


def read(path: Path, *missing: str) -> RawFile:
    return read_raw(ibis.duckdb.connect(), path, dialect=Dialect(missing_values=missing))


def rows_of(path: Path) -> list[list[object]]:
    return [list(row) for row in read(path).table.to_pyarrow().to_pandas().itertuples(index=False)]


def read_rows(path: Path, dialect: Dialect) -> None:
    raw = read_raw(ibis.duckdb.connect(), path, dialect=dialect)
    convert(raw, [MappedColumn(name, name, "key", "category") for name in raw.table.columns], table="t")


def refusal(path: Path, dialect: Dialect = PLAIN) -> str:
    """What is said of a file, whether as it is opened or as its rows are first read."""
    with pytest.raises(InputError) as caught:
        read_rows(path, dialect)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "sign"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "|"), ("a.tsv", "\t")])
def test_text_stays_as_it_is_written(tmp_path: Path, name: str, sign: str) -> None:
    (tmp_path / name).write_text(f"id{sign}größe\n007{sign}1.50\n", encoding="utf-8")
    raw = read(tmp_path / name)
    assert not raw.is_typed
    assert raw.table.columns == ("id", "größe")
    assert rows_of(tmp_path / name) == [["007", "1.50"]]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_line_breaks_and_a_byte_order_mark(tmp_path: Path, end: str) -> None:
    lines = ['id,"a, ""b"""', '1,"x, ""y""\nz"', "2,"]
    (tmp_path / "a.csv").write_bytes(("\ufeff" + end.join(lines) + end).encode())
    assert read(tmp_path / "a.csv").table.columns == ("id", 'a, "b"')
    assert rows_of(tmp_path / "a.csv") == [["1", 'x, "y"\nz'], ["2", None]]


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id\n01\n"))
    assert rows_of(tmp_path / "a.csv.gz") == [["01"]]
    (tmp_path / "b.csv.gz").write_bytes(b"id\n01\n")
    assert refusal(tmp_path / "b.csv.gz").startswith(f"{tmp_path / 'b.csv.gz'}: cannot be read (")


@pytest.mark.parametrize("asked", ["parts", "parts/2024-*.csv"])
def test_parts_are_one_table(tmp_path: Path, asked: str) -> None:
    (tmp_path / "parts").mkdir()
    for month in ("2024-02", "2024-01"):
        (tmp_path / "parts" / f"{month}.csv").write_text(f"id\n{month}\n")
    (tmp_path / "parts" / "_SUCCESS").touch()
    (tmp_path / "parts" / ".hidden").touch()
    assert [path.name for path in find_files(tmp_path / asked)] == ["2024-01.csv", "2024-02.csv"]
    assert sorted(rows_of(tmp_path / asked)) == [["2024-01"], ["2024-02"]]


def test_a_file_may_have_the_name_of_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a[1]*.csv").write_text("id\n1\n")
    assert rows_of(tmp_path / "a[1]*.csv") == [["1"]]


def test_parts_differ_in_type_but_not_in_columns(tmp_path: Path) -> None:
    # A month in which nobody told the age is a column without a type.
    pq.write_table(pa.table({"id": ["a"], "age": pa.array([None], pa.null())}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"age": [30.5], "id": ["b"]}), tmp_path / "2.parquet")
    raw = read(tmp_path)
    assert raw.untyped == frozenset()
    assert raw.table.order_by("id").to_pyarrow().to_pylist() == [{"id": "a", "age": None}, {"id": "b", "age": 30.5}]
    pq.write_table(pa.table({"id": ["c"]}), tmp_path / "3.parquet")
    assert refusal(tmp_path) == (
        f"{tmp_path / '3.parquet'}: its columns are not those of 1.parquet; they differ in `age`. "
        "Parts of one table need the same columns."
    )


def test_parts_in_csv_need_the_same_first_line(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("b,a\n1,2\n")
    assert refusal(tmp_path).startswith(f"{tmp_path / '2.csv'}: its columns (b, a) are not those of 1.csv (a, b).")


def test_categories_are_text_and_columns_without_a_type_are_missing_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"c": pd.Categorical(["x", "y"]), "n": [None, None], "i": [1, 2]})
    frame.to_parquet(tmp_path / "a.parquet")
    raw = read(tmp_path / "a.parquet")
    assert raw.is_typed
    assert raw.untyped == {"n"}
    assert [str(dtype) for dtype in raw.table.schema().values()] == ["string", "string", "int64"]
    assert raw.table.n.to_pyarrow().to_pylist() == [None, None]


def test_declared_texts_mean_a_missing_value(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,x\n1, NA \n2,NULL\n3,NAN\n4,null\n")
    assert read(tmp_path / "a.csv", "NA", "NULL").table.x.to_pyarrow().to_pylist() == [None, None, "NAN", "null"]
    pd.DataFrame({"id": [1, 2], "x": ["NA", "b"]}).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", "NA").table.x.to_pyarrow().to_pylist() == [None, "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "the file is empty. Expected a line of column names."),
        ("a.csv", b"\xef\xbb\xbf\n", "the file is empty."),
        ("a.csv", b"a,b\n", "the file has columns and no rows."),
        ("a.csv", b"a,b,a\n1,2,3\n", "the column `a` appears twice. Give each column a name of its own."),
        ("a.csv", b"a,b,A\n1,2,3\n", "the column `a` differs from `A` only in case."),
        ("a.csv", b'"a\nb",c\n1,2\n', "a column name holds a line break. Name the columns in one line."),
        ("a.csv", b"a,,c\n1,2,3\n", "column 2 of 3 has no name."),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "line 3 has 3 column(s), expected 2. Quote cells that contain the separator."),
        ("a.csv", b"a,b\n1,2\n3\n", "line 3 has 1 column(s), expected 2."),
        (
            "a.csv",
            b"a,b\n1,2\n3,\xe9t\xe9\n",
            'line 3 is not UTF-8. Save the file as UTF-8, or name its encoding, e.g. data.encoding = "latin-1".',
        ),
        (
            "a.csv",
            b"gr\xf6\xdfe,b\n1,2\n",
            'line 1 is not UTF-8. Save the file as UTF-8, or name its encoding, e.g. data.encoding = "latin-1".',
        ),
        (
            "a.csv",
            "a,b\n1,2\n".encode("utf-16"),
            'line 1 is not UTF-8. Save the file as UTF-8, or name its encoding, e.g. data.encoding = "latin-1".',
        ),
        ("a.csv", b'a,b\n1,"2\n3,4\n', "line 2 opens a quote that is never closed."),
        ("a.parquet", b"", "cannot be read as Parquet ("),
        ("a.parquet", b"a,b\n1,2\n", "cannot be read as Parquet ("),
        ("a.parquet", b"PAR1 but no more PAR1", "cannot be read as Parquet ("),
        (
            "a.xlsx",
            b"PK",
            "not a kind of file that can be read. Expected one of .parquet, .csv, .csv.gz, .tsv, .tsv.gz.",
        ),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(f"{tmp_path / name}: {message}")


TEXT = "größe;x\nä;1,5\n"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_read_if_configured(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(TEXT.encode(encoding))
    raw = read_raw(ibis.duckdb.connect(), path, dialect=Dialect(encoding=encoding))
    assert raw.table.to_pyarrow().to_pylist() == [{"größe": "ä", "x": "1,5"}]
    assert "data.encoding" in refusal(path)


@pytest.mark.parametrize(
    ("encoding", "content", "message"),
    [
        ("latin-1", TEXT.encode(), "line 1 is UTF-8. Remove `data.encoding`, which is latin-1."),
        ("latin-1", "\ufeffa,b\n1,2\n".encode(), "line 1 is UTF-8. Remove `data.encoding`, which is latin-1."),
        ("latin-1", b"a,b\n\x801,2\n", "is not LATIN-1, as `data.encoding` says. Save the file as UTF-8, or"),
        ("utf-16", b"a,b\n1,2\n", "line 1 is not UTF-16. Save the file as UTF-8, or name its encoding, e.g. data."),
    ],
)
def test_a_wrong_encoding_is_refused(tmp_path: Path, encoding: str, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert refusal(tmp_path / "a.csv", Dialect(encoding=encoding)).startswith(f"{tmp_path / 'a.csv'}: {message}")


def test_a_long_line_is_read_and_one_beyond_the_limit_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"a,b\n1,{'y' * 3_000_000}\n")
    assert [len(value) for value in rows_of(tmp_path / "a.csv")[0]] == [1, 3_000_000]
    # Whatever the text of the line says.
    (tmp_path / "a.csv").write_text(f"a,b\n1,2\n1,unicode {'y' * 2**24}\n")
    assert refusal(tmp_path / "a.csv") == (
        f"{tmp_path / 'a.csv'}: line 3 has more than 16,777,216 bytes, or opens a quote that is never closed. Double the "
        "quotes inside a cell, shorten its text, or write the table as Parquet."
    )


def test_a_parquet_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["Price", "price"]), path)
    assert refusal(path).startswith(f"{path}: the column `Price` differs from `price` only in case.")
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), path)
    assert refusal(path) == f"{path}: the file has columns and no rows."


def test_a_truncated_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"a": range(1000)}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(path).startswith(f"{path}: cannot be read as Parquet (")


def test_a_missing_file_is_named_with_alternatives(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.csv") == f"{tmp_path / 'a.csv'}: no such file."
    for number in range(7):
        (tmp_path / f"{number}.csv").touch()
    assert refusal(tmp_path / "orders.parquet") == (
        f"{tmp_path / 'orders.parquet'}: no such file. The folder holds `0.csv`, `1.csv`, `2.csv`, `3.csv`, `4.csv` and "
        "2 more."
    )
    (tmp_path / "Orders.parquet").touch()
    with pytest.raises(InputError) as caught:
        find_files(tmp_path / "order.parquet", key="data.transactions.file")
    assert str(caught.value) == (
        f"{tmp_path / 'order.parquet'}: no such file (`data.transactions.file`). Did you mean `Orders.parquet`?"
    )
    with pytest.raises(InputError, match=r"no file matches this pattern \(`k`\)\."):
        find_files(tmp_path / "x*.csv", key="k")
    for path in tmp_path.iterdir():
        path.unlink()
    nowhere = tmp_path / "nowhere" / "a.csv"
    assert refusal(nowhere) == (
        f"{nowhere}: no such file. There is no folder {nowhere.parent} either: set `data.path`, "
        "e.g. --set data.path=FOLDER."
    )
    assert refusal(tmp_path / "*.csv").startswith(f"{tmp_path / '*.csv'}: no file matches this pattern.")
    assert refusal(tmp_path).startswith(f"{tmp_path}: the folder holds no file.")
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.parquet").touch()
    assert refusal(tmp_path).startswith(f"{tmp_path}: parts of several kinds (")


def test_a_materialized_table_is_computed_once() -> None:
    connection = ibis.duckdb.connect()
    kept = materialize(connection, ibis.memtable({"a": [1, 2]}).mutate(b=ibis.random()))
    assert kept.execute().equals(kept.execute())
