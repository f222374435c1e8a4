import math
from collections.abc import Callable
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.metrics.bootstrap import (
    MAX_ROWS_DRAWN,
    Comparison,
    Difference,
    bootstrap_interval,
    bootstrap_ratio,
    compare_recommenders,
    paired_difference,
)
from tfrs_fashion.schema import InputError


def test_interval_of_fair_coins_has_the_normal_width() -> None:
    # A mean of n fair coins: standard error 0.5 / sqrt(n), and a bootstrap's interval is about ±1.96 of them.
    values = np.tile([0.0, 1.0], 5000)
    value, low, high = bootstrap_interval(values, num_samples=4000, seed=1)
    assert value == 0.5
    half_width = 1.96 * 0.5 / math.sqrt(10_000)
    assert value - low == pytest.approx(half_width, rel=0.1)
    assert high - value == pytest.approx(half_width, rel=0.1)


def test_interval_of_mostly_zeros_has_the_normal_width() -> None:
    # 2% of the customers are not zero; the variance of a resampled mean is var(values) / n.
    values = np.zeros(5000)
    values[:100] = np.linspace(0.1, 1, 100)
    _value, low, high = bootstrap_interval(values, num_samples=4000, seed=1)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / math.sqrt(len(values)), rel=0.1)


def test_interval_covers_the_true_mean_in_95_percent_of_repetitions() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        sample = generator.normal(loc=3, size=100)
        _value, low, high = bootstrap_interval(sample, num_samples=300, seed=seed)
        covered += low <= 3 <= high
    # 95% of 200 is 190; six standard deviations of a binomial (3.1 each) below.
    assert covered >= 172


def test_columns_of_a_matrix_share_their_samples() -> None:
    generator = np.random.default_rng(0)
    column = generator.random(300)
    value, low, high = bootstrap_interval(np.column_stack([column, 2 * column, np.zeros(300)]), seed=4)
    assert value == pytest.approx([column.mean(), 2 * column.mean(), 0])
    assert low[1] == pytest.approx(2 * low[0])
    assert high[1] == pytest.approx(2 * high[0])
    assert (low[2], high[2]) == (0, 0)


def test_same_seed_gives_the_same_interval_and_another_seed_does_not() -> None:
    values = np.random.default_rng(0).random(100)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_interval_from_pools_has_the_normal_width() -> None:
    # One customer in ten has a hit: most rows are 0, the others vary.
    values = np.zeros(MAX_ROWS_DRAWN + 5000)
    values[::10] = np.random.default_rng(0).random(len(values[::10]))
    value, low, high = bootstrap_interval(values, num_samples=2000, seed=1)
    assert value == values.mean()
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / math.sqrt(len(values)), rel=0.1)
    assert value - low == pytest.approx(high - value, rel=0.15)


def test_paired_difference_from_pools_uses_the_same_pools_for_both() -> None:
    b = np.random.default_rng(0).random(MAX_ROWS_DRAWN + 1)
    found = paired_difference(b + 0.01, b, num_samples=50)
    assert (found.difference, found.low, found.high) == pytest.approx((0.01, 0.01, 0.01))


def test_intervals_agree_with_scipy(skip_or_fail: Callable[[str], NoReturn]) -> None:
    try:
        from scipy.stats import bootstrap
    except ImportError:
        skip_or_fail("the package scipy is not installed")
    # Skewed, with many zeros, so that the interval is not symmetrical.
    random = np.random.default_rng(5)
    values = np.where(random.random(400) < 0.2, random.exponential(size=400), 0.0)
    theirs = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=random).confidence_interval
    _value, low, high = bootstrap_interval(values, num_samples=4000)
    # Bounds of 4,000 samples are known to a few percent of the interval's width.
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * (high - low))


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_interval_of_one_customer_has_no_width(value: float) -> None:
    assert bootstrap_interval(np.array([value])) == (value, value, value)


def test_values_that_cannot_be_averaged_are_refused() -> None:
    with pytest.raises(InputError, match="No customer bought anything in the window of targets"):
        bootstrap_interval(np.array([]))
    with pytest.raises(InputError, match="1 of 2 customers have a NaN or infinite value"):
        bootstrap_interval(np.array([1.0, np.nan]))
    with pytest.raises(InputError, match=r"shape \(1, 1, 1\)"):
        bootstrap_interval(np.ones((1, 1, 1)))
    with pytest.raises(InputError, match="`num_samples` is 0; expected 1 or more"):
        bootstrap_interval(np.ones(3), num_samples=0)


def test_paired_difference_of_a_constant_shift_has_no_width() -> None:
    # Customers differ far more than recommenders: only pairing reveals the difference, which is the same for all.
    b = np.random.default_rng(0).random(400) + 1
    found = paired_difference(b + 0.01, b)
    assert found.difference == pytest.approx(0.01)
    assert (found.low, found.high) == pytest.approx((0.01, 0.01))
    assert found.relative == pytest.approx(0.01 / b.mean())


def test_relative_difference_of_a_constant_ratio_has_no_width() -> None:
    b = np.random.default_rng(0).random(400)
    found = paired_difference(0.9 * b, b)
    assert (found.relative, found.relative_low, found.relative_high) == pytest.approx((-0.1, -0.1, -0.1))
    assert found.low < found.difference < found.high < 0


def test_difference_of_a_recommender_from_itself_is_0() -> None:
    values = np.random.default_rng(0).random(50)
    assert paired_difference(values, values) == Difference(0, 0, 0, 0, 0, 0)


def test_difference_relative_to_a_zero_mean_is_nan_and_its_sentence_is_absolute() -> None:
    found = paired_difference(np.ones(5), np.zeros(5))
    assert (found.difference, found.low, found.high) == (1, 1, 1)
    assert math.isnan(found.relative)
    assert Comparison("two_tower", "gru", "map@12", 5, found).sentence == (
        "two_tower vs gru on map@12: +1.0000 (95% CI +1.0000 to +1.0000), significant"
    )


def test_pairs_of_different_customers_are_refused() -> None:
    with pytest.raises(InputError, match="2 and 3 customers"):
        paired_difference(np.ones(2), np.ones(3))
    with pytest.raises(InputError, match="not the same"):
        paired_difference(pd.Series([1.0], index=[4]), pd.Series([1.0], index=[5]))
    with pytest.raises(InputError, match="No customer bought anything"):
        paired_difference(np.array([]), np.array([]))


def test_sentence_states_difference_interval_and_significance() -> None:
    below = Difference(-0.001, -0.0016, -0.0004, -0.031, -0.050, -0.012)
    assert Comparison("two_tower", "repurchase", "map@12", 9, below).sentence == (
        "two_tower vs repurchase on map@12: -3.1% (95% CI -5.0% to -1.2%), significant"
    )
    above = Difference(0.001, 0.0004, 0.0016, 0.031, 0.012, 0.050)
    assert Comparison("blend", "repurchase", "map@12", 9, above).sentence == (
        "blend vs repurchase on map@12: +3.1% (95% CI +1.2% to +5.0%), significant"
    )
    level = Difference(0.001, -0.0004, 0.0016, 0.031, -0.012, 0.050)
    assert Comparison("blend", "repurchase", "map@12", 9, level).sentence == (
        "blend vs repurchase on map@12: +3.1% (95% CI -1.2% to +5.0%), not significant"
    )


def test_each_recommender_is_compared_with_each_baseline_once() -> None:
    values = {name: pd.Series(np.random.default_rng(0).random(9)) for name in ("popularity_7d", "repurchase", "gru")}
    found = compare_recommenders(values, baselines=["popularity_7d", "repurchase"])
    assert [(row.recommender, row.baseline, row.customers) for row in found] == [
        ("repurchase", "popularity_7d", 9),
        ("gru", "popularity_7d", 9),
        ("gru", "repurchase", 9),
    ]
    with pytest.raises(InputError, match=r"unknown baseline\(s\) als"):
        compare_recommenders(values, baselines=["als"])


def test_ratio_of_sums_and_its_interval_equal_hand_worked_values() -> None:
    ones, twos = np.ones(50), np.full(50, 2.0)
    assert bootstrap_ratio(ones, twos, num_samples=20) == (0.5, 0.5, 0.5)
    both = bootstrap_ratio(np.stack([ones, twos], 1), np.stack([twos, np.zeros(50)], 1), num_samples=20)
    assert both.value[0] == both.low[0] == 0.5
    assert np.isnan([both.value[1], both.low[1], both.high[1]]).all()
    # Sums over customers, not a mean of ratios: (3 + 0) / (1 + 3).
    found = bootstrap_ratio(np.array([3.0, 0.0]), np.array([1.0, 3.0]), num_samples=500)
    assert (found.value, found.low, found.high) == (0.75, 0.0, 3.0)
