import datetime
from decimal import Decimal
from typing import Any

import ibis
import pyarrow as pa
import pytest

from tfrs_fashion.schema import (
    Column,
    InputError,
    RowCount,
    Tables,
    check_columns,
    check_tables,
)

NOW = datetime.datetime(2024, 6, 1)
DAY = datetime.datetime(2024, 5, 1)
NAN = float("nan")

# Arrow keeps null and NaN apart, which pandas does not.
CUSTOMERS = {"customer_id": pa.array(["a", "b"]), "age": pa.array([30.0, None])}
ARTICLES = {"article_id": pa.array(["01", "02", "03"]), "description": pa.array(["red hat", None, "ベージュ"])}
TRANSACTIONS = {
    "customer_id": pa.array(["a", "a", "b"]),
    "article_id": pa.array(["01", "02", "03"]),
    "t_dat": pa.array([DAY, DAY, DAY], pa.timestamp("us")),
    "price": pa.array([1.0, None, 0.0]),
    "quantity": pa.array([1, 2, 1]),
    "discount": pa.array([0.0, None, 1.0]),
    "sales_channel_id": pa.array([1, None, 2]),
    "store_id": pa.array([None, "s", "s"]),
    "basket_id": pa.array(["x", "x", "y"]),
}


def make_tables(counts: tuple[RowCount, ...] = (), **changes: dict[str, Any]) -> Tables:
    """Valid tables, but for the columns that are changed; None takes a column away."""

    def table(name: str, columns: dict[str, pa.Array]) -> ibis.Table:
        changed = {**columns, **changes.get(name, {})}
        return ibis.memtable(pa.table({key: values for key, values in changed.items() if values is not None}))

    return Tables(
        table("customers", CUSTOMERS), table("articles", ARTICLES), table("transactions", TRANSACTIONS), counts=counts
    )


def refusal(tables: Tables) -> str:
    with pytest.raises(InputError) as caught:
        check_tables(tables, now=NOW)
    return str(caught.value)


def test_valid_tables_pass() -> None:
    check_tables(make_tables(), now=NOW)


@pytest.mark.parametrize("column", list(TRANSACTIONS))
def test_a_missing_transaction_column_is_named_beside_those_found(column: str) -> None:
    message = refusal(make_tables(transactions={column: None}))
    assert message.startswith(f"transactions: missing 1 column(s) `{column}`; found ")
    assert all(f"`{other}`" in message for other in TRANSACTIONS)


def test_all_missing_columns_are_named_at_once() -> None:
    message = refusal(make_tables(articles={"article_id": None, "description": None, "other": pa.array([1])}))
    assert message.startswith("articles: missing 2 column(s) `article_id`, `description`; found `other`.")


def test_a_source_table_is_named_by_its_file() -> None:
    with pytest.raises(InputError, match=r"^raw/sales\.csv: missing 1 column\(s\) `sku`; found `customer_id`"):
        check_columns(make_tables().transactions, [Column("sku", "string")], where="raw/sales.csv")


def test_optional_columns_may_be_absent_but_not_of_another_type() -> None:
    check_tables(make_tables(customers={"age": None}), now=NOW)
    message = refusal(make_tables(customers={"age": pa.array(["30", "old"])}))
    assert message.startswith("customers: column `age` has type string, expected float.")


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("customer_id", pa.array([1, 1, 2]), "string"),
        ("t_dat", pa.array(["2024-05-01"] * 3), "timestamp"),
        ("price", pa.array(["1", "2", "3"]), "float"),
        ("quantity", pa.array([1.0, 2.0, 1.0]), "int"),
        ("sales_channel_id", pa.array(["1", "2", "2"]), "int"),
    ],
)
def test_a_wrong_type_is_refused(column: str, values: pa.Array, expected: str) -> None:
    message = refusal(make_tables(transactions={column: values}))
    assert message.startswith(f"transactions: column `{column}` has type ")
    assert f", expected {expected}." in message


@pytest.mark.parametrize("column", ["price", "discount"])
def test_whole_numbers_are_numbers(column: str) -> None:
    check_tables(make_tables(transactions={column: pa.array([1, None, 0])}), now=NOW)


def test_decimal_prices_are_numbers() -> None:
    prices = pa.array([Decimal("1.99"), None, Decimal(0)], pa.decimal128(10, 2))
    check_tables(make_tables(transactions={"price": prices}), now=NOW)


def test_dates_with_a_time_zone_are_refused() -> None:
    # Everything else here is without one, and the two cannot be compared.
    moments = pa.array([DAY.replace(tzinfo=datetime.UTC)] * 3, pa.timestamp("us", tz="UTC"))
    assert refusal(make_tables(transactions={"t_dat": moments})).startswith("transactions: column `t_dat` has type ")


def test_an_empty_table_names_what_the_source_dropped() -> None:
    counts = (
        RowCount("transactions", "dropped: quantity is not above 0", 12_345),
        RowCount("articles", "dropped: a rule of another table", 7),
        RowCount("transactions", "dropped: store is closed", 2),
    )
    nothing = {name: values.slice(0, 0) for name, values in TRANSACTIONS.items()}
    message = refusal(make_tables(counts, transactions=nothing))
    assert message.startswith("transactions: the table is empty (")
    assert "12,345 dropped: quantity is not above 0" in message
    assert "2 dropped: store is closed" in message
    assert "another table" not in message
    assert "the table is empty." in refusal(make_tables(transactions=nothing))


def test_repeated_ids_are_counted_once_per_value_with_five_samples() -> None:
    # Seven ids appear twice: seven values, of which five are shown.
    ids = [f"{number:02d}" for number in range(7)]
    message = refusal(make_tables(articles={"article_id": pa.array(ids * 2), "description": pa.array(["x"] * 14)}))
    assert message.startswith("articles: 7 value(s) of `article_id` appear more than once, e.g. ")
    assert [value for value in ids if repr(value) in message] == ids[:5]
    message = refusal(make_tables(customers={"customer_id": pa.array(["a", "a"])}))
    assert message.startswith("customers: 1 value(s) of `customer_id` appear more than once, e.g. 'a'.")


@pytest.mark.parametrize(
    ("table", "column", "size"),
    [
        ("customers", "customer_id", 2),
        ("articles", "article_id", 3),
        ("transactions", "customer_id", 3),
        ("transactions", "article_id", 3),
        ("transactions", "basket_id", 3),
    ],
)
def test_null_empty_and_broken_ids_are_refused(table: str, column: str, size: int) -> None:
    rest = [f"id{number}" for number in range(size - 2)]
    message = refusal(make_tables(**{table: {column: pa.array([None, "", *rest])}}))
    assert message.startswith(f"{table}: 2 row(s) where `{column}` is null or empty, e.g. ")
    assert "None" in message
    assert "''" in message
    message = refusal(make_tables(**{table: {column: pa.array(["a\nb", "a\tb", *rest])}}))
    assert message.startswith(f"{table}: 2 row(s) where `{column}` holds control characters, e.g. ")
    assert repr("a\nb") in message


@pytest.mark.parametrize(
    ("column", "values", "what"),
    [
        (
            "price",
            pa.array([-1.5, 2.0, None]),
            "is negative, e.g. -1.5. A return is a negative quantity at the price that was paid (data.transactions.returns",
        ),
        ("price", pa.array([NAN, 2.0, None]), "is NaN or infinite, e.g. nan"),
        ("quantity", pa.array([0, 1, 1]), "is null or below 1, e.g. 0"),
        ("quantity", pa.array([-3, 1, 1]), "is null or below 1, e.g. -3"),
        ("quantity", pa.array([None, 1, 1], pa.int64()), "is null or below 1, e.g. "),
        (
            "quantity",
            pa.array([3_000_000_000, 1, 2**31 - 1]),
            "lies outside [-2,147,483,648, 2,147,483,647], e.g. 3000000000",
        ),
        (
            "sales_channel_id",
            pa.array([2**32 + 1, None, 2]),
            "lies outside [-2,147,483,648, 2,147,483,647], e.g. 4294967297",
        ),
        ("price", pa.array([1e39, 3.4e38, None]), "is beyond 3.4e+38 in size, e.g. 1e+39"),
        (
            "discount",
            pa.array([1.5, 1.0, None]),
            "lies outside [0, 1], e.g. 1.5. Give the share off the list price, or set data.transactions.discount_unit",
        ),
        ("discount", pa.array([-0.25, 1.0, None]), "lies outside [0, 1], e.g. -0.25"),
        ("discount", pa.array([NAN, 1.0, None]), "lies outside [0, 1], e.g. nan"),
        ("t_dat", pa.array([None, DAY, DAY], pa.timestamp("us")), "is null or could not be read as a date, e.g. "),
        (
            "t_dat",
            pa.array([NOW + datetime.timedelta(days=2), DAY, DAY], pa.timestamp("us")),
            "lies in the future (after 2024-06-01), e.g. Timestamp('2024-06-03",
        ),
    ],
)
def test_a_value_out_of_range_is_refused(column: str, values: pa.Array, what: str) -> None:
    message = refusal(make_tables(transactions={column: values}))
    assert message.startswith(f"transactions: 1 row(s) where `{column}` {what}")


def test_an_infinite_price_is_refused() -> None:
    assert "`price`" in refusal(make_tables(transactions={"price": pa.array([float("inf"), 2.0, None])}))


@pytest.mark.parametrize("bad", [1e300, -1e39, float("inf")])
def test_numbers_of_customers_and_articles_have_32_bits(bad: float) -> None:
    what = "is infinite or beyond 3.4e+38 in size, e.g. "
    weight = {"weight": pa.array([bad, 2.0, None])}
    assert refusal(make_tables(articles=weight)).startswith(f"articles: 1 row(s) where `weight` {what}{bad!r}")
    score = {"score": pa.array([NAN, bad])}
    assert refusal(make_tables(customers=score)).startswith(f"customers: 1 row(s) where `score` {what}{bad!r}")


def test_now_is_the_present_by_default() -> None:
    late = datetime.datetime.now() + datetime.timedelta(days=400)
    with pytest.raises(InputError, match=r"1 row.* `t_dat` lies in the future"):
        check_tables(make_tables(transactions={"t_dat": pa.array([DAY, DAY, late], pa.timestamp("us"))}))
