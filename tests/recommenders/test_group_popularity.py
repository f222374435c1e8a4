"""Popularity by group, by trend and by the categories that one buys, against counting by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders import popularity
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.recommenders import PopularityConfig

MakeView = Callable[[Sequence[tuple[int, int, int]]], View]


def lists(found: pd.DataFrame) -> dict[int, list[int]]:
    return {int(customer): rows["article_index"].tolist() for customer, rows in found.groupby("customer_index")}


@pytest.fixture
def grouped(make_view: MakeView) -> View:
    """Customers 2 and 3 are young, 4 and 5 old, of 6 nothing is known; 3 bought online and in shops, the others nowhere."""
    view = make_view(
        [(2, 2, 9), (2, 3, 9), (3, 3, 8), (3, 4, 9), (4, 5, 9), (5, 5, 9), (5, 2, 9), (6, 2, 9), (6, 2, 8), (6, 7, 1)]
    )
    age = np.array([[0], [0], [2], [2], [3], [3], [0]], np.int32)
    channel = np.where(view.timelines.row == 1, [2], [0]).astype(np.int32)
    categories = np.array([0, 0, 2, 2, 3, 3, 1, 2], np.int32)
    return replace(
        view,
        profile_vocabulary={"age_band": ["young", "old"]},
        profiles=view.profiles._replace(categorical=age),
        timelines=replace(view.timelines, sales_channel_id=channel),
        articles=replace(view.articles, categorical={"group": categories}),
    )


def test_a_group_sees_what_sells_there_and_then_what_sells_to_all(grouped: View) -> None:
    fitted = popularity.fit(grouped, PopularityConfig(days=5, by="age_band"), FitContext("popularity_age_band"))
    found = lists(rank_customers(fitted, grouped, np.arange(1, 7, dtype=np.int32), k=4))
    # Baskets of the last five days: article 2 in four (2, 5 and twice 6), 3 in two, 5 in two, 4 in one; 7 in none.
    everyone = [2, 3, 5, 4]
    # The young bought 3 twice, 2 and 4 once, of which 2 sells better; the old 5 twice and 2 once.
    assert found == {1: everyone, 2: [3, 2, 4, 5], 3: [3, 2, 4, 5], 4: [5, 2, 3, 4], 5: [5, 2, 3, 4], 6: everyone}


def test_values_that_are_missing_or_too_rare_are_no_group(grouped: View) -> None:
    # Of customer 5, who bought 5 and 2, the value is out of vocabulary; the old are 4 alone, who bought 5.
    profiles = grouped.profiles._replace(categorical=np.array([[0], [0], [2], [2], [3], [1], [0]], np.int32))
    view = replace(grouped, profiles=profiles)
    fitted = popularity.fit(view, PopularityConfig(days=5, by="age_band"), FitContext("popularity_age_band"))
    found = lists(rank_customers(fitted, view, np.array([1, 4, 5, 6], np.int32), k=4))
    # A group that bought one article goes on with what sells to everyone.
    assert found == {1: [2, 3, 5, 4], 4: [5, 2, 3, 4], 5: [2, 3, 5, 4], 6: [2, 3, 5, 4]}


def test_the_group_of_a_history_is_its_most_frequent_value(grouped: View) -> None:
    fitted = popularity.fit(grouped, PopularityConfig(days=5, by="sales_channel_id"), FitContext("popularity_channel"))
    found = lists(rank_customers(fitted, grouped, np.array([2, 3], np.int32), k=3))
    # Of channel 2 there is customer 3 alone, who bought 3 and 4; nobody else's channel is known.
    assert found == {2: [2, 3, 5], 3: [3, 4, 2]}


def test_category_popularity_recommends_what_sells_in_the_customers_categories(grouped: View) -> None:
    fitted = popularity.fit(grouped, PopularityConfig(days=5, by="group"), FitContext("popularity_group"))
    found = lists(rank_customers(fitted, grouped, np.arange(1, 7, dtype=np.int32), k=4))
    # Articles 2 and 3 are of one category with 7, which did not sell; 4 and 5 of another. Customer 3 bought 3 a day before
    # 4, so that the second category weighs a little more: 2 * w(4, 5), 1 * w(4), 4 * w(2), 2 * w(3) of nearly equal w.
    assert found == {2: [2, 3], 3: [2, 5, 3, 4], 4: [5, 4], 5: [2, 3, 5, 4], 6: [2, 3]}


def test_an_unknown_group_is_refused(grouped: View) -> None:
    expected = r"recommender\.mine\.by: `size` is no profile feature.* known are age_band, store_id, .*, group"
    with pytest.raises(InputError, match=expected):
        popularity.fit(grouped, PopularityConfig(days=5, by="size"), FitContext("mine"))


def test_growth_counts_and_a_new_article_is_an_average_one(make_view: MakeView) -> None:
    # In the last three days (8 to 10) and in the three before (5 to 7): article 2: 4 and 4, 3: 4 and 1, 4: 1 and 4, 5: 3
    # and none, as it is new.
    rows = [
        *((customer, 2, day) for customer, day in ((2, 8), (3, 8), (4, 9), (5, 9), (2, 5), (3, 5), (4, 6), (5, 6))),
        *((customer, 3, day) for customer, day in ((2, 10), (3, 10), (4, 10), (5, 10), (2, 7))),
        *((customer, 4, day) for customer, day in ((2, 9), (2, 6), (3, 6), (4, 5), (5, 5))),
        *((customer, 5, day) for customer, day in ((3, 9), (4, 8), (5, 8))),
    ]
    view = make_view(rows)
    # 6 is listed as in store without a sale.
    view = replace(view, articles=replace(view.articles, in_store=np.arange(2, 7, dtype=np.int32)))
    found = lists(
        rank_customers(
            popularity.fit(view, PopularityConfig(days=3, trend=True), FitContext("popularity_trend")),
            view,
            np.array([2], np.int32),
            k=9,
        )
    )
    # The average is 3. 2: 4 * 8/8; 3: 4 * 8/5; 4: 1 * 5/8; 5: 3 * 7/7, its past taken for 3; 6: 3 * 7/7.
    assert found == {2: [3, 2, 5, 6, 4]}
