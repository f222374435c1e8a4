import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.report.reliability import MEANINGS, NUM_GROUPS, describe_reliability
from tfrs_fashion.schema import InputError

OPTIONS = {"num_samples": 200, "seed": 1}


def test_expected_and_actual_purchases_equal_hand_worked_means() -> None:
    rows = [(2, 5, 1, 0.5), (2, 6, 2, 0.25), (2, 7, 3, 0.0), (3, 5, 1, 0.4), (3, 6, 2, -0.9)]
    candidates = pd.DataFrame(rows, columns=["customer_index", "article_index", "rank", "score"])
    targets = pd.DataFrame([(2, 5), (2, 7), (3, 8)], columns=["customer_index", "article_index"])
    found = describe_reliability({"two_stage": candidates}, targets, ks=(1, 3), **OPTIONS)
    metrics = found.metrics["two_stage"]
    assert {name.split("@")[0] for name in metrics} == set(MEANINGS) == set(found.meanings)
    # Two customers. Scores of 0 and below, of candidates that filled a list, are no probabilities.
    assert metrics["expected@1"]["value"] == pytest.approx((0.5 + 0.4) / 2)
    assert metrics["expected@3"]["value"] == pytest.approx((0.5 + 0.25 + 0.4) / 2)
    assert metrics["bought@3"]["value"] == pytest.approx(1 / 2)
    assert metrics["expected_to_bought@3"]["value"] == pytest.approx(1.15)
    assert found.figure.caption.startswith("3 candidates of 2 customers")


def test_calibrated_probabilities_have_ratio_1_and_doubled_ones_2() -> None:
    random = np.random.default_rng(1)
    customer, article = (grid.ravel() for grid in np.meshgrid(np.arange(2, 1002), np.arange(2, 52), indexing="ij"))
    probability = random.uniform(0.001, 0.4, len(customer))
    is_bought = random.random(len(customer)) < probability
    candidates = pd.DataFrame({"customer_index": customer, "article_index": article, "rank": 1, "score": probability})
    targets = candidates.loc[is_bought, ["customer_index", "article_index"]]
    predictions = {"right": candidates, "twice": candidates.assign(score=2 * probability)}
    found = describe_reliability(predictions, targets, ks=(12,), **OPTIONS)
    for name, factor in (("right", 1), ("twice", 2)):
        curve = found.figure.data[name]
        assert len(curve["pairs"]) == NUM_GROUPS
        assert sum(curve["pairs"]) == len(customer)
        # Each group has the same expected number of purchases.
        total = np.multiply(curve["pairs"], curve["expected"])
        assert total == pytest.approx(np.full(NUM_GROUPS, total.mean()), rel=0.02)
        assert np.divide(curve["expected"], curve["bought"]["value"]) == pytest.approx(
            np.full(NUM_GROUPS, factor), rel=0.2
        )
        interval = found.metrics[name]["expected_to_bought@12"]
        assert interval["low"] < factor < interval["high"]
    low, high = (found.figure.data["right"]["bought"][bound] for bound in ("low", "high"))
    is_inside = (np.array(low) <= found.figure.data["right"]["expected"]) & (
        found.figure.data["right"]["expected"] <= np.array(high)
    )
    assert is_inside.sum() >= NUM_GROUPS - 2


def test_ratio_without_purchases_is_nan_and_scores_without_probabilities_are_refused() -> None:
    candidates = pd.DataFrame({"customer_index": [2], "article_index": [2], "rank": [1], "score": [0.5]})
    nothing = pd.DataFrame({"customer_index": [3], "article_index": [2]})
    found = describe_reliability({"two_stage": candidates}, nothing, ks=(12,), **OPTIONS)
    assert np.isnan(list(found.metrics["two_stage"]["expected_to_bought@12"].values())).all()
    with pytest.raises(InputError, match="two_stage: none of 1 scores lies between 0 and 1"):
        describe_reliability({"two_stage": candidates.assign(score=1.0)}, nothing, ks=(12,), **OPTIONS)
