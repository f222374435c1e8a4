import datetime
from pathlib import Path

import ibis
import pandas as pd
import pytest

from tfrs_fashion.data.tables import index_tables, open_scratch, read_tables, write_tables
from tfrs_fashion.schema import (
    ANONYMOUS_CUSTOMER,
    FIRST_INDEX,
    OUT_OF_VOCABULARY_INDEX,
    InputError,
    RowCount,
    Tables,
    check_tables,
)


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


def indices(table: ibis.Table, key: str) -> dict[str, int]:
    frame = table.execute()
    return dict(zip(frame[key], frame[f"{key.removesuffix('_id')}_index"], strict=True))


def test_indices_start_with_source_rows_by_id_then_rows_derived_from_transactions(indexed: Tables) -> None:
    # a, b, y, z and ä have rows, in the order of their bytes; 日本 is known from the first purchase on.
    customers = indexed.customers.execute()
    assert customers["customer_id"].tolist() == ["a", "b", "y", "z", "ä", "日本"]
    assert customers["customer_index"].tolist() == list(range(FIRST_INDEX, FIRST_INDEX + 6))
    assert customers["customer_index"].dtype == "int32"
    assert customers["known_from"].isna().tolist() == [True] * 5 + [False]
    assert customers["known_from"][5] == pd.Timestamp(day(3))
    # 07 alone has no row.
    articles = indexed.articles.execute()
    assert articles["article_id"].tolist() == ["01", "02", "05", "08", "09", "07"]
    assert articles["article_index"].tolist() == list(range(FIRST_INDEX, FIRST_INDEX + 6))
    assert articles["known_from"].isna().tolist() == [True] * 5 + [False]
    assert articles["known_from"][5] == pd.Timestamp(day(3))


def test_added_rows_are_known_from_their_first_transaction_with_ties_by_id() -> None:
    # Without a row: q and p first bought on day 2, at one instant, and o on day 1; r is listed from day 1, noon.
    lines = pd.DataFrame(
        [("q", "7", day(2)), ("p", "7", day(2)), ("o", "8", day(1)), ("p", "9", day(3)), ("r", "7", day(2))],
        columns=["customer_id", "article_id", "t_dat"],
    )
    lines = lines.assign(price=1.0, quantity=1, discount=0.0, sales_channel_id=1, store_id="s")
    lines["basket_id"] = [str(number) for number in range(len(lines))]
    lines["t_dat"] = lines["t_dat"].astype("datetime64[us]")
    customers = pd.DataFrame({"customer_id": ["r", "s"], "known_from": pd.Series([day(1, 12), None])})
    articles = pd.DataFrame({"article_id": ["8"], "description": ["x"]})
    found = index_tables(Tables(*(ibis.memtable(frame) for frame in (customers, articles, lines))))
    # s always; o on day 1 at midnight, r at noon, p and q on day 2.
    assert indices(found.customers, "customer_id") == {"s": 2, "o": 3, "r": 4, "p": 5, "q": 6}
    known = found.customers.execute().set_index("customer_id")["known_from"]
    assert known["r"] == pd.Timestamp(day(1, 12))
    assert known[["o", "p", "q"]].tolist() == [pd.Timestamp(day(number)) for number in (1, 2, 2)]
    assert indices(found.articles, "article_id") == {"8": 2, "7": 3, "9": 4}


@pytest.mark.parametrize("cutoff", [day(2), day(2, 10), day(2, 11), day(3), day(4)])
def test_rows_known_before_an_instant_have_the_lowest_indices(indexed: Tables, cutoff: datetime.datetime) -> None:
    for table, index in ((indexed.customers, "customer_index"), (indexed.articles, "article_index")):
        frame = table.execute()
        known = frame["known_from"].isna() | (frame["known_from"] < cutoff)
        assert (frame.loc[known, index] < frame.loc[~known, index].min()).all() or known.all()
    before = indexed.transactions.filter(ibis._.t_dat < ibis.literal(cutoff)).execute()
    known = indexed.articles.filter(ibis._.known_from.isnull() | (ibis._.known_from < ibis.literal(cutoff))).execute()
    assert set(before["article_id"]) <= set(known["article_id"])


def make_tables_with_anonymous() -> Tables:
    """Of the purchases, three more on day 2 by anonymous customers, two of them in one basket."""
    tables = make_tables()
    named = tables.transactions.execute()
    more = named.iloc[:3].assign(
        customer_id=ANONYMOUS_CUSTOMER, article_id=["05", "09", "33"], basket_id=["x", "x", "y"], t_dat=day(2, 5)
    )
    lines = pd.concat([named, more.astype({"t_dat": "datetime64[us]"})])
    return Tables(tables.customers, tables.articles, ibis.memtable(lines), counts=tables.counts)


def test_anonymous_customers_have_no_row_and_the_out_of_vocabulary_index(indexed: Tables) -> None:
    found = index_tables(make_tables_with_anonymous())
    pd.testing.assert_frame_equal(found.customers.execute(), indexed.customers.execute())
    lines = found.transactions.execute()
    anonymous = lines[lines["customer_id"] == ANONYMOUS_CUSTOMER]
    assert anonymous["customer_index"].tolist() == [OUT_OF_VOCABULARY_INDEX] * 3
    assert sorted(anonymous["article_id"]) == ["05", "09", "33"]
    assert (lines.loc[lines["customer_id"] != ANONYMOUS_CUSTOMER, "customer_index"] >= FIRST_INDEX).all()
    assert lines["customer_index"].dtype == "int32"
    # What they bought is known like anything else: 33 from day 2 on, before 07.
    assert indices(found.articles, "article_id") == {"01": 2, "02": 3, "05": 4, "08": 5, "09": 6, "33": 7, "07": 8}
    counted = {count.rule: count.rows for count in found.counts}
    (rows,) = [rows for rule, rows in counted.items() if "anonymous" in rule]
    assert rows == 3


def test_a_column_with_the_name_of_an_index_is_refused() -> None:
    tables = make_tables()
    named = tables.articles.mutate(article_index=ibis.literal(7))
    with pytest.raises(
        InputError, match="the table of `article_id` has a column `article_index`, which is reserved for its index"
    ):
        index_tables(Tables(tables.customers, named, tables.transactions))


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


def with_lines(rows: list[tuple[str, str, datetime.datetime, str]]) -> Tables:
    tables = make_tables()
    lines = pd.DataFrame(rows, columns=["customer_id", "article_id", "t_dat", "basket_id"])
    lines["t_dat"] = lines["t_dat"].astype("datetime64[us]")
    lines = lines.assign(price=1.0, quantity=1, discount=0.0, sales_channel_id=1, store_id="s")
    return Tables(tables.customers, tables.articles, ibis.memtable(lines))


def test_a_basket_id_used_again_on_another_day_is_another_basket() -> None:
    rows = [
        ("a", "01", day(1, 9), "7"),
        ("a", "02", day(1, 10), "7"),
        ("a", "05", day(20, 18), "7"),
        ("a", "08", day(20, 19), "7"),
        ("b", "01", day(20, 19), "7"),
        # Ten minutes that midnight lies in.
        ("z", "01", day(4, 23), "9"),
        ("z", "02", day(5), "9"),
        (ANONYMOUS_CUSTOMER, "99", day(6), "1"),
        (ANONYMOUS_CUSTOMER, "77", day(8), "1"),
    ]
    found = index_tables(with_lines(rows))
    lines = found.transactions.execute()
    assert {(row.customer_id, row.article_id): (row.t_dat, row.basket_id) for row in lines.itertuples()} == {
        ("a", "01"): (day(1, 9), "7"),
        ("a", "02"): (day(1, 9), "7"),
        ("a", "05"): (day(20, 18), "7 2024-01-20"),
        ("a", "08"): (day(20, 18), "7 2024-01-20"),
        ("b", "01"): (day(20, 19), "7"),
        ("z", "01"): (day(4, 23), "9"),
        ("z", "02"): (day(5), "9 2024-01-05"),
        (ANONYMOUS_CUSTOMER, "99"): (day(6), "1"),
        (ANONYMOUS_CUSTOMER, "77"): (day(8), "1 2024-01-08"),
    }
    counted = {count.rule: count.rows for count in found.counts}
    assert counted["moved to the first instant of their basket"] == 2
    assert counted["with a basket_id that the customer had on an earlier day: a basket of its own"] == 4
    known = found.articles.execute().set_index("article_id")["known_from"]
    assert known["77"] == pd.Timestamp(day(8))
    # What comes later changes nothing before it.
    early = [row for row in rows if row[2] < day(5)]
    before = index_tables(with_lines(early)).transactions.execute()
    names = ["customer_id", "article_id", "t_dat", "basket_id"]
    pd.testing.assert_frame_equal(before[names], lines.loc[lines["t_dat"] < day(5), names].reset_index(drop=True))


def test_transactions_carry_both_indices_in_order(indexed: Tables) -> None:
    lines = indexed.transactions.execute()
    customer = indexed.customers.execute().set_index("customer_id")["customer_index"]
    article = indexed.articles.execute().set_index("article_id")["article_index"]
    assert lines["customer_index"].tolist() == lines["customer_id"].map(customer).tolist()
    assert lines["article_index"].tolist() == lines["article_id"].map(article).tolist()
    order = ["customer_index", "t_dat", "basket_id", "article_index"]
    assert lines[order].equals(lines[order].sort_values(order, ignore_index=True))


def test_rules_that_touch_no_row_are_not_counted() -> None:
    tables = make_tables()
    lines = tables.transactions.filter(ibis._.customer_id == "b")
    assert index_tables(Tables(tables.customers, tables.articles, lines)).counts == ()


def test_a_later_purchase_changes_no_index_before_it(indexed: Tables) -> None:
    tables = make_tables()
    cutoff = day(3)
    before = index_tables(
        Tables(tables.customers, tables.articles, tables.transactions.filter(ibis._.t_dat < ibis.literal(cutoff)))
    )
    for name, key in (("customers", "customer_id"), ("articles", "article_id")):
        early, late = (indices(getattr(found, name), key) for found in (before, indexed))
        # The five rows of the source, each; day 3 brings a sixth.
        assert len(early) == 5
        assert {value: late[value] for value in early} == early
        assert len(late) == 6


def test_written_tables_are_read_back_unchanged(indexed: Tables, tmp_path: Path) -> None:
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


def test_equal_input_gives_equal_files_whatever_the_order_of_rows(tmp_path: Path) -> None:
    tables = make_tables()
    doubled = tables.transactions.union(tables.transactions.mutate(price=2.0))
    for name, lines in (("one", doubled), ("other", doubled.order_by(ibis.desc("price"), ibis.desc("t_dat")))):
        (tmp_path / name).mkdir()
        write_tables(index_tables(Tables(tables.customers, tables.articles, lines)), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_a_scratch_database_leaves_nothing(tmp_path: Path) -> None:
    with open_scratch(tmp_path) as connection:
        connection.create_table("kept", ibis.memtable({"number": [1, 2]}), temp=True)
        assert connection.table("kept").number.sum().execute() == 3
        settings = connection.raw_sql("SELECT current_setting('temp_directory'), current_setting('memory_limit')")
        spill, limit = settings.fetchone()
        assert spill == str(tmp_path / "spill")
        assert limit.endswith("GiB")
        (tmp_path / "spill").mkdir(exist_ok=True)
        (tmp_path / "spill" / "block").write_text("what memory did not hold")
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_database_leaves_nothing_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with open_scratch(tmp_path):
            (tmp_path / "spill").mkdir(exist_ok=True)
            raise InputError("broken")

    with pytest.raises(InputError, match="broken"):
        fail()
    assert list(tmp_path.iterdir()) == []
