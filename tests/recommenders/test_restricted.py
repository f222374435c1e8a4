"""What was bought lately, in another's order."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.factorization import Factorization
from tfrs_fashion.recommenders.kinds import load_recommender
from tfrs_fashion.recommenders.restricted import Restricted
from tfrs_fashion.run.inference import rank_customers

# The cutoff is the 11th at midnight. Customer 2 bought 2 to 6, of which 5 is no candidate; 3 bought long ago alone; 4 has
# no factors.
ROWS = [(2, 2, 1), (2, 3, 9), (2, 4, 10), (2, 5, 10), (2, 6, 4), (2, 3, 10), (3, 2, 1), (4, 2, 10)]
CUSTOMERS = np.array([1, 2, 3, 4], np.int32)


@pytest.fixture(scope="module")
def view(make_view: Callable[[Sequence[tuple[int, int, int]]], View]) -> View:
    return make_view(ROWS)


@pytest.fixture(scope="module")
def factors() -> Factorization:
    customer_factors = np.array([[0, 0], [0, 0], [1, 2], [1, 0], [0, 0]], np.float32)
    article_factors = np.array([[1, 1], [-1, 0], [3, 0], [0, 1]], np.float32)
    # Customer 2 scores article 2 as 3, 3 as -1, 4 as 3, 6 as 2.
    return Factorization(customer_factors, article_factors, np.array([2, 3, 4, 6], np.int32), kind="als", name="als")


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (30, {2: [2, 4, 6, 3], 3: [2]}),
        # Noon of the 4th is six and a half days before, noon of the 9th one and a half.
        (7, {2: [4, 6, 3]}),
        (2, {2: [4, 3]}),
    ],
)
def test_recent_purchases_are_ranked_by_the_inner_score(
    view: View, factors: Factorization, days: int, expected: dict[int, list[int]]
) -> None:
    found = rank_customers(Restricted(factors, days=days, name="mine"), view, CUSTOMERS, k=9)
    assert {int(key): rows["article_index"].tolist() for key, rows in found.groupby("customer_index")} == expected


def test_a_saved_recommender_answers_the_same_once_loaded(view: View, factors: Factorization, tmp_path: Path) -> None:
    fitted = Restricted(factors, days=2, name="mine")
    fitted.save(tmp_path)
    loaded = load_recommender(tmp_path)
    assert loaded.name == "mine"
    expected = rank_customers(fitted, view, CUSTOMERS, k=9).to_numpy().tolist()
    assert rank_customers(loaded, view, CUSTOMERS, k=9).to_numpy().tolist() == expected


def test_factors_score_only_candidates(view: View, factors: Factorization) -> None:
    table = HistoryTable(view.timelines, view.profiles)
    asked = tf.constant([[2, 5, 0, 10**6, 3], [2, 3, 4, 6, 1], [2, 2, 2, 2, 2]], tf.int32)
    found = factors.score(table(tf.constant([2, 3, 4])), tf.zeros([3], tf.int64), asked).numpy()
    nothing = -np.inf
    assert found.tolist() == [
        [3, nothing, nothing, nothing, -1],
        [1, -1, 3, 0, nothing],
        # No factors, so no score.
        [nothing] * 5,
    ]
