"""Tables of neighbours against dense matrices, and what they answer against sums over histories."""

import datetime
from collections.abc import Callable
from dataclasses import replace

import ibis
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from tfrs_fashion.features.purchase_matrices import age_days, basket_matrix, customer_matrix, number_baskets
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.customer_knn import list_latest
from tfrs_fashion.recommenders.kinds import fit_recommender
from tfrs_fashion.recommenders.neighbours import Neighbours, nearest
from tfrs_fashion.recommenders.recommender import FitContext, Recommender
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.schema import FIRST_INDEX, InputError
from tfrs_fashion.settings.recommenders import (
    BasketPairsConfig,
    CoVisitationConfig,
    CustomerKnnConfig,
    GraphFilterConfig,
    ItemKnnConfig,
    SameProductConfig,
)

HALF_LIFE_DAYS = 20.0
ALL = 10**4
READ = {"num_neighbours": ALL, "history_articles": ALL, "half_life_days": HALF_LIFE_DAYS}


@pytest.fixture(scope="module")
def history(view: View) -> np.ndarray:
    """`[num_customers + 2, num_articles + 2]`: what a history weighs at the cutoff."""
    return customer_matrix(view, half_life_days=HALF_LIFE_DAYS).toarray().astype(np.float64)


def in_store_only(view: View, table: np.ndarray) -> np.ndarray:
    kept = np.zeros_like(table)
    kept[:, view.articles.in_store] = table[:, view.articles.in_store]
    return kept


def check_order(recommender: Recommender, view: View, expected: np.ndarray, *, k: int = 30) -> None:
    """Compares the lists of all customers with a dense matrix of scores, near-ties aside."""
    customers = np.arange(FIRST_INDEX, len(expected), dtype=np.int32)
    found = rank_customers(recommender, view, customers, k=k)
    by_customer = {customer: rows["article_index"].to_numpy() for customer, rows in found.groupby("customer_index")}
    compared = 0
    for customer in customers:
        scores = expected[customer]
        best = np.sort(scores[scores > 1e-9])[::-1][:k]
        articles = by_customer.get(customer, np.zeros(0, np.int32))
        assert len(articles) == len(best)
        assert scores[articles] == pytest.approx(best, rel=1e-4)
        compared += len(best)
    assert compared > 1000


def test_the_nearest_are_the_largest_entries_of_the_product() -> None:
    random = np.random.default_rng(3)
    # More rows than a block holds; small integers make many ties.
    left = csr_matrix(random.integers(0, 3, (1100, 7)) * (random.random((1100, 7)) < 0.4))
    right = csr_matrix(random.integers(0, 3, (7, 50)) * (random.random((7, 50)) < 0.4))
    product = (left @ right).toarray()
    neighbour, weight = nearest(left, right, num_neighbours=6)
    for row in range(len(product)):
        order = [column for column in np.lexsort([np.arange(50), -product[row]])[:6] if product[row, column] > 0]
        assert neighbour[row].tolist() == order + [0] * (6 - len(order))
        assert weight[row].tolist() == product[row, order].tolist() + [0] * (6 - len(order))


def test_entries_are_weighted_before_the_largest_are_selected() -> None:
    product = np.array([[4.0, 3.0, 2.0], [1.0, 0.0, 5.0]])
    neighbour, weight = nearest(
        csr_matrix(np.eye(2)),
        csr_matrix(product),
        num_neighbours=2,
        weigh=lambda row, column, entry: np.where(row == column, 0.0, entry / (1 + column)),
    )
    # Row 0: 3/2 and 2/3, its own left out; row 1: 1/1 and 5/3.
    assert neighbour.tolist() == [[1, 2], [2, 0]]
    assert weight == pytest.approx(np.array([[3 / 2, 2 / 3], [5 / 3, 1.0]]))


def test_item_knn_adds_up_cosines(view: View, history: np.ndarray) -> None:
    counts = customer_matrix(view).toarray().astype(np.float64)
    length = np.linalg.norm(counts, axis=0)
    cosine = counts.T @ counts / np.maximum(np.outer(length, length), 1e-12)
    fitted = fit_recommender(
        view, ItemKnnConfig(similarity="cosine", matrix_half_life_days=0, **READ), FitContext("item_knn")
    )
    check_order(fitted, view, history @ in_store_only(view, cosine))


def test_bm25_saturates_and_favours_customers_who_buy_little(view: View, history: np.ndarray) -> None:
    counts = customer_matrix(view).toarray().astype(np.float64)
    bought = counts > 0
    num_articles = bought.any(axis=0).sum()
    rarity = np.log(num_articles / (1.0 + bought.sum(axis=1)))
    total = counts.sum(axis=0)
    norm = 1 - 0.75 + 0.75 * total / (total.sum() / num_articles)
    weighted = np.where(bought, counts * 2.2 / (1.2 * norm + counts), 0.0) * np.maximum(rarity, 0.0)[:, np.newaxis]
    fitted = fit_recommender(
        view, ItemKnnConfig(similarity="bm25", matrix_half_life_days=0, **READ), FitContext("item_knn_bm25")
    )
    check_order(fitted, view, history @ in_store_only(view, weighted.T @ weighted))


def test_pairs_are_weighed_by_lift(view: View, history: np.ndarray) -> None:
    baskets = basket_matrix(view, days=60).toarray().astype(np.float64)
    together, held = baskets.T @ baskets, baskets.sum(axis=0)
    num_baskets = (baskets.sum(axis=1) > 0).sum()
    lift = together * num_baskets / np.maximum(np.outer(held, held), 1e-12)
    lift[(together < 3) | (lift <= 1) | np.eye(len(lift), dtype=bool)] = 0.0
    fitted = fit_recommender(view, BasketPairsConfig(days=60, min_baskets=3, **READ), FitContext("basket_pairs"))
    check_order(fitted, view, history @ in_store_only(view, lift))


@pytest.mark.parametrize("popularity_power", [0.0, 0.5])
def test_co_visitation_counts_what_came_later(view: View, history: np.ndarray, popularity_power: float) -> None:
    baskets = basket_matrix(view).toarray().astype(np.float64)
    first = np.unique(number_baskets(view), return_index=True)[1]
    row, day = view.timelines.row[first], view.timelines.time[first] / 86_400
    fresh = 0.5 ** (age_days(view)[first] / 50.0)
    counted = np.zeros((baskets.shape[1], baskets.shape[1]))
    followed = np.zeros(baskets.shape[1])
    for later in range(len(baskets)):
        for earlier in range(max(0, later - 2), later):
            if row[earlier] == row[later]:
                former = baskets[earlier] * 0.5 ** ((day[later] - day[earlier]) / 7.0)
                counted += np.outer(former, baskets[later] * fresh[later])
                followed += former
    sold = (baskets * fresh[:, np.newaxis]).sum(axis=0)
    share = counted / (np.maximum(followed, 1.0)[:, np.newaxis] * np.maximum(sold, 1e-12) ** popularity_power)
    fitted = fit_recommender(
        view,
        CoVisitationConfig(
            num_baskets=2, gap_half_life_days=7.0, matrix_half_life_days=50.0, popularity_power=popularity_power, **READ
        ),
        FitContext("co_visitation"),
    )
    check_order(fitted, view, history @ in_store_only(view, share))


def test_co_visitation_knows_the_direction_of_time(make_view: Callable[[list[tuple[int, int, int]]], View]) -> None:
    """Shoes are bought before laces, by everyone, and never after."""
    shoes, laces, hat = 2, 3, 4
    days = [(customer, article, day) for customer in range(2, 12) for article, day in ((shoes, 1), (laces, 5))]
    view = make_view([*days, (12, shoes, 9), (13, laces, 9), (14, hat, 9)])
    fitted = fit_recommender(
        view,
        CoVisitationConfig(
            num_baskets=1,
            gap_half_life_days=10.0,
            matrix_half_life_days=10.0,
            popularity_power=0.0,
            num_neighbours=5,
            history_articles=5,
            half_life_days=10.0,
        ),
        FitContext("co_visitation"),
    )
    found = rank_customers(fitted, view, np.array([12, 13, 14], np.int32), k=3)
    assert found[["customer_index", "article_index"]].to_numpy().tolist() == [[12, laces]]


def test_the_same_product_is_every_other_colour_by_its_sales(
    make_view: Callable[[list[tuple[int, int, int]]], View],
) -> None:
    view = make_view([(2, 2, 9), (3, 3, 8), (4, 4, 8), (5, 4, 8), (6, 5, 9), (7, 6, 1)])
    designs = pd.DataFrame({"article_index": [2, 3, 4, 5, 6, 7], "product_code": ["a", "a", "a", "b", None, "a"]})
    view = replace(view, tables=replace(view.tables, articles=ibis.memtable(designs)))
    fitted = fit_recommender(
        view,
        SameProductConfig(days=5, num_neighbours=5, history_articles=5, half_life_days=10.0),
        FitContext("same_product"),
    )
    found = rank_customers(fitted, view, np.arange(2, 8, dtype=np.int32), k=5)
    # 4 sold twice, 2 and 3 once; 7 is of the design, but not in store; 5 and 6 have no sibling.
    assert found[["customer_index", "article_index"]].to_numpy().tolist() == [
        *([2, 4], [2, 3]),
        *([3, 4], [3, 2]),
        *([4, 2], [4, 3]),
        *([5, 2], [5, 3]),
    ]


@pytest.mark.parametrize("codes", [[None] * 6, None])
def test_the_same_product_needs_designs(
    make_view: Callable[[list[tuple[int, int, int]]], View], codes: list[None] | None
) -> None:
    view = make_view([(2, 2, 9)])
    frame = pd.DataFrame({"article_index": np.arange(2, 8)})
    if codes is not None:
        frame["product_code"] = pd.Series(codes, dtype="string")
    view = replace(view, tables=replace(view.tables, articles=ibis.memtable(frame)))
    with pytest.raises(InputError, match=r"shoes: the articles have no `product_code`.* or leave shoes out"):
        fit_recommender(
            view,
            SameProductConfig(days=5, num_neighbours=5, history_articles=5, half_life_days=10.0),
            FitContext("shoes"),
        )


def test_the_latest_come_first_and_once() -> None:
    row = np.array([0, 0, 0, 2, 2, 0])
    value = np.array([5, 6, 5, 9, 8, 7])
    time = np.array([1, 2, 3, 4, 4, 0])
    found = list_latest(row, value, time, num_rows=4, limit=2)
    assert found.tolist() == [[5, 6], [0, 0], [8, 9], [0, 0]]


def test_customers_alike_share_what_they_bought_lately(
    make_view: Callable[[list[tuple[int, int, int]]], View],
) -> None:
    """Customer 2 has 2 and 3 in common with customer 3, and 4, which everyone buys, with customers 4 to 9."""
    common = [(customer, 4, 8) for customer in range(4, 10)]
    view = make_view([(2, 2, 9), (2, 3, 9), (2, 4, 9), (3, 2, 7), (3, 3, 7), (3, 5, 8), *common, (4, 6, 8)])
    fitted = fit_recommender(
        view,
        CustomerKnnConfig(num_buyers=10, num_recent=2, num_neighbours=1, history_articles=5, half_life_days=10.0),
        FitContext("customer_knn"),
    )
    found = rank_customers(fitted, view, np.array([2], np.int32), k=5)
    # The nearest customer's two latest articles: 5, and of 2 and 3 the lower; never what customer 2 alone bought.
    assert sorted(found["article_index"]) == [2, 5]


def test_customer_knn_equals_sums_over_all_customers(view: View, history: np.ndarray) -> None:
    counts = customer_matrix(view).toarray()
    bought = (counts > 0).astype(np.float64)
    rarity = np.log1p(len(bought) / (1.0 + bought.sum(axis=0)))
    length = np.sqrt(np.maximum(bought.sum(axis=1), 1.0))
    similarity = history * rarity @ bought.T / length
    np.fill_diagonal(similarity, 0.0)
    fitted = fit_recommender(
        view,
        CustomerKnnConfig(
            num_buyers=ALL // 10,
            num_recent=ALL // 10,
            num_neighbours=ALL,
            history_articles=ALL,
            half_life_days=HALF_LIFE_DAYS,
        ),
        FitContext("customer_knn"),
    )
    check_order(fitted, view, similarity @ in_store_only(view, bought))


def test_the_graph_filter_keeps_the_smoothest_directions(view: View, history: np.ndarray) -> None:
    counts = customer_matrix(view).toarray().astype(np.float64)
    by_customer, by_article = counts.sum(axis=1), counts.sum(axis=0)
    scale = [np.where(total > 0, 1 / np.sqrt(np.maximum(total, 1e-12)), 0.0) for total in (by_customer, by_article)]
    normalised = scale[0][:, np.newaxis] * counts * scale[1]
    vectors = np.linalg.svd(normalised)[2][:5]
    expected = (history * scale[1]) @ vectors.T @ (vectors * np.sqrt(by_article))
    fitted = fit_recommender(
        view,
        GraphFilterConfig(dim=5, matrix_half_life_days=0, half_life_days=HALF_LIFE_DAYS),
        FitContext("graph_filter"),
    )
    candidates = view.articles.in_store
    customers = np.arange(FIRST_INDEX, 60, dtype=np.int32)
    found = rank_customers(fitted, view, customers, k=10)
    for customer, rows in found.groupby("customer_index"):
        scores = expected[customer]
        best = np.sort(scores[candidates])[::-1][:10]
        assert scores[rows["article_index"]] == pytest.approx(best, rel=1e-3, abs=1e-6)


def test_customers_outside_the_largest_component_take_no_direction_of_the_graph(
    make_view: Callable[[list[tuple[int, int, int]]], View],
) -> None:
    # A path through the articles 2 to 5, and after it two customers with an article each that nobody else bought.
    joined = [(2 + place, article, 9) for place in range(3) for article in (2 + place, 3 + place)]
    alone = [(5 + place, 6 + place, 9) for place in range(2)]
    settings = {"dim": 2, "matrix_half_life_days": 0, "half_life_days": 5.0}
    customers = np.arange(2, 5, dtype=np.int32)
    expected, found = (
        rank_customers(
            fit_recommender(view, GraphFilterConfig(**settings), FitContext("graph_filter")), view, customers, k=3
        )
        for view in (make_view(joined), make_view([*joined, *alone]))
    )
    assert found.to_numpy().tolist() == expected.to_numpy().tolist()
    everyone = make_view([*joined, *alone])
    assert rank_customers(
        fit_recommender(everyone, GraphFilterConfig(**settings), FitContext("graph_filter")),
        everyone,
        np.arange(5, 7, dtype=np.int32),
        k=3,
    ).empty


def test_a_graph_of_one_customer_is_refused(make_view: Callable[[list[tuple[int, int, int]]], View]) -> None:
    view = make_view([(2, 2, 9), (2, 3, 9)])
    with pytest.raises(InputError, match=r"graph_filter: 1 customer\(s\) bought 2 article\(s\) before the cutoff"):
        fit_recommender(
            view, GraphFilterConfig(dim=5, matrix_half_life_days=0, half_life_days=5.0), FitContext("graph_filter")
        )


def test_articles_that_came_after_the_table_have_no_neighbours(
    make_view: Callable[[list[tuple[int, int, int]]], View],
) -> None:
    view = make_view([(2, 2, 9), (2, 7, 9), (3, 7, 9)])
    small = Neighbours(
        np.array([[0], [0], [3], [2]], np.int32),
        np.array([[0], [0], [1.0], [1.0]], np.float32),
        history_articles=5,
        half_life_days=10.0,
        kind="item_knn",
        name="small",
    )
    found = rank_customers(small, view, np.array([2, 3], np.int32), k=2)
    assert found[["customer_index", "article_index"]].to_numpy().tolist() == [[2, 3]]


def test_ages_run_to_the_cutoff(make_view: Callable[[list[tuple[int, int, int]]], View]) -> None:
    view = make_view([(2, 2, 9), (2, 3, 1)])
    assert view.split.as_of == datetime.datetime(2024, 1, 11)
    assert sorted(age_days(view).tolist()) == [1.5, 9.5]
