import datetime
import re
from pathlib import Path
from typing import Any

import ibis
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_fashion.data.retail import load_tables, source_files
from tfrs_fashion.data.tables import index_tables
from tfrs_fashion.schema import ANONYMOUS_CUSTOMER, InputError, Tables, check_tables
from tfrs_fashion.settings.data import ArticlesConfig, CustomersConfig, DataConfig, TransactionsConfig

# Ten lines of a shop: a return, a line of no units, an anonymous sale, postage, a price of 0, a missing quantity.
SALES = """\
Kunde,Artikel,Zeit,Preis,Menge,Bon,Warengruppe,Größe,Alter,Ort
1.0,007,2024-03-05 10:00,9.99,2,B1,Trikot,Kinder,34,Wien
1.0,008,2024-03-05 10:07,5.00,1,B1,Helm,,34,Wien
2.0,007,2024-03-04 09:00,8.99,,B2,Jersey,Kids,116,
0.0,009,2024-03-04 12:00,4.00,1,B3,,,,
0.0,POST,2024-03-04 12:00,4.95,1,B3,,,,
1.0,007,2024-03-06 11:00,9.99,-1,B4,Trikot,Kinder,35,Graz
3.0,008,2024-03-07 08:00,0,1,B5,Helm,Erwachsene,9,Linz
3.0,009,2024-03-07 08:00,4.00,0,B5,,,9,Linz
2.0,008,2024-03-09 20:00,5.50,1,B6,Helm,Erwachsene,41,Bern
3.0,007,2024-03-10 08:00,9.99,1, ,Trikot,Kinder,47,Rom
"""
TRANSACTIONS = {
    "file": "sales.csv",
    "customer_id": "Kunde",
    "article_id": "Artikel",
    "t_dat": "Zeit",
    "price": "Preis",
    "quantity": "Menge",
    "basket_id": "Bon",
    "anonymous_ids": ("0",),
    "not_merchandise": ("POST",),
}
ARTICLES = {
    "features": ["Warengruppe"],
    "derived": {"family": ("Warengruppe", "Größe")},
}
CUSTOMERS = {"age": "Alter", "features": {"city": "Ort"}, "bands": {"age_band": {"Alter": (20, 40)}}}


def make_config(folder: Path, **changes: dict[str, Any]) -> DataConfig:
    return DataConfig(
        source="retail",
        path=str(folder),
        transactions=TransactionsConfig(**{**TRANSACTIONS, **changes.get("transactions", {})}),
        articles=ArticlesConfig(**changes.get("articles", ARTICLES)),
        customers=CustomersConfig(**changes.get("customers", CUSTOMERS)),
    )


def load(folder: Path, sales: str | None = SALES, **changes: dict[str, Any]) -> Tables:
    if sales is not None:
        (folder / "sales.csv").write_text(sales, encoding="utf-8")
    return load_tables(ibis.duckdb.connect(), make_config(folder, **changes))


def counts_of(tables: Tables, table: str) -> dict[str, int]:
    return {count.rule: count.rows for count in tables.counts if count.table == table}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    tables = load(tmp_path_factory.mktemp("shop"))
    check_tables(tables)
    return tables


def lines_of(tables: Tables) -> list[tuple[object, ...]]:
    lines = tables.transactions.order_by(["t_dat", "article_id"]).to_pyarrow().to_pylist()
    names = ("customer_id", "article_id", "price", "quantity", "basket_id")
    return [(f"{line['t_dat']:%d %H:%M}", *(line[name] for name in names)) for line in lines]


def test_lines_follow_the_rules(shop: Tables) -> None:
    assert lines_of(shop) == [
        ("04 09:00", "2", "007", 8.99, 1, "B2"),
        ("04 12:00", ANONYMOUS_CUSTOMER, "009", 4.0, 1, "B3"),
        ("05 10:00", "1", "007", 9.99, 2, "B1"),
        ("05 10:07", "1", "008", 5.0, 1, "B1"),
        ("07 08:00", "3", "008", None, 1, "B5"),
        ("09 20:00", "2", "008", 5.5, 1, "B6"),
        ("10 08:00", "3", "007", 9.99, 1, "2024-03-10"),
    ]
    assert shop.transactions.store_id.to_pyarrow().null_count == 7


def test_each_rule_is_counted(shop: Tables) -> None:
    assert counts_of(shop, "transactions") == {
        "`Kunde`: a whole number written with .0, read without": 10,
        "`Bon`: trimmed": 1,
        "dropped: the article is not merchandise": 1,
        "dropped: quantity is 0": 1,
        "dropped: a return (quantity below 0)": 1,
        "quantity is missing: 1 instead": 1,
        "price is 0: unknown instead": 1,
        "basket_id is missing: the basket of that customer and day instead": 1,
    }


def test_a_derived_row_has_the_values_of_the_first_line_and_is_known_from_then_on(shop: Tables) -> None:
    # 007 was first sold on day 4 as Jersey-Kids, and 008 in the basket that began at 10:00 without a size.
    articles = shop.articles.order_by("article_id").to_pyarrow().to_pylist()
    day = datetime.datetime(2024, 3, 1)
    assert articles == [
        {
            "article_id": article,
            "known_from": day + datetime.timedelta(days=days, hours=hours),
            "description": None,
            "Warengruppe": group,
            "family": family,
        }
        for article, days, hours, group, family in (
            ("007", 3, 9, "Jersey", "Jersey-Kids"),
            ("008", 4, 10, "Helm", "Helm"),
            ("009", 3, 12, None, None),
        )
    ]
    # Customer 3 is 9 years old at first, which is unknown, not 47; customer 2 116, which is unknown, not 41.
    customers = shop.customers.order_by("customer_id").to_pyarrow().to_pylist()
    assert [(row["customer_id"], row["age"], row["age_band"], row["city"]) for row in customers] == [
        ("1", 34.0, "20-39", "Wien"),
        ("2", None, None, None),
        ("3", None, None, "Linz"),
    ]
    assert counts_of(shop, "customers")["`Alter` outside [10, 110]: age unknown"] == 2
    derived = "derived from the transactions, each from its first line and known from then on"
    assert (counts_of(shop, "customers")[derived], counts_of(shop, "articles")[derived]) == (3, 3)


def test_derived_tables_have_a_row_for_every_id_when_indexed(shop: Tables) -> None:
    indexed = index_tables(shop)
    assert {count.rule for count in indexed.counts} - {count.rule for count in shop.counts} == {
        "moved to the first instant of their basket",
        "of anonymous customers: count for articles, but belong to no history",
    }
    sold = indexed.transactions.inner_join(indexed.articles, "article_id")
    assert int(sold.filter(sold.known_from > sold.t_dat).count().execute()) == 0


def test_later_lines_change_no_row_that_was_known_before(tmp_path: Path, shop: Tables) -> None:
    header, *lines = SALES.splitlines()
    later = [line for line in lines if line.split(",")[2] >= "2024-03-06"]
    changed = [line.replace("Helm", "X").replace("Rom", "Y").replace("Linz", "Z") for line in later]
    before = [line for line in lines if line not in later]
    tables = load(tmp_path, "\n".join([header, *changed[::-1], *before[::-1]]) + "\n")
    cutoff = ibis.timestamp("2024-03-06 00:00:00")
    for name in ("articles", "customers"):
        known = [getattr(made, name).filter(getattr(made, name).known_from < cutoff) for made in (shop, tables)]
        first, second = (table.order_by(table.columns[0]).to_pyarrow().to_pylist() for table in known)
        assert first == second


def test_a_reused_receipt_number_does_not_date_a_derived_row_earlier(tmp_path: Path) -> None:
    # Customer 1 buys article 011 on the 12th, under the number of a receipt of the 5th.
    tables = load(tmp_path, SALES + "1.0,011,2024-03-12 15:00,3.00,1,B1,Hut,,34,Wien\n")
    known = {row["article_id"]: row["known_from"] for row in tables.articles.to_pyarrow().to_pylist()}
    assert known["011"] == datetime.datetime(2024, 3, 12, 15)
    assert known["008"] == datetime.datetime(2024, 3, 5, 10)


def test_ties_are_broken_by_the_values_of_lines_and_not_by_their_order(tmp_path: Path) -> None:
    header, *lines = SALES.splitlines()
    tied = [line.replace("Jersey,Kids", f"{group},{size}") for group, size in (("B", "2"), ("A", "9"), ("A", "3"))
            for line in lines if ",B2," in line]  # fmt: skip
    found = []
    for order in (tied, tied[::-1]):
        tables = load(tmp_path, "\n".join([header, *order]) + "\n")
        found += tables.articles.family.to_pyarrow().to_pylist()
    assert found == ["A-3", "A-3"]


def test_returns_are_netted_if_configured(tmp_path: Path) -> None:
    tables = load(tmp_path, transactions={"returns": "net"})
    assert ("05 10:00", "1", "007", 9.99, 1, "B1") in lines_of(tables)
    assert counts_of(tables, "transactions")["a return, subtracted from the latest earlier purchases"] == 1
    anonymous = SALES + "0,009,2024-03-08 10:00,4,-1,B9,,,,\n"
    counts = counts_of(load(tmp_path, anonymous, transactions={"returns": "net"}), "transactions")
    assert counts["dropped: a return by an anonymous customer, whose purchase is unknown"] == 1


def test_without_basket_ids_a_day_is_a_basket_and_each_anonymous_line_its_own(tmp_path: Path) -> None:
    sales = "k,a,t\n1,x,2024-01-02 08:00\n1,y,2024-01-02 20:00\n,y,2024-01-03\n,y,2024-01-03\nx,x,2024-01-01\n?,a,2024-01-04\n"
    mapping = {
        "customer_id": "k",
        "article_id": "a",
        "t_dat": "t",
        "price": "",
        "quantity": "",
        "basket_id": "",
        "anonymous_ids": ("", "?"),
    }
    tables = load(tmp_path, sales, transactions=mapping, articles={}, customers={})
    check_tables(tables)
    nobody = ANONYMOUS_CUSTOMER
    assert sorted((row[1], row[2], row[5]) for row in lines_of(tables)) == sorted(
        [
            ("1", "x", "2024-01-02"),
            ("1", "y", "2024-01-02"),
            ("x", "x", "2024-01-01"),
            (nobody, "y", "line 1"),
            (nobody, "y", "line 2"),
            (nobody, "a", "line 3"),
        ]
    )
    assert {row[4] for row in lines_of(tables)} == {1}
    assert sorted(tables.customers.customer_id.to_pyarrow().to_pylist()) == ["1", "x"]


def test_identical_lines_are_summed_if_configured(tmp_path: Path) -> None:
    sales = SALES + SALES.splitlines()[1] + "\n"
    assert len(lines_of(load(tmp_path, sales))) == 8
    tables = load(tmp_path, sales, transactions={"identical_lines": "sum"})
    assert ("05 10:00", "1", "007", 9.99, 4, "B1") in lines_of(tables)
    assert len(lines_of(tables)) == 7
    rule = "merged into another line that differs at most in quantity"
    assert counts_of(tables, "transactions")[rule] == 1


CATALOGUE = "sku,name,text,first,kind\n7,Trikot, rot ,2024-03-06,a\n008,Helm,,2024-01-01,\n010,Hut,,,b\n"
WITH_CATALOGUE = {
    "file": "catalogue.csv",
    "article_id": "sku",
    "description": ("name", "text"),
    "known_from": "first",
    "features": {"kind": "kind"},
    "fill": {"kind": "none"},
}


def test_a_file_of_articles_is_read(tmp_path: Path) -> None:
    (tmp_path / "catalogue.csv").write_text(CATALOGUE)
    tables = load(tmp_path, articles=WITH_CATALOGUE, transactions={"article_id_digits": 3})
    check_tables(tables)
    rows = tables.articles.order_by("article_id").to_pyarrow().to_pylist()
    # 007 was sold on the 4th, two days before the catalogue says that it was known.
    sold = datetime.datetime(2024, 3, 4, 9)
    assert [(row["article_id"], row["description"], row["kind"], row["known_from"]) for row in rows] == [
        ("007", "Trikot rot", "a", sold),
        ("008", "Helm", "none", datetime.datetime(2024, 1, 1)),
        ("010", "Hut", "b", None),
    ]
    assert counts_of(tables, "articles") == {
        "`sku`: leading zeros restored, to 3 digits": 1,
        "`text`: trimmed": 1,
        "`known_from` later than the first transaction: moved to it": 1,
        "`kind` missing: 'none' instead": 1,
    }


def test_rows_of_a_file_were_always_known_unless_it_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "catalogue.csv").write_text(CATALOGUE)
    tables = load(tmp_path, articles={"file": "catalogue.csv", "article_id": "sku"})
    assert tables.articles.known_from.to_pyarrow().null_count == 3


def test_repeated_rows_are_dropped_if_equal_and_refused_if_not(tmp_path: Path) -> None:
    (tmp_path / "catalogue.csv").write_text(CATALOGUE + "010,Hut,,,b\n")
    counts = counts_of(load(tmp_path, articles=WITH_CATALOGUE), "articles")
    assert counts["dropped: a row that repeats another in every column read"] == 1
    (tmp_path / "catalogue.csv").write_text(CATALOGUE + "010,Hut,,,c\n")
    with pytest.raises(InputError) as caught:
        load(tmp_path, articles=WITH_CATALOGUE)
    assert str(caught.value) == (
        f"{tmp_path / 'catalogue.csv'} (`article_id` from `sku`): 1 value(s) of `article_id` appear more than once, "
        "e.g. '010'. Keep one row for each."
    )


def test_uninformative_features_are_kept_and_reported(tmp_path: Path) -> None:
    rows = [f"{number},same,,v{number},{number % 2}" for number in range(1001)]
    (tmp_path / "catalogue.csv").write_text("\n".join(["sku,constant,empty,unique,fine", *rows]) + "\n")
    features = ["constant", "empty", "unique", "fine"]
    config = {"file": "catalogue.csv", "article_id": "sku", "features": features, "numbers": {"number": "empty"}}
    # Columns that the package knows are looked at as well; those of a text for each row are as they should be.
    config |= {"description": ("unique",), "image_path": "unique", "product_code": "constant", "margin": "empty"}
    tables = load(tmp_path, articles=config)
    assert {*features, "number"} <= set(tables.articles.columns)
    assert counts_of(tables, "articles") == {
        "`margin` is missing on every row: it says nothing": 1001,
        "`product_code` has one value on every row: it says nothing": 1001,
        "`constant` has one value on every row: it says nothing": 1001,
        "`empty` is missing on every row: it says nothing": 1001,
        "`number` is missing on every row: it says nothing": 1001,
        "`unique` has 1,001 values: too many to teach much": 1001,
    }


def test_features_may_have_any_unused_name(tmp_path: Path) -> None:
    names = ["Farbe/Größe", "start", "age", "place", "0", "d.e'f", 'g"h', "t_dat", "quantity"]
    header = ",".join(f'"{name.replace(chr(34), chr(34) * 2)}"' for name in names)
    values = ",".join(f"v{place}" for place in range(len(names)))
    (tmp_path / "catalogue.csv").write_text(f"sku,first,{header}\n007,2024-03-06,{values}\n", encoding="utf-8")
    config = {"file": "catalogue.csv", "article_id": "sku", "known_from": "first", "features": names}
    (row,) = load(tmp_path, articles=config).articles.to_pyarrow().to_pylist()
    assert [row[name] for name in names] == [f"v{place}" for place in range(len(names))]
    # Derived from the transactions, too.
    sales = SALES.replace("Warengruppe", "Farbe/Größe").replace("Ort", "start")
    features = {"Farbe/Größe": "Farbe/Größe", "start": "start", "quantity": "Alter", "t_dat": "Größe"}
    rows = load(tmp_path, sales, articles={"features": features}, customers={}).articles
    found = rows.filter(rows.article_id == "007").to_pyarrow().to_pylist()
    assert [[row[name] for name in features] for row in found] == [["Jersey", None, "116", "Kids"]]


@pytest.mark.parametrize(
    ("edges", "values", "bands"),
    [
        ((16, 20, 21, 60), (15.9, 16, 19.9, 20, 21, 59, 60, 99), ("<16", "16-19", "16-19", "20", "21-59", "60+")),
        ((0.5, 1.5), (0.4, 0.5, 1.5, None), ("<0.5", "0.5 to 1.5", "1.5+", None)),
        ((1_000_000,), (1, 2_000_000), ("<1000000", "1000000+")),
    ],
)
def test_numbers_get_the_name_of_their_band(tmp_path: Path, edges: Any, values: Any, bands: Any) -> None:
    frame = pd.DataFrame({"c": [f"{place:02d}" for place in range(len(values))], "x": values})
    frame.assign(a="1", t=pd.Timestamp("2024-01-01")).to_parquet(tmp_path / "sales.parquet")
    mapping = {"file": "sales.parquet", "customer_id": "c", "article_id": "a", "t_dat": "t"}
    mapping |= dict.fromkeys(("price", "quantity", "basket_id"), "")
    tables = load(tmp_path, None, transactions=mapping, articles={}, customers={"bands": {"band": {"x": edges}}})
    found = tables.customers.order_by("customer_id").band.to_pyarrow().to_pylist()
    assert list(dict.fromkeys(found)) == list(dict.fromkeys(bands))


def test_checks_name_the_files_own_column(tmp_path: Path) -> None:
    tables = load(tmp_path, SALES.replace("5.50", "-5.50"))
    with pytest.raises(
        InputError, match=r"transactions: 1 row.* where `price` \(from `Preis`\) is negative, e\.g\. -5"
    ):
        check_tables(tables)


def test_a_missing_customer_id_is_refused_with_the_setting_for_anonymous_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, SALES.replace("2.0,007", ",007"))
    assert str(caught.value) == (
        f"{tmp_path / 'sales.csv'}: 1 row(s) where `Kunde` is missing, e.g. None. Every row needs one. If such rows are "
        'anonymous: data.transactions.anonymous_ids = [""]. (data.transactions.customer_id = "Kunde")'
    )


def test_a_mapped_column_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'no column for data\.transactions\.price = "Pres"\. Did you mean "Preis"\?'):
        load(tmp_path, transactions={"price": "Pres"})
    with pytest.raises(InputError, match=r'no column for data\.articles\.derived\.family = "Grösse"'):
        load(tmp_path, articles={"derived": {"family": ("Warengruppe", "Grösse")}})
    with pytest.raises(InputError, match=r'no column for data\.customers\.features\.city = "Stadt"'):
        load(tmp_path, customers={"features": {"city": "Stadt"}})


def test_source_files_lists_every_file_that_is_read(tmp_path: Path) -> None:
    load(tmp_path)
    (tmp_path / "catalogue.csv").write_text(CATALOGUE)
    config = make_config(tmp_path, articles={"file": "catalogue.csv"}, customers={})
    assert source_files(config) == [tmp_path / "sales.csv", tmp_path / "catalogue.csv"]


def test_only_dropped_lines_make_an_empty_table_that_says_why(tmp_path: Path) -> None:
    header, *lines = SALES.splitlines()
    tables = load(tmp_path, "\n".join([header, *(line for line in lines if ",POST," in line)]) + "\n")
    with pytest.raises(InputError, match="the table is empty"):
        check_tables(tables)


def test_csv_and_parquet_give_the_same_tables(tmp_path: Path, shop: Tables) -> None:
    (tmp_path / "sales.csv").write_text(SALES, encoding="utf-8")
    frame = pd.read_csv(tmp_path / "sales.csv", dtype={"Artikel": str, "Bon": str}, parse_dates=["Zeit"])
    frame.astype({"Warengruppe": "category"}).to_parquet(tmp_path / "sales.parquet")
    tables = load(tmp_path, None, transactions={"file": "sales.parquet"})
    for name in ("customers", "articles", "transactions"):
        found, expected = (getattr(made, name) for made in (tables, shop))
        assert found.schema() == expected.schema()
        order = [column for column in expected.columns]
        assert found.order_by(order).to_pyarrow().to_pylist() == expected.order_by(order).to_pyarrow().to_pylist()


IDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=5)
# Of CSV "1.0" is read as 1.
IDS = IDS.filter(lambda text: not re.fullmatch(r"-?[0-9]+\.0+", text))
LINES = st.tuples(
    IDS,
    IDS,
    st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2024, 1, 1)),
    st.one_of(st.none(), st.floats(0.001, 1e6)),
    st.integers(1, 10**6),
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), st.integers(-5, 5)),
    st.one_of(st.none(), IDS),
    IDS,
)


@settings(max_examples=15)
@given(st.lists(LINES, min_size=1, max_size=8))
def test_canonical_tables_in_csv_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]
) -> None:
    names = (
        "customer_id",
        "article_id",
        "t_dat",
        "price",
        "quantity",
        "discount",
        "sales_channel_id",
        "store_id",
        "basket_id",
    )
    frame = pd.DataFrame(rows, columns=list(names)).astype({"sales_channel_id": "Int64"})
    folder = tmp_path_factory.mktemp("canonical")
    frame.to_csv(folder / "lines.csv", index=False)
    ids = pd.DataFrame({"article_id": frame["article_id"].unique()})
    ids.assign(description="d").to_csv(folder / "articles.csv", index=False)
    config = DataConfig(
        source="retail",
        path=str(folder),
        transactions=TransactionsConfig(file="lines.csv", **{name: name for name in names}),
        articles=ArticlesConfig(file="articles.csv", description="description"),  # type: ignore[arg-type]
    )
    tables = load_tables(ibis.duckdb.connect(), config)
    check_tables(tables)
    order = [(str(row), row) for row in (tuple(line.values()) for line in tables.transactions.to_pyarrow().to_pylist())]
    assert [row for _key, row in sorted(order)] == [row for _key, row in sorted((str(row), row) for row in rows)]
    assert sorted(tables.articles.article_id.to_pyarrow().to_pylist()) == sorted(ids["article_id"])
    assert sorted(tables.customers.customer_id.to_pyarrow().to_pylist()) == sorted(frame["customer_id"].unique())
