import ibis
import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.features.relevance import classify, count_pairs, describe_pairs, list_orders

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2024-03-01")
# Customer, article, basket, day, pieces, price.
ROWS = [
    (2, 3, "a", 0, 1, 2.0),
    (2, 3, "a", 0, 2, 2.0),
    (2, 3, "b", 5, 4, 1.5),
    (2, 4, "b", 5, 1, 9.0),
    (3, 3, "c", 7, 30, None),
    (1, 3, "d", 7, 5, 1.0),
]


@pytest.fixture(scope="module")
def rows() -> ibis.Table:
    frame = pd.DataFrame(ROWS, columns=["customer_index", "article_index", "basket_id", "day", "quantity", "price"])
    frame["t_dat"] = START + frame.pop("day") * DAY
    frame["price"] = frame["price"].astype("float64")
    return ibis.memtable(frame)


@pytest.fixture(scope="module")
def pairs(rows: ibis.Table) -> pd.DataFrame:
    return count_pairs(rows)


def test_pairs_are_counted_by_baskets_and_anonymous_ones_left_out(pairs: pd.DataFrame) -> None:
    assert pairs[["customer_index", "article_index"]].to_numpy().tolist() == [[2, 3], [2, 4], [3, 3]]
    assert pairs["num_orders"].tolist() == [2, 1, 1]
    assert pairs["total_quantity"].tolist() == [7, 1, 30]
    assert pairs["total_price"].tolist()[:2] == [1 * 2 + 2 * 2 + 4 * 1.5, 9]
    assert np.isnan(pairs["total_price"].iloc[2])


def test_classes_by_orders_and_by_orders_and_quantity() -> None:
    pairs = pd.DataFrame(
        {
            "article_index": [2, 2, 2, 2, 2, 3],
            "num_orders": [1, 2, 3, 4, 5, 1],
            "total_quantity": [1, 2, 30, 4, 50, 100],
        }
    )
    assert classify(pairs, medium_from=3, high_from=5).tolist() == [0, 0, 1, 1, 2, 0]
    # Of article 2 a piece an order is usual; ten are bulk, but nothing is above high. Of article 3 there is one pair alone.
    assert classify(pairs, medium_from=3, high_from=5, bulk_factor=2).tolist() == [0, 0, 2, 1, 2, 0]


def test_pairs_are_described_beside_their_customer_and_their_article(rows: ibis.Table, pairs: pd.DataFrame) -> None:
    told = describe_pairs(pairs, list_orders(rows), as_of=(START + 10 * DAY).to_pydatetime())
    first = told.iloc[0]
    assert (first["days_since"], first["days_since_first"]) == (5, 10)
    assert (first["customer_articles"], first["customer_orders"], first["customer_most_orders"]) == (2, 3, 2)
    assert (first["article_customers"], first["article_orders"], first["article_days_since"]) == (2, 3, 3)
    assert (first["orders_per_article"], first["orders_per_customer"], first["pieces_per_order"]) == (1.5, 1.5, 3.5)
    assert told["order_share"].tolist() == [1, 0.5, 1]
    assert (first["gap_days"], first["gap_ratio"]) == (5, 1)
    assert np.isnan(told[["gap_days", "gap_ratio"]].to_numpy()[1:]).all()


def test_pair_features_count_the_customers_baskets(rows: ibis.Table, pairs: pd.DataFrame) -> None:
    told = describe_pairs(pairs, list_orders(rows), as_of=(START + 10 * DAY).to_pydatetime())
    assert told["baskets"].tolist() == [2, 2, 1]
    assert told["baskets_since_first"].tolist() == [2, 1, 1]
    assert told["baskets_since_last"].tolist() == [0, 0, 0]
    later = ibis.memtable(pd.DataFrame([(2, 4, "e", 1, 9.0, START + 8 * DAY)], columns=rows.columns))
    orders = list_orders(rows.union(later))
    again = describe_pairs(count_pairs(rows.union(later)), orders, as_of=(START + 10 * DAY).to_pydatetime())
    assert again["baskets_since_last"].tolist() == [1, 0, 0]
    assert told["basket_share"].tolist() == [1, 0.5, 1]
    assert told["basket_share_since_first"].tolist() == [1, 1, 1]
    # The third customer came three days ago: a rate over less than a week is none.
    assert told["baskets_per_day"].tolist() == [0.2, 0.2, 1 / 7]
    ten, five, three = (0.5 ** (days / 15) for days in (10, 5, 3))
    assert told["decayed_15d"].tolist() == pytest.approx([ten + five, five, three])
    assert told["customer_decayed_15d"].tolist() == pytest.approx([ten + five, ten + five, three])
    assert told["article_decayed_15d"].tolist() == pytest.approx([ten + five + three, five, ten + five + three])
    assert told["basket_share_decayed_15d"].tolist() == pytest.approx([1, five / (ten + five), 1])
