"""Aggregates of the exploration, against ten lines counted by hand."""

import datetime
from collections.abc import Iterator
from typing import Any

import ibis
import pandas as pd
import pytest

from tfrs_fashion.data.tables import index_tables
from tfrs_fashion.evaluation.exploration import aggregates
from tfrs_fashion.evaluation.exploration.aggregates import Basis, count_basis
from tfrs_fashion.schema import ANONYMOUS_CUSTOMER, Tables


def at(day: int, hour: int = 0) -> datetime.datetime:
    return datetime.datetime(2024, 1, 1, hour) + datetime.timedelta(days=day - 1)


# customer, basket, instant, article, quantity, price, channel. Article A is twice in basket b4, and c1 has another basket,
# b5, later that day.
LINES = [
    ("c1", "b1", at(1), "A", 1, 10.0, 1),
    ("c1", "b1", at(1), "B", 2, 20.0, 1),
    ("c2", "b2", at(1), "A", 1, 10.0, 2),
    (ANONYMOUS_CUSTOMER, "b3", at(2), "A", 1, 10.0, 1),
    ("c1", "b4", at(3), "A", 1, None, 2),
    ("c1", "b4", at(3), "A", 1, 10.0, 2),
    ("c1", "b5", at(3, 18), "C", 1, 0.0, 2),
    ("c2", "b6", at(6), "B", 3, 20.0, 1),
    ("c3", "b7", at(6), "A", 1, 10.0, 2),
    ("c2", "b8", at(8), "B", 1, 20.0, 1),
]
ARTICLES = [
    ("A", "Women", "Tops", "T-shirt"),
    ("B", "Men", "Shirts", "Shirt"),
    ("C", "Women", "Tops", "Vest"),
    ("D", "Women", "Skirts", "Skirt"),
    ("E", "Kids", None, "Shirt"),
]
CUSTOMERS = [("c1", 30.0), ("c2", 50.0), ("c3", None), ("c4", 20.0)]


def make_tables(
    lines: list[Any] = LINES, *, articles: list[Any] = ARTICLES, customers: list[Any] = CUSTOMERS, **changes: Any
) -> Tables:
    """Returns indexed tables of these rows; `changes` sets columns of all transactions to one value."""
    names = ["customer_id", "basket_id", "t_dat", "article_id", "quantity", "price", "sales_channel_id"]
    transactions = pd.DataFrame(lines, columns=names).assign(discount=None, store_id=None, **changes)
    transactions["t_dat"] = transactions["t_dat"].astype("datetime64[us]")
    kinds = {"price": "float64", "discount": "float64", "sales_channel_id": "Int64", "store_id": "string"}
    table = ibis.memtable(transactions.astype(kinds)).mutate(
        price=ibis._.price.nullif(float("nan")), discount=ibis.null("float64")
    )
    catalogue = pd.DataFrame(articles, columns=["article_id", "group", "section", "category"]).astype("string")
    people = pd.DataFrame(customers, columns=["customer_id", "age"]).astype({"age": "float64"})
    return index_tables(
        Tables(
            ibis.memtable(people).mutate(age=ibis._.age.nullif(float("nan"))),
            ibis.memtable(catalogue).mutate(description=ibis._.category),
            table,
        )
    )


@pytest.fixture(scope="module")
def basis() -> Iterator[Basis]:
    with count_basis(make_tables()) as counted:
        yield counted


def pairs(counted: pd.DataFrame) -> dict[int, int]:
    return dict(zip(counted["value"].tolist(), counted["rows"].tolist(), strict=True))


def test_totals_match_hand_counts(basis: Basis) -> None:
    # 10 + 40 + 10 + 10 + unknown + 10 + 0 + 60 + 10 + 20
    expected = {
        "lines": 10,
        "anonymous_lines": 1,
        "units": 13,
        "value": 170,
        "priced_lines": 9,
        "free_lines": 1,
        "price_median": 10,
        "price_max": 20,
        "baskets": 8,
        "buyers": 3,
        "sold_articles": 3,
        "stores": 0,
    }
    assert {name: basis.totals[name] for name in expected} == expected
    assert (basis.num_days, basis.period, basis.partial_note) == (8, "day", "")


def test_by_period_counts_days_without_gaps(basis: Basis) -> None:
    counted = basis.by_period
    assert [day.day for day in counted.index] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert counted["lines"].tolist() == [3, 1, 3, 0, 0, 2, 0, 1]
    assert counted["baskets"].tolist() == [2, 1, 2, 0, 0, 2, 0, 1]
    assert counted["new_articles"].tolist() == [2, 0, 1, 0, 0, 0, 0, 0]
    # Of known customers: on day 3 both lines of A repeat, C is new; on day 8 B repeats.
    assert counted["known_lines"].tolist() == [3, 0, 3, 0, 0, 2, 0, 1]
    assert counted["first_lines"].tolist() == [3, 0, 1, 0, 0, 2, 0, 0]
    assert counted["buyers"].tolist() == [2, 0, 1, 0, 0, 2, 0, 1]
    assert counted["new_customers"].tolist() == [2, 0, 0, 0, 0, 1, 0, 0]
    assert aggregates.count_repeating_customers(basis) == 2


def test_weeks_begin_on_monday_and_incomplete_ones_are_marked() -> None:
    # From Wednesday 3 January to Sunday 11 February 2024: the first week is cut short, the last is whole.
    lines = [
        ("c1", "b1", at(3), "A", 1, 1.0, 1),
        ("c1", "b2", at(42), "A", 1, 1.0, 1),
        ("c2", "b3", at(42), "B", 1, 1.0, 1),
    ]
    with count_basis(make_tables(lines)) as basis:
        counted = basis.by_period
        assert (basis.num_days, basis.period) == (40, "week")
        assert [str(day.date()) for day in counted.index] == [
            "2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22", "2024-01-29", "2024-02-05",
        ]  # fmt: skip
        assert basis.periods[1].tolist() == [True, False, False, False, False, False]
        assert "2024-01-01" in basis.partial_note
        assert counted["lines"].tolist() == [1, 0, 0, 0, 0, 2]
        assert counted["new_customers"].tolist() == [1, 0, 0, 0, 0, 1]


def test_distributions_match_hand_counts(basis: Basis) -> None:
    assert pairs(aggregates.count_basket_sizes(basis)) == {1: 6, 2: 2}
    assert pairs(aggregates.count_quantities(basis)) == {1: 8, 2: 1, 3: 1}
    # Anonymous baskets belong to no customer.
    assert pairs(aggregates.count_activity(basis)) == {1: 1, 3: 2}
    # c1: day 1, 3 (two baskets of one day); c2: 1, 6, 8.
    assert pairs(aggregates.count_gaps(basis)) == {2: 2, 5: 1}


def test_baskets_of_one_instant_are_counted_separately() -> None:
    lines = [("c1", "b1", at(1), "A", 1, 1.0, 1), ("c1", "b2", at(1), "A", 1, 1.0, 1)]
    with count_basis(make_tables(lines)) as basis:
        assert pairs(aggregates.count_activity(basis)) == {2: 1}
        # None of the two is earlier, so nothing repeats.
        assert basis.by_period["first_lines"].tolist() == [2]


def test_prices_are_counted_in_equal_bins_including_the_upper_limit(basis: Basis) -> None:
    counted = aggregates.count_prices(basis, upper=20.0)
    assert len(counted) == 40
    assert counted["high"].iloc[-1] == 20.0
    assert {step: rows for step, rows in enumerate(counted["rows"]) if rows} == {0: 1, 20: 5, 39: 3}
    assert aggregates.count_prices(basis, upper=10.0)["rows"].sum() == 6


def test_long_tail_goes_from_none_to_all(basis: Basis) -> None:
    counted = aggregates.count_long_tail(basis)
    assert counted["articles"].tolist() == [0, 1, 2, 3]
    assert counted["lines"].tolist() == [0, 6, 9, 10]


def test_long_tail_of_many_articles_is_thinned_and_keeps_the_last_point() -> None:
    lines = [("c1", "b1", at(1), f"{number:05d}", 1, 1.0, 1) for number in range(2_501)]
    with count_basis(make_tables(lines)) as basis:
        counted = aggregates.count_long_tail(basis)
    assert len(counted) < 1_000
    assert counted.iloc[-1].tolist() == [2_501, 2_501]
    assert counted.iloc[1].tolist() == [3, 3]


def test_assortment_counts_sold_and_unsold_articles(basis: Basis) -> None:
    counted = aggregates.count_assortment(basis, group="group", section="section")
    rows = {(row.group, row.section): (row.articles, row.sold, row.lines) for row in counted.itertuples()}
    assert rows == {
        ("Women", "Tops"): (2, 2, 7),
        ("Men", "Shirts"): (1, 1, 3),
        ("Women", "Skirts"): (1, 0, 0),
        ("Kids", "(missing)"): (1, 0, 0),
    }


def test_ages_are_weighted_by_lines(basis: Basis) -> None:
    counted = aggregates.count_ages(basis, "group")
    rows = {(row.group, row.age): row.lines for row in counted.itertuples()}
    assert rows == {("Women", 30): 4, ("Men", 30): 1, ("Women", 50): 1, ("Men", 50): 2}
    assert aggregates.count_ages(basis).to_dict("list") == {"age": [30, 50], "lines": [5, 3]}


def test_by_channel_sums_lines_units_and_value(basis: Basis) -> None:
    sums = basis.by_channel.groupby("channel")[["lines", "units", "value"]].sum()
    assert sums.loc["channel 1"].tolist() == [5, 8, 140]
    assert sums.loc["channel 2"].tolist() == [5, 5, 30]


def test_describe_features_counts_missing_and_distinct_values(basis: Basis) -> None:
    described = aggregates.describe_features(basis.articles).set_index("column")
    assert described.loc["section", ["rows", "missing", "distinct", "common", "common_rows"]].tolist() == [
        5,
        1,
        3,
        "Tops",
        2,
    ]
    assert described.loc["known_from", "missing"] == 5
    # Equally common values: the first in order.
    assert described.loc["category", ["common", "common_rows"]].tolist() == ["Shirt", 2]
    customers = aggregates.describe_features(basis.customers).set_index("column")
    assert customers.loc["age", ["missing", "distinct", "low", "high"]].tolist() == [1, 3, 20, 50]
    transactions = aggregates.describe_features(basis.transactions, is_exact=False).set_index("column")
    assert transactions.loc["price", ["missing", "low", "high"]].tolist() == [1, 0, 20]
    assert not {"customer_id", "article_id", "basket_id", "customer_index"} & set(transactions.index)


def test_describe_features_counts_the_values_of_sets() -> None:
    cells = ["wool|cotton", " wool ;silk|wool| |wool", None, "", "|", "cotton"]
    table = ibis.memtable(pd.DataFrame({"material": cells, "other": cells}))
    described = aggregates.describe_features(table, sets=("material",)).set_index("column")
    # wool, cotton, " wool ;silk" and wool again; of the cells that hold something two have each of the first two.
    values = described.loc["material", ["type", "missing", "distinct", "common", "common_rows"]].tolist()
    assert values == ["set", 2, 3, "cotton", 2]
    assert described.loc["other", ["type", "distinct", "common_rows"]].tolist() == ["string", 4, 1]
    split = aggregates.describe_features(table, sets=("material",), set_separator=";").set_index("column")
    assert split.loc["material", "distinct"] == 5
    nothing = ibis.memtable(pd.DataFrame({"material": ["|", " "]}))
    row = aggregates.describe_features(nothing, sets=("material",)).iloc[0]
    assert (row["missing"], row["distinct"], row["common"]) == (0, 0, None)


def test_empty_strings_and_nan_are_missing() -> None:
    table = ibis.memtable(pd.DataFrame({"words": ["", "x", None], "number": [float("nan"), 1.0, 2.0]}))
    described = aggregates.describe_features(table).set_index("column")
    assert described["missing"].to_dict() == {"words": 2, "number": 1}
    assert described.loc["number", ["low", "high"]].tolist() == [1, 2]


def test_temporary_tables_are_dropped() -> None:
    tables = make_tables()
    connection = tables.transactions.get_backend()

    def num_explored() -> int:
        return sum("explored" in row[0] for row in connection.raw_sql("SHOW TABLES").fetchall())

    before = num_explored()
    with count_basis(tables):
        assert num_explored() == before + 3
    assert num_explored() == before
