from collections.abc import Callable
from functools import partial
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrs_fashion.evaluation.metrics.rank_tables import check_target_ranks
from tfrs_fashion.evaluation.metrics.target_ranks import (
    customer_auc,
    find_rankable,
    measure_target_ranks,
    place_targets,
    pooled_auc,
    rank_quantile,
    roc_curve,
    share_above,
    spread_evenly,
)
from tfrs_fashion.schema import TARGET_RANK_COLUMNS, InputError


def make_ranks(ranks: dict[int, list[int]], num_ranked: int) -> pd.DataFrame:
    """Target ranks in any order; which articles they are does not matter."""
    rows = [
        (customer, 2 + place, rank, num_ranked, "test")
        for customer, found in ranks.items()
        for place, rank in enumerate(found)
    ]
    return pd.DataFrame(rows, columns=list(TARGET_RANK_COLUMNS)).astype(TARGET_RANK_COLUMNS)


# Six articles ranked. Customer 1 bought those at 2 and 5: of the other four one stands above the first and three above the
# second. Customer 2 bought the last one: all five others stand above.
RANKS = make_ranks({2: [6], 1: [5, 2]}, num_ranked=6)


def test_auc_of_two_customers() -> None:
    assert share_above(RANKS).to_numpy() == pytest.approx([1 / 4, 3 / 4, 5 / 5])
    assert customer_auc(RANKS).to_dict() == pytest.approx({1: 1 - (1 / 4 + 3 / 4) / 2, 2: 0})
    assert pooled_auc(RANKS) == pytest.approx(1 - (1 / 4 + 3 / 4 + 1) / 3)


def test_the_best_order_and_the_worst() -> None:
    assert customer_auc(make_ranks({1: [2, 1, 3]}, num_ranked=9)).tolist() == [1]
    assert customer_auc(make_ranks({1: [9, 7, 8]}, num_ranked=9)).tolist() == [0]


def test_roc_curve() -> None:
    reached = roc_curve(RANKS, np.array([0, 1 / 4, 1 / 2, 3 / 4, 1]))
    assert reached == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 1])


def test_the_area_under_the_curve_is_the_pooled_auc() -> None:
    generator = np.random.default_rng(0)
    ranks = make_ranks({c: (generator.permutation(50)[:3] + 1).tolist() for c in range(40)}, num_ranked=50)
    # 47 articles not bought: the curve is flat between their places, where it is read from the right.
    reached = roc_curve(ranks, np.linspace(0, 1, 48))
    assert reached[:-1].mean() == pytest.approx(pooled_auc(ranks))


@pytest.mark.parametrize(
    ("share", "expected"), [(0.1, 3), (0.25, 3), (0.26, 5), (0.5, 5), (0.75, 8), (0.9, 20), (1.0, 20)]
)
def test_recommendations_needed(share: float, expected: int) -> None:
    ranks = make_ranks({1: [20, 3], 2: [5, 8]}, num_ranked=30)
    assert rank_quantile(ranks, share) == expected


def test_a_share_asks_for_no_target_more_than_it_must() -> None:
    # 0.1 * 30 is 3.0000000000000004.
    ranks = make_ranks({c: [c] for c in range(1, 31)}, num_ranked=40)
    assert rank_quantile(ranks, 0.1) == 3


def test_auc_agrees_with_scikit_learn(skip_or_fail: Callable[[str], NoReturn]) -> None:
    try:
        from sklearn.metrics import roc_auc_score
    except ImportError:
        skip_or_fail("the package scikit-learn is not installed")
    generator = np.random.default_rng(1)
    bought = {c: (generator.permutation(60)[: generator.integers(1, 30)] + 1).tolist() for c in range(1, 80)}
    found = customer_auc(make_ranks(bought, num_ranked=60))
    scores = -np.arange(1, 61)
    for customer, ranks in bought.items():
        assert found[customer] == pytest.approx(roc_auc_score(np.isin(np.arange(1, 61), ranks), scores))


@given(
    st.dictionaries(st.integers(2, 9), st.lists(st.integers(1, 12), min_size=1, max_size=11, unique=True), min_size=1)
)
def test_auc_agrees_with_counting_pairs(bought: dict[int, list[int]]) -> None:
    ranks = make_ranks(bought, num_ranked=12)
    check_target_ranks(ranks, num_articles=12, where="test")
    found = customer_auc(ranks)
    for customer, targets in bought.items():
        others = set(range(1, 13)) - set(targets)
        won = sum(target < other for target in targets for other in others)
        assert found[customer] == pytest.approx(won / (len(targets) * len(others)))
    reached = roc_curve(ranks, np.linspace(0, 1, 201))
    assert (np.diff(reached) >= 0).all()
    assert reached[-1] == 1


def test_figures_have_intervals_that_hold_them() -> None:
    generator = np.random.default_rng(2)
    ranks = make_ranks({c: (generator.permutation(400)[:4] + 1).tolist() for c in range(2, 300)}, num_ranked=400)
    found = measure_target_ranks(ranks, num_samples=400)
    assert set(found) == {"auc", "auc_pooled", "rank_q10", "rank_q50", "rank_q90"}
    for value, low, high in found.values():
        assert low < value < high
    # By chance: the mean of a uniform has the standard deviation 1/sqrt(12) a target, of 1,192.
    value, low, high = found["auc"]
    assert (high - low) / 2 == pytest.approx(1.96 / np.sqrt(12 * 1192), rel=0.15)
    assert found["auc_pooled"].value == pytest.approx(value, abs=1e-2)
    # The median's standard error is 1/2 sqrt(n) of the width 400 of the density.
    value, low, high = found["rank_q50"]
    assert (high - low) / 2 == pytest.approx(1.96 * 400 / (2 * np.sqrt(1192)), rel=0.3)


def test_one_target_has_no_width() -> None:
    found = measure_target_ranks(make_ranks({2: [3]}, num_ranked=5), num_samples=20)
    assert found["auc"] == (1 - 2 / 4, 1 - 2 / 4, 1 - 2 / 4)
    assert found["rank_q50"] == (3, 3, 3)


def test_nothing_to_measure_and_a_share_of_nothing() -> None:
    for measure in (share_above, customer_auc, pooled_auc, partial(roc_curve, shares=np.zeros(1))):
        with pytest.raises(InputError, match="target ranks: there is no row"):
            measure(make_ranks({}, num_ranked=5))
    with pytest.raises(InputError, match="target ranks: there is no row"):
        rank_quantile(make_ranks({}, num_ranked=5), 0.5)
    with pytest.raises(InputError, match=r"`share` is 0; expected above 0, at most 1"):
        rank_quantile(RANKS, 0)


def pairs(rows: list[tuple[int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["customer_index", "article_index"])


def place(lists: list[list[int]], targets: list[tuple[int, int]], *, num: int, offset: float = 0.5) -> pd.DataFrame:
    """Target ranks of customers 2, 3, … where the articles 2, 3, … are in store, `num` of them."""
    customers, in_store = np.arange(2, 2 + len(lists)), np.arange(2, 2 + num)
    offsets = np.full(len(lists), offset)
    found = place_targets(np.array(lists), customers, pairs(targets), in_store, offset=offsets, name="gru")
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == TARGET_RANK_COLUMNS
    check_target_ranks(found, num_articles=50, where="test")
    assert (found["num_ranked"] == num).all()
    return found


def test_targets_named_have_the_places_that_what_is_in_store_has() -> None:
    # Seven in store, 2 to 8. Of customer 2's list 30 and 40 are not: 5 is first, 8 second, 2 third.
    found = place([[30, 5, 40, 8, 2, 0], [4, 3, 2, 0, 0, 0]], [(3, 2), (2, 2), (2, 5)], num=7)
    assert found[["customer_index", "article_index", "rank"]].to_numpy().tolist() == [[2, 2, 3], [2, 5, 1], [3, 2, 3]]
    assert found["source"].tolist() == ["gru"] * 3


@pytest.mark.parametrize(("offset", "ranks"), [(0.1, [3, 6]), (0.5, [4, 7]), (0.9, [5, 8])])
def test_targets_not_named_are_laid_evenly_over_what_is_left(offset: float, ranks: list[int]) -> None:
    # Eight in store; 9 and 3 are named, so that six ranks are left, 3 to 8. For two targets, at the offset 1/2, these are
    # 3 + floor(1/2 * 6/2) = 4 and 3 + floor(3/2 * 6/2) = 7; at 1/10, 3 + floor(0.3) and 3 + floor(3.3).
    found = place([[9, 3]], [(2, 3), (2, 4), (2, 7)], num=8, offset=offset)
    assert found["rank"].tolist() == [2, *ranks]
    assert found["source"].tolist() == ["gru", "", ""]


def test_all_that_is_left_is_bought() -> None:
    # Left are the ranks 2 and 3 for two targets: each has one, whatever the offset.
    for offset in (0.01, 0.5, 0.99):
        assert place([[4]], [(2, 2), (2, 3)], num=3, offset=offset)["rank"].tolist() == [2, 3]


def ranks_of_nothing_named(targets: list[tuple[int, int]], *, num: int) -> pd.DataFrame:
    customers = np.unique([customer for customer, _article in targets])
    lists = np.zeros((len(customers), 4), dtype=np.int32)
    offset = spread_evenly(len(customers), seed=3)
    return place_targets(lists, customers, pairs(targets), np.arange(2, 2 + num), offset=offset, name="gru")


def test_who_names_nothing_has_the_figures_of_chance() -> None:
    # The offsets of 100 customers are 1/200, 3/200, …: each of the 50 ranks is taken by two.
    found = ranks_of_nothing_named([(customer, 2) for customer in range(2, 102)], num=50)
    assert found["rank"].value_counts().to_dict() == dict.fromkeys(range(1, 51), 2)
    assert customer_auc(found).mean() == pytest.approx(0.5, abs=1e-12)
    assert pooled_auc(found) == pytest.approx(0.5, abs=1e-12)
    assert [rank_quantile(found, share) for share in (0.1, 0.5, 0.9)] == [5, 25, 45]
    # Bought ones among 50, the curve is the diagonal, but for the steps of 49 others.
    shares = np.linspace(0, 1, 201)
    reached = roc_curve(found, shares)
    assert np.abs(reached - shares).max() <= 1 / 49 + 1e-9


def test_who_names_nothing_has_the_figures_of_chance_however_much_is_bought() -> None:
    # 300 customers, who bought 1 to 9 of 40. Chance alone would make the mean of so few differ by 0.01.
    generator = np.random.default_rng(5)
    bought = {customer: generator.permutation(40)[: generator.integers(1, 10)] + 2 for customer in range(2, 302)}
    found = ranks_of_nothing_named([(c, article) for c, articles in bought.items() for article in articles], num=40)
    check_target_ranks(found, num_articles=40, where="test")
    assert customer_auc(found).mean() == pytest.approx(0.5, abs=0.02)
    assert pooled_auc(found) == pytest.approx(0.5, abs=0.01)
    assert [rank_quantile(found, share) for share in (0.1, 0.5, 0.9)] == pytest.approx([4, 20, 36], abs=1)


def test_who_names_what_is_bought_alone_is_perfect() -> None:
    found = place([[7, 3], [5, 0]], [(2, 3), (2, 7), (3, 5)], num=9)
    assert customer_auc(found).tolist() == [1, 1]
    assert rank_quantile(found, 1.0) == 2


def test_a_rank_depends_on_no_other_target_that_is_named() -> None:
    lists = [[4, 9, 3, 6, 2]]
    alone = [int(place(lists, [(2, article)], num=8)["rank"].iloc[0]) for article in lists[0]]
    together = place(lists, [(2, article) for article in lists[0]], num=8).set_index("article_index")["rank"]
    assert alone == together[lists[0]].tolist() == [1, 2, 3, 4, 5]


def test_offsets_are_spread_evenly_and_dealt_by_the_seed() -> None:
    assert np.sort(spread_evenly(4, seed=1)).tolist() == [1 / 8, 3 / 8, 5 / 8, 7 / 8]
    assert spread_evenly(50, seed=1).tolist() == spread_evenly(50, seed=1).tolist()
    assert spread_evenly(50, seed=1).tolist() != spread_evenly(50, seed=2).tolist()
    assert spread_evenly(0, seed=1).tolist() == []


def test_an_article_named_twice_is_refused() -> None:
    # What is not in store may stand there as often as it likes, and counts nowhere.
    place([[30, 30, 5, 0]], [(2, 5)], num=7)
    with pytest.raises(InputError, match=r"^gru: 1 of 2 lists name an article twice, .* names each article once\.$"):
        place([[5, 3, 5, 0], [5, 3, 0, 0]], [(2, 3)], num=7)


def test_what_is_rankable_is_in_store_and_not_all_of_it() -> None:
    # Article 9 is not in store, and customer 4 bought both that are; customer 2's line comes twice.
    bought = pairs([(4, 3), (2, 3), (2, 3), (2, 9), (3, 9), (4, 2), (5, 2)])
    found = find_rankable(bought, np.array([2, 3]))
    assert found.to_numpy().tolist() == [[2, 3], [5, 2]]
    assert find_rankable(bought, np.array([7])).empty
