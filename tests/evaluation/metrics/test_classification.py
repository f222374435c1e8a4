import numpy as np
import pytest

from tfrs_fashion.evaluation.metrics.classification import (
    bootstrap_macro_f1,
    choose_factors,
    count_confusion,
    macro_f1,
    measure_classes,
)

NAMES = ("low", "medium", "high")


def test_metrics_of_six_rows_equal_hand_worked_fractions() -> None:
    label, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    low, medium, high = measure_classes(label, predicted, NAMES)
    assert (low.precision, low.recall, low.support) == (2 / 4, 2 / 3, 3)
    assert low.f1 == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert (medium.precision, medium.recall, medium.f1) == (1 / 2, 1 / 2, 1 / 2)
    # Never predicted: a precision of 0 instead of NaN.
    assert (high.precision, high.recall, high.f1, high.support) == (0, 0, 0, 1)
    assert macro_f1(label, predicted, 3) == pytest.approx((low.f1 + 0.5 + 0) / 3)
    assert count_confusion(label, predicted, 3).tolist() == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_absent_class_has_an_f1_of_0() -> None:
    label = np.array([0, 0, 1])
    assert macro_f1(label, label, 3) == pytest.approx(2 / 3)
    assert bootstrap_macro_f1(label, label, label, 3, num_samples=5).value == pytest.approx(2 / 3)


def test_chosen_factors_raise_macro_f1_of_rare_classes() -> None:
    random = np.random.default_rng(1)
    label = random.choice(3, 4000, p=(0.85, 0.1, 0.05))
    score = random.normal(size=(4000, 3)) + 1.5 * np.eye(3)[label] + np.log([0.85, 0.1, 0.05])
    probability = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    factors = choose_factors(probability[:2000], label[:2000])
    assert factors[0] == 1
    assert (factors[1:] > 1).all()
    later = probability[2000:]
    before, after = (macro_f1(label[2000:], rows.argmax(axis=1), 3) for rows in (later, later * factors))
    assert after > before + 0.02


def test_interval_agrees_with_resampling_customers_and_paired_gain_is_positive() -> None:
    random = np.random.default_rng(1)
    customer = np.repeat(np.arange(300), 5)
    label = random.choice(3, 1500, p=(0.6, 0.3, 0.1))
    good = np.where(random.random(1500) < 0.7, label, random.choice(3, 1500))
    bad = np.where(random.random(1500) < 0.5, label, random.choice(3, 1500))
    found = bootstrap_macro_f1(label, good, customer, 3, num_samples=300, seed=1)
    assert found.value == pytest.approx(macro_f1(label, good, 3))
    assert found.low < found.value < found.high
    slow = []
    for _sample in range(300):
        drawn = random.integers(0, 300, 300)
        rows = (drawn[:, np.newaxis] * 5 + np.arange(5)).ravel()
        slow.append(macro_f1(label[rows], good[rows], 3))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, (0.025, 0.975))), abs=0.01)
    gain = bootstrap_macro_f1(label, good, customer, 3, other=bad, num_samples=300, seed=1)
    assert gain.value == pytest.approx(macro_f1(label, good, 3) - macro_f1(label, bad, 3))
    assert gain.low > 0
