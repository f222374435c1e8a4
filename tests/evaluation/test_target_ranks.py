from collections.abc import Callable
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrs_fashion.evaluation.rank_tables import check_target_ranks
from tfrs_fashion.evaluation.target_ranks import (
    customer_auc,
    measure_target_ranks,
    pooled_auc,
    rank_quantile,
    roc_curve,
    share_above,
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
    shares, reached = roc_curve(RANKS, num_points=5)
    assert shares.tolist() == [0, 1 / 4, 1 / 2, 3 / 4, 1]
    assert reached == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 1])


def test_the_area_under_the_curve_is_the_pooled_auc() -> None:
    generator = np.random.default_rng(0)
    ranks = make_ranks({c: (generator.permutation(50)[:3] + 1).tolist() for c in range(40)}, num_ranked=50)
    # 47 articles not bought: the curve is flat between their places, where it is read from the right.
    shares, reached = roc_curve(ranks, num_points=48)
    assert shares[1] == pytest.approx(1 / 47)
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
    _shares, reached = roc_curve(ranks)
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
    for measure in (share_above, customer_auc, pooled_auc, roc_curve):
        with pytest.raises(InputError, match="target ranks: there is no row"):
            measure(make_ranks({}, num_ranked=5))
    with pytest.raises(InputError, match="target ranks: there is no row"):
        rank_quantile(make_ranks({}, num_ranked=5), 0.5)
    with pytest.raises(InputError, match=r"`share` is 0; expected above 0, at most 1"):
        rank_quantile(RANKS, 0)
