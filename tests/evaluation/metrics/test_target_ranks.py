from collections.abc import Callable
from functools import partial
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrs_fashion.evaluation.metrics.table_checks import check_target_ranks
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
    """Makes TargetRanks from the ranks per customer; the articles are arbitrary."""
    rows = [
        (customer, 2 + place, rank, num_ranked, "test")
        for customer, found in ranks.items()
        for place, rank in enumerate(found)
    ]
    return pd.DataFrame(rows, columns=list(TARGET_RANK_COLUMNS)).astype(TARGET_RANK_COLUMNS)


# Six articles ranked. Customer 1 bought those at ranks 2 and 5: of the other four, one ranks above the first and three
# above the second. Customer 2 bought the last one: all five others rank above it.
RANKS = make_ranks({2: [6], 1: [5, 2]}, num_ranked=6)


def test_auc_of_two_customers_equals_hand_worked_fractions() -> None:
    assert share_above(RANKS).to_numpy() == pytest.approx([1 / 4, 3 / 4, 5 / 5])
    assert customer_auc(RANKS).to_dict() == pytest.approx({1: 1 - (1 / 4 + 3 / 4) / 2, 2: 0})
    assert pooled_auc(RANKS) == pytest.approx(1 - (1 / 4 + 3 / 4 + 1) / 3)


def test_auc_is_1_for_the_best_order_and_0_for_the_worst() -> None:
    assert customer_auc(make_ranks({1: [2, 1, 3]}, num_ranked=9)).tolist() == [1]
    assert customer_auc(make_ranks({1: [9, 7, 8]}, num_ranked=9)).tolist() == [0]


def test_roc_curve_of_two_customers_equals_hand_worked_fractions() -> None:
    reached = roc_curve(RANKS, np.array([0, 1 / 4, 1 / 2, 3 / 4, 1]))
    assert reached == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 1])


def test_area_under_the_roc_curve_is_the_pooled_auc() -> None:
    generator = np.random.default_rng(0)
    ranks = make_ranks({c: (generator.permutation(50)[:3] + 1).tolist() for c in range(40)}, num_ranked=50)
    # 47 articles not bought: the curve is flat between their places, where it is read from the right.
    reached = roc_curve(ranks, np.linspace(0, 1, 48))
    assert reached[:-1].mean() == pytest.approx(pooled_auc(ranks))


@pytest.mark.parametrize(
    ("share", "expected"), [(0.1, 3), (0.25, 3), (0.26, 5), (0.5, 5), (0.75, 8), (0.9, 20), (1.0, 20)]
)
def test_rank_quantile_is_the_lowest_rank_that_reaches_the_share(share: float, expected: int) -> None:
    ranks = make_ranks({1: [20, 3], 2: [5, 8]}, num_ranked=30)
    assert rank_quantile(ranks, share) == expected


def test_rank_quantile_is_not_raised_by_rounding() -> None:
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


def test_metrics_lie_within_their_intervals_of_the_normal_width() -> None:
    generator = np.random.default_rng(2)
    ranks = make_ranks({c: (generator.permutation(400)[:4] + 1).tolist() for c in range(2, 300)}, num_ranked=400)
    found = measure_target_ranks(ranks, num_samples=400)
    assert set(found) == {"auc", "auc_pooled", "rank_q10", "rank_q50", "rank_q90"}
    for value, low, high in found.values():
        assert low < value < high
    # Random ranks: the mean of 1,192 uniform values has the standard error 1/sqrt(12 * 1192).
    value, low, high = found["auc"]
    assert (high - low) / 2 == pytest.approx(1.96 / np.sqrt(12 * 1192), rel=0.15)
    assert found["auc_pooled"].value == pytest.approx(value, abs=1e-2)
    # The median's standard error is 400 / (2 sqrt(n)) for a uniform density of width 400.
    value, low, high = found["rank_q50"]
    assert (high - low) / 2 == pytest.approx(1.96 * 400 / (2 * np.sqrt(1192)), rel=0.3)


def test_interval_of_one_target_has_no_width() -> None:
    found = measure_target_ranks(make_ranks({2: [3]}, num_ranked=5), num_samples=20)
    assert found["auc"] == (1 - 2 / 4, 1 - 2 / 4, 1 - 2 / 4)
    assert found["rank_q50"] == (3, 3, 3)


def test_empty_ranks_and_a_share_of_0_are_refused() -> None:
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
    """Places targets of the customers 2, 3, … when `num` articles 2, 3, … are in store."""
    customers, in_store = np.arange(2, 2 + len(lists)), np.arange(2, 2 + num)
    offsets = np.full(len(lists), offset)
    found = place_targets(np.array(lists), customers, pairs(targets), in_store, offset=offsets, name="gru")
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == TARGET_RANK_COLUMNS
    check_target_ranks(found, num_articles=50, where="test")
    assert (found["num_ranked"] == num).all()
    return found


def test_listed_target_has_its_rank_among_articles_in_store() -> None:
    # Seven in store, 2 to 8. Of customer 2's list 30 and 40 are not: 5 is first, 8 second, 2 third.
    found = place([[30, 5, 40, 8, 2, 0], [4, 3, 2, 0, 0, 0]], [(3, 2), (2, 2), (2, 5)], num=7)
    assert found[["customer_index", "article_index", "rank"]].to_numpy().tolist() == [[2, 2, 3], [2, 5, 1], [3, 2, 3]]
    assert found["source"].tolist() == ["gru"] * 3


@pytest.mark.parametrize(("offset", "ranks"), [(0.1, [3, 6]), (0.5, [4, 7]), (0.9, [5, 8])])
def test_unlisted_targets_are_spaced_evenly_over_the_remaining_ranks(offset: float, ranks: list[int]) -> None:
    # Eight in store; 9 and 3 are listed, so six ranks are left, 3 to 8. Two targets at the offset 1/2 get
    # 3 + floor(1/2 * 6/2) = 4 and 3 + floor(3/2 * 6/2) = 7; at 1/10, 3 + floor(0.3) and 3 + floor(3.3).
    found = place([[9, 3]], [(2, 3), (2, 4), (2, 7)], num=8, offset=offset)
    assert found["rank"].tolist() == [2, *ranks]
    assert found["source"].tolist() == ["gru", "", ""]


def test_unlisted_targets_that_fill_the_remaining_ranks_get_one_each() -> None:
    # The ranks 2 and 3 are left for two targets: each gets one, whatever the offset.
    for offset in (0.01, 0.5, 0.99):
        assert place([[4]], [(2, 2), (2, 3)], num=3, offset=offset)["rank"].tolist() == [2, 3]


def ranks_of_empty_lists(targets: list[tuple[int, int]], *, num: int) -> pd.DataFrame:
    customers = np.unique([customer for customer, _article in targets])
    lists = np.zeros((len(customers), 4), dtype=np.int32)
    offset = spread_evenly(len(customers), seed=3)
    return place_targets(lists, customers, pairs(targets), np.arange(2, 2 + num), offset=offset, name="gru")


def test_empty_lists_have_the_metrics_of_chance() -> None:
    # The offsets of 100 customers are 1/200, 3/200, …: each of the 50 ranks goes to two.
    found = ranks_of_empty_lists([(customer, 2) for customer in range(2, 102)], num=50)
    assert found["rank"].value_counts().to_dict() == dict.fromkeys(range(1, 51), 2)
    assert customer_auc(found).mean() == pytest.approx(0.5, abs=1e-12)
    assert pooled_auc(found) == pytest.approx(0.5, abs=1e-12)
    assert [rank_quantile(found, share) for share in (0.1, 0.5, 0.9)] == [5, 25, 45]
    # One target among 50 articles: the curve is the diagonal, up to steps of 1/49.
    shares = np.linspace(0, 1, 201)
    reached = roc_curve(found, shares)
    assert np.abs(reached - shares).max() <= 1 / 49 + 1e-9


def test_empty_lists_have_the_metrics_of_chance_with_several_targets_per_customer() -> None:
    # 300 customers who bought 1 to 9 of 40 articles; sampling error of the mean AUC is about 0.01.
    generator = np.random.default_rng(5)
    bought = {customer: generator.permutation(40)[: generator.integers(1, 10)] + 2 for customer in range(2, 302)}
    found = ranks_of_empty_lists([(c, article) for c, articles in bought.items() for article in articles], num=40)
    check_target_ranks(found, num_articles=40, where="test")
    assert customer_auc(found).mean() == pytest.approx(0.5, abs=0.02)
    assert pooled_auc(found) == pytest.approx(0.5, abs=0.01)
    assert [rank_quantile(found, share) for share in (0.1, 0.5, 0.9)] == pytest.approx([4, 20, 36], abs=1)


def test_list_of_all_targets_has_an_auc_of_1() -> None:
    found = place([[7, 3], [5, 0]], [(2, 3), (2, 7), (3, 5)], num=9)
    assert customer_auc(found).tolist() == [1, 1]
    assert rank_quantile(found, 1.0) == 2


def test_rank_of_a_listed_target_does_not_depend_on_other_targets() -> None:
    lists = [[4, 9, 3, 6, 2]]
    alone = [int(place(lists, [(2, article)], num=8)["rank"].iloc[0]) for article in lists[0]]
    together = place(lists, [(2, article) for article in lists[0]], num=8).set_index("article_index")["rank"]
    assert alone == together[lists[0]].tolist() == [1, 2, 3, 4, 5]


def test_offsets_are_evenly_spaced_in_an_order_fixed_by_the_seed() -> None:
    assert np.sort(spread_evenly(4, seed=1)).tolist() == [1 / 8, 3 / 8, 5 / 8, 7 / 8]
    assert spread_evenly(50, seed=1).tolist() == spread_evenly(50, seed=1).tolist()
    assert spread_evenly(50, seed=1).tolist() != spread_evenly(50, seed=2).tolist()
    assert spread_evenly(0, seed=1).tolist() == []


def test_list_with_an_article_twice_is_refused() -> None:
    # Articles not in store may be repeated: they are dropped.
    place([[30, 30, 5, 0]], [(2, 5)], num=7)
    with pytest.raises(InputError, match=r"^gru: 1 of 2 lists contain an article twice, .* list each article once\.$"):
        place([[5, 3, 5, 0], [5, 3, 0, 0]], [(2, 3)], num=7)


def test_rankable_targets_are_in_store_and_not_all_of_the_store() -> None:
    # Article 9 is not in store, and customer 4 bought both that are; customer 2's line comes twice.
    bought = pairs([(4, 3), (2, 3), (2, 3), (2, 9), (3, 9), (4, 2), (5, 2)])
    found = find_rankable(bought, np.array([2, 3]))
    assert found.to_numpy().tolist() == [[2, 3], [5, 2]]
    assert find_rankable(bought, np.array([7])).empty
