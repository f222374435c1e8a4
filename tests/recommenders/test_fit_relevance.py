import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.recommenders.fit_relevance import Pairs, fit_class_odds, fit_later_orders


def make_pairs(orders: np.ndarray, later: np.ndarray) -> Pairs:
    nothing = np.zeros(len(orders), np.int32)
    features = pd.DataFrame({"num_orders": orders, "gap_days": np.nan})
    return Pairs(nothing, nothing, features, nothing, ("low", "high"), nothing, later)


def test_later_orders_are_extrapolated_linearly() -> None:
    orders = np.tile(np.arange(1.0, 9.0), 1000)
    ask = fit_later_orders(make_pairs(orders, 2 * orders + 1))
    # log(1 + 2n + 1) is log(1 + n) + log 2, a straight line.
    beyond = np.array([1.0, 8.0, 100.0])
    assert ask(make_pairs(beyond, beyond))[:, 0] == pytest.approx(np.log(2 * beyond + 2), abs=0.01)


def test_odds_of_classes_rise_with_a_score_and_a_class_that_is_absent_has_none() -> None:
    random = np.random.default_rng(1)
    score = random.normal(size=(4000, 1))
    # The odds of class 2 against class 0 are exp(2 s - 1).
    label = 2 * (random.random(4000) < 1 / (1 + np.exp(1 - 2 * score[:, 0]))).astype(np.int32)
    told = fit_class_odds(score, label, 3)(np.array([[0.0], [1.0]]))
    assert told[:, 1].tolist() == [0, 0]
    assert told.sum(axis=1) == pytest.approx(1)
    assert np.log(told[:, 2] / told[:, 0]) == pytest.approx([-1, 1], abs=0.2)
    assert fit_class_odds(score, np.ones(4000, np.int32), 3)(score[:2]).tolist() == [[0, 1, 0], [0, 1, 0]]
