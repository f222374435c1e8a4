"""Purchases as matrices, against counting with pandas, and by hand."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import ibis
import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.features.purchase_matrices import (
    age_days,
    basket_matrix,
    customer_matrix,
    list_in_store_by_week,
    number_baskets,
    previous_baskets,
)
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import OUT_OF_VOCABULARY_INDEX


@pytest.fixture(scope="module")
def lines(view: View) -> pd.DataFrame:
    """The visible lines of customers who are told apart, with the age in days of each."""
    found = view.transactions.execute()
    found = found[found["customer_index"] > 1]
    # Timelines hold whole seconds.
    found["age"] = (view.split.as_of - found["t_dat"].dt.floor("s")).dt.total_seconds() / 86_400
    return found.drop_duplicates(["customer_index", "t_dat", "article_index"])


def test_baskets_are_numbered_in_the_order_of_the_timelines(view: View, lines: pd.DataFrame) -> None:
    number = number_baskets(view)
    assert (np.diff(number) >= 0).all()
    assert number.max() + 1 == len(lines.drop_duplicates(["customer_index", "t_dat"]))
    assert (age_days(view) >= 0).all()


def test_a_basket_holds_each_article_once(view: View, lines: pd.DataFrame) -> None:
    matrix = basket_matrix(view)
    assert matrix.sum() == len(lines)
    assert set(matrix.data) == {1.0}
    recent = basket_matrix(view, days=10)
    assert recent.shape == matrix.shape
    assert recent.sum() == (lines["age"] <= 10).sum() > 0


@pytest.mark.parametrize("half_life_days", [None, 5.0, 1000.0])
def test_customers_weigh_articles_by_their_baskets(
    view: View, lines: pd.DataFrame, half_life_days: float | None
) -> None:
    weight = 1.0 if half_life_days is None else np.exp(-np.log(2) * lines["age"] / half_life_days)
    expected = lines.assign(weight=weight).groupby(["customer_index", "article_index"])["weight"].sum()
    matrix = customer_matrix(view, half_life_days=half_life_days)
    assert matrix.nnz == len(expected)
    customer, article = expected.index.to_frame().to_numpy().T
    assert np.asarray(matrix[customer, article]).ravel() == pytest.approx(expected.to_numpy(), rel=1e-5)


def test_what_was_bought_before_a_basket_is_not_what_is_in_it(view: View, lines: pd.DataFrame) -> None:
    """Two baskets back, each weighing half for every four days between."""
    matrix = previous_baskets(view, num_baskets=2, half_life_days=4.0).tocsr()
    number = number_baskets(view)
    first = np.unique(number, return_index=True)[1]
    customer, second = view.timelines.row[first] + 2, view.timelines.time[first]
    baskets = {
        key: rows["article_index"].to_numpy()
        for key, rows in lines.assign(second=lines["t_dat"].astype("int64") // 10**6).groupby(
            ["customer_index", "second"]
        )
    }
    compared = 0
    for basket in range(0, len(first), 37):
        expected: dict[int, float] = {}
        for back in (1, 2):
            if basket < back or customer[basket - back] != customer[basket]:
                continue
            days = (second[basket] - second[basket - back]) / 86_400
            for article in baskets[customer[basket], second[basket - back]]:
                expected[int(article)] = expected.get(int(article), 0.0) + 2.0 ** (-days / 4.0)
        row = matrix[basket]
        found = dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
        assert found == pytest.approx(expected, rel=1e-4)
        compared += bool(expected)
    assert compared > 5


def test_the_catalogue_says_what_was_in_store_and_sales_where_it_does_not(
    make_view: Callable[[Sequence[tuple[int, int, int]]], View],
) -> None:
    # The cutoff is 11 January, so the last week begins on the 4th and the one before it on 28 December.
    view = make_view([(2, 2, 2), (2, 3, 5), (3, 4, 10), (3, OUT_OF_VOCABULARY_INDEX, 10)])
    told = {
        "article_index": [2, 3, 4, 5, 6],
        # 5 came on the 6th, 6 went on the 2nd; of the others nothing is said.
        "available_from": [None, None, None, "2024-01-06", None],
        "available_to": [None, None, None, None, "2024-01-02"],
    }
    frame = pd.DataFrame(told)
    frame["article_index"] = frame["article_index"].astype("int32")
    for name in ("available_from", "available_to"):
        frame[name] = pd.to_datetime(frame[name])
    with_dates = replace(view, tables=replace(view.tables, articles=ibis.memtable(frame)))

    def weeks(seen: View, *, num_weeks: int, in_store_days: int) -> list[list[int]]:
        splits, articles = list_in_store_by_week(seen, num_weeks=num_weeks, in_store_days=in_store_days)
        return [articles[start:end].tolist() for start, end in itertools.pairwise(splits)]

    # Bought on the 2nd, the 5th and the 10th.
    assert weeks(view, num_weeks=2, in_store_days=1) == [[3, 4], [2]]
    assert weeks(view, num_weeks=2, in_store_days=7) == [[2, 3, 4], [2]]
    assert weeks(with_dates, num_weeks=2, in_store_days=1) == [[3, 4, 5], [2, 6]]
    # Nothing had been sold: everything that ever was.
    assert weeks(view, num_weeks=3, in_store_days=1)[2] == [2, 3, 4]
