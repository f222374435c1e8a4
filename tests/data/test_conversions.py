import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrs_fashion.data.conversions import MappedColumn, convert
from tfrs_fashion.data.raw import Dialect, read_raw
from tfrs_fashion.schema import InputError

NAN = float("nan")
TIME = datetime.datetime(2024, 3, 1, 9, 30)


def converted(path: Path, column: MappedColumn) -> tuple[list[Any], dict[str, int]]:
    table, counts = convert(read_raw(ibis.duckdb.connect(), path), [column], table="transactions")
    assert {count.table for count in counts} <= {"transactions"}
    return table[column.name].to_pyarrow().to_pylist(), {count.rule: count.rows for count in counts}


def from_csv(tmp_path: Path, cells: list[str], kind: Any, **rest: Any) -> tuple[list[Any], dict[str, int]]:
    (tmp_path / "a.csv").write_text("\n".join(["x,n", *(f"{cell},1" for cell in cells)]) + "\n", encoding="utf-8")
    return converted(tmp_path / "a.csv", MappedColumn("x", "x", "data.t.x", kind, **rest))


def from_parquet(tmp_path: Path, values: Any, kind: Any, **rest: Any) -> tuple[list[Any], dict[str, int]]:
    pq.write_table(pa.table({"x": values}), tmp_path / "a.parquet")
    return converted(tmp_path / "a.parquet", MappedColumn("x", "x", "data.t.x", kind, **rest))


def test_ids_keep_their_zeros_and_lose_spaces_and_fractions(tmp_path: Path) -> None:
    cells = ["007", " 8 ", "\u00a09\u3000", "17850.0", "12.50", "1.5.0", "", "  ", "85123A", "-1.00"]
    values, counts = from_csv(tmp_path, cells, "id")
    assert values == ["007", "8", "9", "17850", "12.50", "1.5.0", None, None, "85123A", "-1"]
    # The blank cell was trimmed as well; the empty one is no text at all.
    assert counts == {"`x`: trimmed": 3, "`x`: a whole number written with .0, read without": 2}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([17850.0, None, NAN, -0.0, 2.0**52]), ["17850", None, None, "0", "4503599627370496"]),
        (pa.array([2**63, 1], pa.uint64()), ["9223372036854775808", "1"]),
        (pa.array([Decimal(12345678901234567890123), None], pa.decimal128(38, 0)), ["12345678901234567890123", None]),
        (pa.array([Decimal("7.00")], pa.decimal128(10, 2)), ["7"]),
        (pa.array(["007", " a", "1.0"]), ["007", "a", "1.0"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array([None, None], pa.null()), [None, None]),
        (pa.array([True, False]), ["true", "false"]),
    ],
)
def test_ids_from_parquet(tmp_path: Path, values: Any, expected: list[str | None]) -> None:
    assert from_parquet(tmp_path, values, "id")[0] == expected


def test_categories_may_be_fractions_but_ids_may_not(tmp_path: Path) -> None:
    assert from_parquet(tmp_path, pa.array([36.0, 36.5]), "category")[0] == ["36", "36.5"]
    assert from_csv(tmp_path, ["36.0", "36.5"], "category")[0] == ["36", "36.5"]
    assert from_csv(tmp_path, ["version 2.0", "2.0"], "text")[0] == ["version 2.0", "2.0"]
    with pytest.raises(InputError, match=r"2 row\(s\) where `x` cannot be read as an id, e\.g\. 36\.5, 1e\+17\. Write"):
        from_parquet(tmp_path, pa.array([36.0, 36.5, 1e17]), "id")


def test_lost_leading_zeros_are_restored(tmp_path: Path) -> None:
    values, counts = from_csv(tmp_path, ["108775015", "0108775044", "A1", "12345678901"], "id", digits=10)
    assert values == ["0108775015", "0108775044", "A1", "12345678901"]
    assert counts == {"`x`: leading zeros restored, to 10 digits": 1}
    assert from_parquet(tmp_path, pa.array([108775015]), "id", digits=10)[0] == ["0108775015"]


def test_numbers_are_read_from_text_and_parquet(tmp_path: Path) -> None:
    assert from_csv(tmp_path, ["1.5", " 2 ", "", "nan", "-3e2", "+.5"], "number")[0] == [1.5, 2, None, None, -300, 0.5]
    assert from_parquet(tmp_path, pa.array([1.5, None, NAN]), "number")[0] == [1.5, None, None]
    assert from_parquet(tmp_path, pa.array([Decimal("1.99")], pa.decimal128(5, 2)), "number")[0] == [1.99]


def test_whole_numbers_are_read_from_text_and_parquet(tmp_path: Path) -> None:
    largest = 2**31 - 1
    cells = ["1", " -2", "3.0", "", str(largest), "+4"]
    assert from_csv(tmp_path, cells, "integer")[0] == [1, -2, 3, None, largest, 4]
    assert from_parquet(tmp_path, pa.array([1.0, None, -2.0]), "integer")[0] == [1, None, -2]
    assert from_parquet(tmp_path, pa.array([largest, 5]), "integer")[0] == [largest, 5]


def test_times_are_read_from_text_and_parquet(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 3, 1)
    cells = ["2024-03-01", "2024-03-01 09:30:00", " 2024-03-01T09:30 ", "", "2024-03-01T10:30:00+01:00"]
    assert from_csv(tmp_path, cells, "timestamp")[0] == [day, TIME, TIME, None, TIME]
    assert from_csv(tmp_path, ["01.03.2024 09:30"], "timestamp", date_format="%d.%m.%Y %H:%M")[0] == [TIME]
    assert from_parquet(tmp_path, pa.array([20240301, None]), "timestamp", date_format="%Y%m%d")[0] == [day, None]
    for unit in ("s", "ms", "us", "ns"):
        assert from_parquet(tmp_path, pa.array([TIME], pa.timestamp(unit)), "timestamp")[0] == [TIME]
    assert from_parquet(tmp_path, pa.array([day.date()]), "timestamp")[0] == [day]


def test_times_with_a_zone_are_read_as_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    moment = pa.array([TIME.replace(tzinfo=datetime.UTC)], pa.timestamp("us", tz="Europe/Berlin"))
    assert from_parquet(tmp_path, moment, "timestamp")[0] == [TIME]


def test_an_ordinal_is_days_or_seconds_since_1970(tmp_path: Path) -> None:
    first = datetime.datetime(1970, 1, 1)
    assert from_csv(tmp_path, ["0", "2.0", ""], "timestamp", ordinal="days")[0] == [
        first,
        first + datetime.timedelta(days=2),
        None,
    ]
    assert from_parquet(tmp_path, pa.array([61]), "timestamp", ordinal="seconds")[0] == [
        first + datetime.timedelta(seconds=61)
    ]
    for bad in ("-1", "1.5", "x", str(2**62)):
        with pytest.raises(InputError, match=r"1 row\(s\) where `x` cannot be read as a time"):
            from_csv(tmp_path, ["1", bad], "timestamp", ordinal="days")


@pytest.mark.parametrize(
    ("kind", "bad", "meaning", "fix"),
    [
        ("number", ["1,5", "NA"], "a finite number", "Write numbers with a point"),
        ("number", ["inf", "-Infinity"], "a finite number", "Write numbers with a point"),
        (
            "number",
            ["1e300", "-3.5e38"],
            "a finite number",
            "Write numbers with a point, without separators, up to 3.4e",
        ),
        ("integer", ["3000000000", "-2147483649"], "a whole number", "Write whole numbers up to 2,147,483,647;"),
        ("integer", ["1.5", "two"], "a whole number", "Write whole numbers"),
        ("integer", ["1e30", "9223372036854775808"], "a whole number", "Write whole numbers"),
        ("timestamp", ["01.03.2024", "yesterday"], "a time", 'Set data.t.date_format, e.g. "%d.%m.%Y %H:%M", or'),
        ("timestamp", ["infinity", "294000-01-01"], "a time", "Set data.t.date_format"),
    ],
)
def test_unreadable_values_are_refused_and_never_null(
    tmp_path: Path, kind: str, bad: list[str], meaning: str, fix: str
) -> None:
    good = "2024-03-01" if kind == "timestamp" else "1"
    with pytest.raises(InputError) as caught:
        from_csv(tmp_path, [f'"{bad[0]}"', good, "", f'"{bad[1]}"'], kind)
    start = f"{tmp_path / 'a.csv'}: 2 row(s) where `x` cannot be read as {meaning}, e.g. {bad[0]!r}, {bad[1]!r}. {fix}"
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith('(data.t.x = "x")')


def test_a_time_that_does_not_follow_the_format_names_the_format(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        from_csv(tmp_path, ["2024-03-01", "01.03.2024"], "timestamp", date_format="%d.%m.%Y")
    assert str(caught.value) == (
        f"{tmp_path / 'a.csv'}: 1 row(s) where `x` cannot be read as a time, e.g. '2024-03-01'. It is read by "
        'data.t.date_format = "%d.%m.%Y": change that, or the values. (data.t.x = "x")'
    )
    with pytest.raises(InputError, match=r"It is read as days since 1970, by data\.t\.ordinal = \"days\"\."):
        from_csv(tmp_path, ["2024-03-01"], "timestamp", ordinal="days")


def from_text(tmp_path: Path, cells: list[str], kind: Any, dialect: Dialect, **rest: Any) -> list[Any]:
    """Reads cells in quotes, since a comma may be in them."""
    (tmp_path / "a.csv").write_text("\n".join(["x,n", *(f'"{cell}",1' for cell in cells)]) + "\n", encoding="utf-8")
    raw = read_raw(ibis.duckdb.connect(), tmp_path / "a.csv", dialect=dialect)
    table, _counts = convert(raw, [MappedColumn("x", "x", "data.t.x", kind, **rest)], table="transactions")
    return table.x.to_pyarrow().to_pylist()


@pytest.mark.parametrize(
    ("decimal", "thousands", "cells", "expected"),
    [
        (
            ",",
            "",
            ["1,5", " 2 ", "-,25", "3,", "", "nan", "1e3", "1234,5"],
            [1.5, 2, -0.25, 3, None, None, 1000, 1234.5],
        ),
        (",", ".", ["1.234,56", "-1.234.567", "12,5", "1234,5"], [1234.56, -1234567, 12.5, 1234.5]),
        (".", ",", ["1,234.56", "12.5", "999"], [1234.56, 12.5, 999]),
        (",", " ", ["1 234,5", "1\u00a0234,5", "1\u202f234"], [1234.5, 1234.5, 1234]),
        (".", "'", ["1'234.5", "1\u2019234"], [1234.5, 1234]),
    ],
)
def test_numbers_with_other_separators_are_read(
    tmp_path: Path, decimal: str, thousands: str, cells: list[str], expected: list[float | None]
) -> None:
    dialect = Dialect(decimal=decimal, thousands=thousands)
    assert from_text(tmp_path, cells, "number", dialect) == expected
    if thousands:
        assert from_text(tmp_path, [f"1{thousands}234", "7"], "integer", dialect) == [1234, 7]


@pytest.mark.parametrize(
    ("decimal", "thousands", "bad"),
    [
        # A point that stands where no thousands end would multiply a price by a hundred if it were left out.
        (",", ".", ["1.5", "1.2345", "12.34.567", "1,234.5", "1.234,5,6", ".234"]),
        (",", "", ["1.5", "1.234,5"]),
        (".", ",", ["1,5", "1,23,456"]),
        (",", " ", ["1 5", "inf"]),
    ],
)
def test_numbers_with_misplaced_separators_are_refused(
    tmp_path: Path, decimal: str, thousands: str, bad: list[str]
) -> None:
    dialect = Dialect(decimal=decimal, thousands=thousands)
    for cell in bad:
        with pytest.raises(InputError) as caught:
            from_text(tmp_path, ["1", cell], "number", dialect)
        between = f"{thousands!r} between thousands" if thousands else "without separators"
        sign = "a comma" if decimal == "," else "a point"
        assert (
            f"1 row(s) where `x` cannot be read as a finite number, e.g. {cell!r}. Write numbers with {sign}, {between}, "
            in str(caught.value)
        )
        assert "set `data.decimal` and `data.thousands`" in str(caught.value)


def test_percents_become_shares(tmp_path: Path) -> None:
    plain, comma = Dialect(), Dialect(decimal=",")
    assert from_text(tmp_path, ["20", "20%", " 7.5 % ", "", "0"], "number", plain, is_percent=True) == [
        0.2,
        0.2,
        0.075,
        None,
        0,
    ]
    assert from_text(tmp_path, ["12,5%"], "number", comma, is_percent=True) == [0.125]
    assert from_parquet(tmp_path, pa.array([50.0, None]), "number", is_percent=True)[0] == [0.5, None]
    with pytest.raises(InputError, match=r"e\.g\. '20%'"):
        from_text(tmp_path, ["20%"], "number", plain)


def test_the_largest_numbers_of_32_bits_are_read(tmp_path: Path) -> None:
    whole = [2_147_483_647, -2_147_483_648]
    assert from_csv(tmp_path, [str(number) for number in whole], "integer")[0] == whole
    assert from_parquet(tmp_path, pa.array(whole), "integer")[0] == whole
    assert from_parquet(tmp_path, pa.array([3.4e38, None, NAN]), "number")[0] == [3.4e38, None, None]
    for values, kind in ((pa.array([2**32 + 1]), "integer"), (pa.array([1e39]), "number")):
        with pytest.raises(InputError, match=r"1 row\(s\) where `x` cannot be read as"):
            from_parquet(tmp_path, values, kind)


def test_infinite_numbers_in_parquet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 row\(s\) where `x` cannot be read as a finite number, e\.g\. inf\."):
        from_parquet(tmp_path, pa.array([1.0, float("inf")]), "number")


@pytest.mark.parametrize(
    ("values", "kind", "problem"),
    [
        (pa.array([[1]]), "category", r"type array<int64>, expected text"),
        (pa.array([b"x"]), "id", r"type binary, expected an id"),
        (pa.array([True]), "number", r"type boolean, expected a finite number"),
        (pa.array([TIME]), "integer", r"type timestamp\(6\), expected a whole number"),
        (pa.array([1]), "timestamp", r"type int64, expected a time\. Set `date_format` \(e\.g\. \"%Y%m%d\"\) or"),
    ],
)
def test_a_column_of_an_unsuitable_type_is_refused(tmp_path: Path, values: Any, kind: str, problem: str) -> None:
    with pytest.raises(InputError, match=rf"a\.parquet: column `x` has {problem}"):
        from_parquet(tmp_path, values, kind)


def test_missing_values_of_a_required_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        from_csv(tmp_path, ["a", "", "  "], "id", required=True)
    assert str(caught.value) == (
        f"{tmp_path / 'a.csv'}: 2 row(s) where `x` is missing, e.g. None, '  '. Every row needs one. (data.t.x = \"x\")"
    )


def test_at_most_five_samples_are_shown(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"9 row.*e\.g\. 'v0', 'v1', 'v2', 'v3', 'v4'\. Write"):
        from_csv(tmp_path, [f"v{number}" for number in range(9)], "number")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [("UnitPrise", ' Did you mean "UnitPrice"?'), ("UNITPRICE", ' Did you mean "UnitPrice"?'), ("zzz", "")],
)
def test_a_column_that_the_file_lacks_names_the_nearest_one(tmp_path: Path, asked: str, hint: str) -> None:
    (tmp_path / "a.csv").write_text("UnitPrice,Quantity\n1,2\n")
    raw = read_raw(ibis.duckdb.connect(), tmp_path / "a.csv")
    with pytest.raises(InputError) as caught:
        convert(raw, [MappedColumn("price", asked, "data.transactions.price", "number")], table="transactions")
    assert str(caught.value) == (
        f'{tmp_path / "a.csv"}: no column for data.transactions.price = "{asked}".{hint} '
        "The file has `UnitPrice`, `Quantity`."
    )
