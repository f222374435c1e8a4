from pathlib import Path

import ibis
from ibis import _

from tfrs_fashion.data.conversions import MappedColumn, convert
from tfrs_fashion.data.raw import materialize, read_raw
from tfrs_fashion.data.tally import count_values


def test_each_value_of_each_column_is_counted_once() -> None:
    connection = ibis.duckdb.connect()
    table = materialize(connection, ibis.memtable({"a": ["x", "y", "x", None], "b": [1.5, 1.5, 1.5, 1.5]}))
    tally = count_values(connection, table, ["a", "b", "a"])
    figures = {
        "rows": tally.count("a"),
        "x": tally.count("a", tally.values("a") == "x"),
        "missing": tally.count("a", tally.values("a").isnull()),
        "none": tally.count("b", tally.values("b") > 2),
        "values of a": tally.count_values("a"),
        "values of b": tally.count_values("b"),
    }
    found = tally.table.agg(**figures).execute().iloc[0].to_dict()
    # Rows of the other column are null in this one, and are no missing values of it.
    assert found == {"rows": 4, "x": 2, "missing": 1, "none": 0, "values of a": 3, "values of b": 1}
    assert sorted(tally.list_values("a").value.to_pyarrow().to_pylist()) == ["x", "y"]


def test_repeated_ids_are_read_as_enums_that_behave_like_text(tmp_path: Path) -> None:
    ids = ["b", "ä", "B", "b", "", "ä", "b", "B", "10", "9", "9", "10"]
    lines = [f"{name},u{number}" for number, name in enumerate(ids)]
    (tmp_path / "it's.csv").write_text("\n".join(["the 'id',unique", *lines]) + "\n", encoding="utf-8")
    connection = ibis.duckdb.connect()
    raw = read_raw(connection, tmp_path / "it's.csv")
    wanted = [MappedColumn("repeated", "the 'id'", "k", "id"), MappedColumn("unique", "unique", "k", "id")]
    lazy, _counts = convert(raw, wanted, table="t")
    table = materialize(connection, lazy)
    typed = connection.raw_sql(f'SELECT typeof(repeated), typeof("unique") FROM {table.op().name} LIMIT 1').fetchall()
    assert typed[0][0].startswith("ENUM(")
    assert typed[0][1] == "VARCHAR"
    assert table.schema() == ibis.schema({"repeated": "string", "unique": "string"})
    # As Python sorts texts, by code points, which for UTF-8 is by bytes.
    found = table.filter(_.repeated.notnull()).order_by("repeated").repeated.to_pyarrow().to_pylist()
    assert found == sorted(filter(None, ids))
    other = ibis.memtable({"repeated": ["ä", "c"], "number": [1, 2]})
    assert int(table.inner_join(other, "repeated").count().execute()) == 2
    assert int(table.count(where=table.repeated == "never seen").execute()) == 0


def test_ids_that_need_trimming_are_not_read_as_enums(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n 7\n7\n7\n 7\n")
    connection = ibis.duckdb.connect()
    lazy, _counts = convert(read_raw(connection, tmp_path / "a.csv"), [MappedColumn("id", "id", "k", "id")], table="t")
    assert lazy.id.to_pyarrow().to_pylist() == ["7"] * 4
