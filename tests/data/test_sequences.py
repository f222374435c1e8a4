"""Sequences of ids become tables whose only time is their order."""

import json
from pathlib import Path

import ibis
import pytest

from tfrs_fashion.data.sequences import load_tables, source_files
from tfrs_fashion.data.tables import index_tables
from tfrs_fashion.schema import InputError, Tables, check_tables


def load(folder: Path, lines: str, attributes: str = "") -> Tables:
    (folder / "bought.txt").write_text(lines, encoding="utf-8")
    if attributes:
        (folder / "attributes.json").write_text(attributes, encoding="utf-8")
    return load_tables(
        ibis.duckdb.connect(), path=folder, file="bought.txt", attributes="attributes.json" if attributes else ""
    )


def test_the_order_is_kept_and_every_purchase_is_a_basket(tmp_path: Path) -> None:
    tables = load(tmp_path, "c2 a1 a3 a1\nc1 a2\n\n")
    check_tables(tables)
    check_tables(index_tables(tables))
    rows = tables.transactions.order_by(["customer_id", "t_dat"]).execute()
    assert rows["customer_id"].tolist() == ["c1", "c2", "c2", "c2"]
    assert rows["article_id"].tolist() == ["a2", "a1", "a3", "a1"]
    assert rows["t_dat"].dt.dayofyear.tolist() == [1, 1, 2, 3]
    assert rows.groupby("customer_id")["basket_id"].nunique().tolist() == [1, 3]
    assert rows["quantity"].tolist() == [1, 1, 1, 1]
    assert tables.counts == ()


def test_attributes_may_include_articles_that_nobody_bought(tmp_path: Path) -> None:
    tables = load(tmp_path, "c1 a1 a2\n", json.dumps({"a1": [7, "wool"], "é9": ["silk"], "a2": []}))
    found = tables.articles.execute().set_index("article_id")["attributes"]
    assert found["a1"] == "7|wool"
    assert found["é9"] == "silk"
    assert found.isna().tolist() == [False, True, False]  # a1, a2, é9


def test_a_customer_without_an_article_is_counted(tmp_path: Path) -> None:
    (count,) = load(tmp_path, "c1 a1\nc2\nc3\n").counts
    assert (count.rows, count.table) == (2, "customers")
    assert "line 2" in count.rule


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "no line"),
        ("c1\nc2\n", "no line"),
        ("c1 a1\nc2 a1\nc1 a2\n", "1 customer id"),
        ("c1 " + "a " * 100_001, "100,001 purchases"),
    ],
)
def test_malformed_lines_are_refused(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, lines)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "an object of lists"),
        ('{"a1": 7}', "1 article"),
        ('{"a1": [1.5]}', "1 article"),
        ('{"a1": ["x|y"], "a2": ["x"]}', "e.g. a1"),
    ],
)
def test_malformed_attributes_are_refused(tmp_path: Path, attributes: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, "c1 a1\n", attributes)


def test_a_file_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bought.txt").write_bytes("c1 é\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        load_tables(ibis.duckdb.connect(), path=tmp_path, file="bought.txt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bought"):
        source_files(path=tmp_path, file="bought.txt", attributes="")
