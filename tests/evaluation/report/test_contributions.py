"""Contributions of generators to a pool."""

import numpy as np

from tfrs_fashion.evaluation.report.contributions import measure_contributions


def test_contributions_of_two_generators_equal_hand_worked_values() -> None:
    # Three evaluated customers; the second bought two articles, the third has no candidate.
    # Pairs: customer 1 with a (bought), b; customer 2 with a (bought), c (bought), d.
    rank = np.array([[1, 2], [2, 0], [0, 1], [60, 6], [1, 7]])
    is_bought = np.array([True, False, True, True, False])
    weight = np.array([1.0, 1.0, 0.5, 0.5, 0.5])
    first, second = measure_contributions(
        ("first", "second"), rank, is_bought, weight, num_customers=3, quotas=np.array([10, 20])
    )
    assert (first.name, first.candidates, first.quota) == ("first", 4 / 3, 10.0)
    # It proposes a for customer 1, and c for customer 2, which is half of the latter's purchases.
    assert first.recall == (1.0 + 0.5) / 3
    assert first.marginal_recall == 0.0
    # First places: a of customer 1 and d of customer 2; second to fifth: b; 51 to 200: c.
    assert first.precision[:2] == (1 / 2, 0.0)
    assert first.precision[2:] == (None, None, 1.0)
    assert second.recall == (1.0 + 0.5 + 0.5) / 3
    # It alone proposes a for customer 2.
    assert second.marginal_recall == 0.5 / 3
    assert second.precision[:3] == (1.0, 1.0, 1 / 2)
