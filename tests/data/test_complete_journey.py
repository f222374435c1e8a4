import datetime
from pathlib import Path
from typing import Any

import ibis
import pandas as pd
import pytest
from ibis import _

from tfrs_fashion.data.complete_journey import embedded_path, load_tables, source_files
from tfrs_fashion.data.tables import index_tables
from tfrs_fashion.schema import InputError, Tables, check_tables
from tfrs_fashion.settings.file import load_config

# Facts of the study data: rows in the raw table, and rows of merchandise that was bought and paid for.
NUM_RAW, NUM_CLEAN = 1_469_307, 1_439_180

NOON = datetime.datetime(2017, 5, 1, 12)
PRODUCTS = pd.DataFrame(
    {
        "product_id": [10, 11, 12, 13, 14],
        "manufacturer_id": [2, 2, 69, 2, 2],
        "department": ["GROCERY", "FUEL", "DRUG GM", "GROCERY", "COUPON"],
        "brand": "National",
        "product_category": ["FRUIT", "GAS", "CANDY", None, "COUPONS"],
        "product_type": ["APPLES", None, "BARS", "?", "x"],
        "package_size": ["50 OZ", "gal", None, None, None],
    }
)
DEMOGRAPHICS = pd.DataFrame(
    {
        "household_id": [1],
        "age": ["65+"],
        "income": ["35-49K"],
        "home_ownership": ["Homeowner"],
        "marital_status": ["Married"],
        "household_size": ["2"],
        "household_comp": ["2 Adults No Kids"],
        "kids_count": ["0"],
    }
)


def line(product: int, quantity: int, value: float, retail: float = 0.0, match: float = 0.0) -> dict[str, Any]:
    return {
        "household_id": 1,
        "store_id": 330,
        "basket_id": 31198570044,
        "product_id": product,
        "quantity": quantity,
        "sales_value": value,
        "retail_disc": retail,
        "coupon_disc": 0.0,
        "coupon_match_disc": match,
        "transaction_timestamp": NOON,
    }


# Each bad row is dropped under the first rule that it breaks: the free one of no quantity counts as that.
LINES = [
    line(10, 2, 6.0, retail=1.5, match=0.5),
    line(12, 1, 3.0),
    line(10, 0, 6.0),
    line(10, 0, 0.0),
    line(10, -1, 6.0),
    line(10, 1, 0.0),
    line(10, 1, -2.0),
    line(13, 1, 1.0),
    line(99, 1, 1.0),
    line(11, 8000, 20.0),
    line(14, 1, 1.0),
]


def write_raw(folder: Path, **changes: pd.DataFrame) -> Path:
    frames = {"transactions": pd.DataFrame(LINES), "products": PRODUCTS, "demographics": DEMOGRAPHICS}
    frames["transactions"]["transaction_timestamp"] = frames["transactions"]["transaction_timestamp"].astype(
        "datetime64[us]"
    )
    for name, frame in {**frames, **changes}.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    return folder


@pytest.fixture(scope="module")
def clean() -> Tables:
    return load_tables(ibis.duckdb.connect())


def test_the_clean_table_has_the_rows_of_merchandise_bought_and_paid_for(clean: Tables) -> None:
    assert int(clean.transactions.count().execute()) == NUM_CLEAN
    assert sum(count.rows for count in clean.counts) == NUM_RAW - NUM_CLEAN
    assert {count.table for count in clean.counts} == {"transactions"}


def test_the_clean_table_passes_every_check(clean: Tables) -> None:
    check_tables(clean)
    figures = clean.transactions.agg(least=_.price.min(), smallest=_.discount.min(), largest=_.discount.max()).execute()
    assert figures["least"][0] > 0
    assert figures["smallest"][0] == 0
    assert figures["largest"][0] <= 1


def test_the_columns_that_its_pipeline_declares_exist(clean: Tables, root: Path) -> None:
    features = load_config(root / "pipelines" / "complete_journey.toml").features
    assert set(features.categorical) <= set(clean.articles.columns)
    assert set(features.profile) <= set(clean.customers.columns)


def test_the_embedded_files_are_read_by_default() -> None:
    assert [path.name for path in source_files()] == [
        "transactions.parquet",
        "products.parquet",
        "demographics.parquet",
    ]
    assert {path.parent for path in source_files()} == {embedded_path()}


def test_price_is_paid_per_unit_and_discount_the_retailers_share(tmp_path: Path) -> None:
    tables = load_tables(ibis.duckdb.connect(), path=write_raw(tmp_path))
    check_tables(tables)
    rows = tables.transactions.order_by("article_id").execute()
    assert rows["article_id"].tolist() == ["10", "12"]
    assert rows["price"].tolist() == [6.0 / 2, 3.0 / 1]
    assert rows["discount"].tolist() == pytest.approx([1.5 / (6.0 + 1.5 + 0.5), 0.0])
    assert rows["customer_id"].tolist() == ["1", "1"]
    assert rows["basket_id"].tolist() == ["31198570044"] * 2
    assert rows["store_id"].tolist() == ["330"] * 2
    assert rows["t_dat"].tolist() == [pd.Timestamp(NOON)] * 2
    assert rows["sales_channel_id"].isna().all()


def test_each_bad_row_is_counted_under_the_first_rule_that_it_breaks(tmp_path: Path) -> None:
    tables = load_tables(ibis.duckdb.connect(), path=write_raw(tmp_path))
    assert {count.rule: count.rows for count in tables.counts} == {
        "dropped: quantity is not above 0": 3,
        "dropped: sales_value is not above 0": 2,
        "dropped: product_category is unknown": 2,
        "dropped: department is one of FUEL, MISCELLANEOUS, COUPON": 2,
    }
    assert sum(count.rows for count in tables.counts) == len(LINES) - 2


def test_articles_and_customers_are_described(tmp_path: Path) -> None:
    tables = load_tables(ibis.duckdb.connect(), path=write_raw(tmp_path))
    articles = tables.articles.execute().set_index("article_id")
    assert articles.loc["10", "description"] == "APPLES 50 OZ"
    assert articles.loc["12", "description"] == "BARS"
    assert articles.loc["11", "description"] == "gal"
    assert articles.loc["12", "manufacturer_id"] == "69"
    customers = tables.customers.execute()
    assert customers[["customer_id", "age_band"]].to_numpy().tolist() == [["1", "65+"]]


def test_only_bad_rows_make_an_empty_table_that_says_why(tmp_path: Path) -> None:
    bad = pd.DataFrame(LINES[2:4])
    bad["transaction_timestamp"] = bad["transaction_timestamp"].astype("datetime64[us]")
    tables = load_tables(ibis.duckdb.connect(), path=write_raw(tmp_path, transactions=bad))
    with pytest.raises(InputError, match=r"transactions: the table is empty \(2 dropped: quantity is not above 0\)"):
        check_tables(tables)


def test_a_product_listed_twice_is_refused_and_never_doubles_a_sale(tmp_path: Path) -> None:
    tables = load_tables(
        ibis.duckdb.connect(), path=write_raw(tmp_path, products=pd.concat([PRODUCTS, PRODUCTS.head(1)]))
    )
    with pytest.raises(InputError, match=r"articles: 1 value.* of `article_id` appear more than once, e.g. '10'"):
        check_tables(tables)


def test_the_tables_can_be_indexed(tmp_path: Path) -> None:
    tables = index_tables(load_tables(ibis.duckdb.connect(), path=write_raw(tmp_path)))
    assert int(tables.transactions.count().execute()) == 2


@pytest.mark.parametrize("name", ["transactions", "products", "demographics"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_raw(tmp_path) / f"{name}.parquet").unlink()
    with pytest.raises(InputError) as caught:
        load_tables(ibis.duckdb.connect(), path=tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}.parquet: no such file.")


@pytest.mark.parametrize("content", [b"household_id,store_id\n1,2\n", b"", b"PAR1 but no more"])
def test_what_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    path = write_raw(tmp_path) / "products.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_tables(ibis.duckdb.connect(), path=tmp_path)
    assert str(caught.value).startswith(f"{path}: cannot be read as Parquet (")


def test_a_truncated_parquet_is_named(tmp_path: Path) -> None:
    path = write_raw(tmp_path) / "transactions.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"transactions\.parquet: cannot be read as Parquet"):
        load_tables(ibis.duckdb.connect(), path=tmp_path)


@pytest.mark.parametrize(
    ("name", "column"),
    [("transactions", "sales_value"), ("products", "product_category"), ("demographics", "income")],
)
def test_a_missing_column_is_named_with_its_file(tmp_path: Path, name: str, column: str) -> None:
    path = write_raw(tmp_path) / f"{name}.parquet"
    pd.read_parquet(path).drop(columns=column).to_parquet(path)
    with pytest.raises(InputError) as caught:
        load_tables(ibis.duckdb.connect(), path=tmp_path)
    assert str(caught.value).startswith(f"{path}: missing 1 column(s) `{column}`; found ")


def test_a_wrong_type_is_named_with_its_file(tmp_path: Path) -> None:
    path = write_raw(tmp_path) / "transactions.parquet"
    pd.read_parquet(path).astype({"quantity": str}).to_parquet(path)
    with pytest.raises(InputError) as caught:
        load_tables(ibis.duckdb.connect(), path=tmp_path)
    assert str(caught.value).startswith(f"{path}: column `quantity` has type string, expected int.")


def test_demographics_that_nobody_gave_are_missing(tmp_path: Path) -> None:
    # A column without a value has no type in Parquet.
    empty = DEMOGRAPHICS.assign(income=None, kids_count=None)
    write_raw(
        tmp_path,
        demographics=empty,
        transactions=pd.DataFrame(LINES)
        .assign(coupon_match_disc=None)
        .astype({"transaction_timestamp": "datetime64[us]"}),
    )
    tables = load_tables(ibis.duckdb.connect(), path=tmp_path)
    check_tables(tables)
    assert tables.customers.income.to_pyarrow().to_pylist() == [None]
    assert tables.customers.age_band.to_pyarrow().to_pylist() == ["65+"]
