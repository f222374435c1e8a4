import datetime
from pathlib import Path

import ibis
import pandas as pd
import pytest

from tfrs_fashion.data.tables import index_tables, read_tables, write_tables
from tfrs_fashion.schema import FIRST_INDEX, InputError, RowCount, Tables, check_tables


def day(number: int, hour: int = 0) -> datetime.datetime:
    return datetime.datetime(2024, 1, number, hour)


# Customer ä buys first. Basket 1 of customer "a" has a line two hours late; customer "b" uses the same basket id.
PURCHASES = [
    ("ä", "09", day(1), "0"),
    ("a", "05", day(2, 10), "1"),
    ("a", "01", day(2, 12), "1"),
    ("b", "05", day(2, 10), "1"),
    ("日本", "07", day(3), "1"),
    ("a", "09", day(3), "2"),
]


def make_tables() -> Tables:
    """Customer "日本" and article "07" have no row; customers "y" and "z" and articles "02" and "08" never trade."""
    lines = pd.DataFrame(PURCHASES, columns=["customer_id", "article_id", "t_dat", "basket_id"])
    lines["t_dat"] = lines["t_dat"].astype("datetime64[us]")
    lines = lines.assign(price=1.0, quantity=1, discount=0.0, sales_channel_id=1, store_id="s")
    customers = pd.DataFrame({"customer_id": ["z", "b", "a", "ä", "y"], "age_band": ["40s", "30s", "20s", "10s", None]})
    articles = pd.DataFrame(
        {"article_id": ["08", "09", "05", "02", "01"], "description": ["h", "i", "e", "b", "a"], "colour": "Grön"}
    )
    counts = (RowCount("transactions", "dropped by the source", 3),)
    tables = Tables(ibis.memtable(customers), ibis.memtable(articles), ibis.memtable(lines), counts=counts)
    check_tables(tables)
    return tables


@pytest.fixture(scope="module")
def indexed() -> Tables:
    return index_tables(make_tables())


def test_indices_follow_the_first_purchase_then_the_id_and_never_bought_come_last(indexed: Tables) -> None:
    # ä on day 1; a and b at once on day 2; 日本 on day 3; y and z never.
    customers = indexed.customers.execute()
    assert customers["customer_id"].tolist() == ["ä", "a", "b", "日本", "y", "z"]
    assert customers["customer_index"].tolist() == list(range(FIRST_INDEX, FIRST_INDEX + 6))
    assert customers["customer_index"].dtype == "int32"
    # 09 on day 1; 01 and 05 in one basket on day 2; 07 on day 3; 02 and 08 never.
    articles = indexed.articles.execute()
    assert articles["article_id"].tolist() == ["09", "01", "05", "07", "02", "08"]
    assert articles["article_index"].tolist() == list(range(FIRST_INDEX, FIRST_INDEX + 6))
    assert articles["first_sold"].isna().tolist() == [False, False, False, False, True, True]
    assert articles["first_sold"][0] == pd.Timestamp(day(1))


def test_unknown_ids_get_an_empty_row(indexed: Tables) -> None:
    customers = indexed.customers.execute().set_index("customer_id")
    assert customers["age_band"].to_dict() == {
        "ä": "10s",
        "a": "20s",
        "b": "30s",
        "日本": None,
        "y": None,
        "z": "40s",
    }
    articles = indexed.articles.execute().set_index("article_id")
    assert articles.loc["07", ["description", "colour"]].isna().all()
    assert articles.loc["01", "colour"] == "Grön"


def test_every_rule_that_touched_rows_is_counted(indexed: Tables) -> None:
    assert [(count.table, count.rows) for count in indexed.counts] == [
        ("transactions", 3),
        ("transactions", 1),
        ("customers", 1),
        ("articles", 1),
    ]
    words = ("source", "basket", "without a row", "without a row")
    assert all(word in count.rule for word, count in zip(words, indexed.counts, strict=True))


def test_lines_move_to_the_first_instant_of_their_basket(indexed: Tables) -> None:
    lines = indexed.transactions.execute()
    found = {(row.customer_id, row.article_id): row.t_dat for row in lines.itertuples()}
    assert found[("a", "01")] == pd.Timestamp(day(2, 10))
    # The same basket id of another customer is another basket.
    assert found[("b", "05")] == pd.Timestamp(day(2, 10))
    assert found[("日本", "07")] == pd.Timestamp(day(3))
    assert len(lines) == len(PURCHASES)


def test_transactions_carry_both_indices_in_order(indexed: Tables) -> None:
    lines = indexed.transactions.execute()
    customer = indexed.customers.execute().set_index("customer_id")["customer_index"]
    article = indexed.articles.execute().set_index("article_id")["article_index"]
    assert lines["customer_index"].tolist() == lines["customer_id"].map(customer).tolist()
    assert lines["article_index"].tolist() == lines["article_id"].map(article).tolist()
    order = ["customer_index", "t_dat", "basket_id", "article_index"]
    assert lines[order].equals(lines[order].sort_values(order, ignore_index=True))


def test_nothing_is_counted_where_nothing_was_touched() -> None:
    tables = make_tables()
    lines = tables.transactions.filter(ibis._.customer_id == "b")
    assert index_tables(Tables(tables.customers, tables.articles, lines)).counts == ()


def test_a_later_purchase_changes_no_index_before_it(indexed: Tables) -> None:
    tables = make_tables()
    cutoff = day(3)
    before = index_tables(
        Tables(tables.customers, tables.articles, tables.transactions.filter(ibis._.t_dat < ibis.literal(cutoff)))
    )
    for table, key, index in (
        ("customers", "customer_id", "customer_index"),
        ("articles", "article_id", "article_index"),
    ):
        early = getattr(before, table).execute()
        first = early.columns[[name.startswith("first_") for name in early.columns]][0]
        early = early[early[first].notna()].set_index(key)[index]
        late = getattr(indexed, table).execute().set_index(key)[index]
        assert late[early.index].tolist() == early.tolist()


def test_what_is_written_is_read_back(indexed: Tables, tmp_path: Path) -> None:
    write_tables(indexed, tmp_path)
    found = read_tables(ibis.duckdb.connect(), tmp_path)
    for name in ("customers", "articles", "transactions"):
        pd.testing.assert_frame_equal(getattr(found, name).execute(), getattr(indexed, name).execute())
    assert found.counts == indexed.counts


@pytest.mark.parametrize("name", ["customers", "articles", "transactions"])
def test_a_missing_file_is_named(indexed: Tables, tmp_path: Path, name: str) -> None:
    write_tables(indexed, tmp_path)
    (tmp_path / f"{name}.parquet").unlink()
    with pytest.raises(InputError, match=rf"{name}\.parquet: no such file\. Run `prepare` first"):
        read_tables(ibis.duckdb.connect(), tmp_path)
