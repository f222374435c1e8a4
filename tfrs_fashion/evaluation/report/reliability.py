"""The report's section on probabilities: how predicted purchase probabilities compare with actual purchases."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.bootstrap import bootstrap_ratio
from tfrs_fashion.evaluation.metrics.pair_keys import contains, pair_keys
from tfrs_fashion.evaluation.report.curve_figures import ReliabilityCurve, draw_reliability
from tfrs_fashion.evaluation.report.scorecard import Metrics, MetricSection
from tfrs_fashion.schema import InputError

MEANINGS = {
    "expected": "Sum of a list's probabilities, mean over customers: the expected number of purchases from it.",
    "bought": "Number of the list's articles that were bought, mean over customers.",
    "expected_to_bought": "The former over the latter: 1 is calibrated, 2 predicts twice as many purchases as there were.",
}
# Number of groups of candidates by probability, each with the same expected number of purchases.
NUM_GROUPS = 10


def describe_reliability(
    candidates: Mapping[str, pd.DataFrame],
    targets: pd.DataFrame,
    *,
    ks: Sequence[int],
    num_samples: int,
    seed: int,
) -> MetricSection:
    """Compares the probabilities of candidates with actual purchases.

    Args:
        candidates: `customer_index, article_index, rank, score` by recommender, at least one. A score within (0, 1) is the
            probability that a customer who buys anything in the window buys the article; rows with other scores are
            ignored.
        targets: `customer_index, article_index` bought in the window.
        ks: Lengths of the evaluated lists.
        num_samples: Number of bootstrap samples of customers.
        seed: Seed of the samples.

    Raises:
        InputError: A recommender has no row with a probability.
    """
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    bought = np.sort(pair_keys(targets))
    metrics: dict[str, Metrics] = {}
    curves: dict[str, ReliabilityCurve] = {}
    sizes = {}
    for name, rows in candidates.items():
        probable = rows[(rows["score"] > 0) & (rows["score"] < 1)]
        if probable.empty:
            raise InputError(
                f"{name}: none of {len(rows):,} scores lies between 0 and 1, so there is no probability to compare with "
                "purchases."
            )
        probable = probable.assign(is_bought=contains(bought, pair_keys(probable)).astype(float))
        metrics[name] = {metric: value for k in ks for metric, value in _measure(probable, k=k, **options).items()}
        curves[name] = _group(probable, **options)
        sizes[f"{len(probable):,} candidates of {probable['customer_index'].nunique():,} customers"] = len(probable)
    notes = (
        "The scores of these recommenders are the probabilities that a customer who comes in the window buys the article. "
        "Here they are compared with the purchases of the customers who came.",
    )
    figure = draw_reliability(curves, sizes=sizes)
    return MetricSection("reliability", "Probabilities", metrics, figure, notes, MEANINGS)


def _measure(probable: pd.DataFrame, *, k: int, num_samples: int, seed: int) -> Metrics:
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    sums = probable[probable["rank"] <= k].groupby("customer_index")[["score", "is_bought"]].sum()
    expected, bought = sums["score"].to_numpy(np.float64), sums["is_bought"].to_numpy()
    intervals = {
        "expected": bootstrap_ratio(expected, np.ones(len(sums)), **options),
        "bought": bootstrap_ratio(bought, np.ones(len(sums)), **options),
        "expected_to_bought": bootstrap_ratio(expected, bought, **options),
    }
    return {
        f"{name}@{k}": {bound: float(value) for bound, value in interval._asdict().items()}
        for name, interval in intervals.items()
    }


def _group(probable: pd.DataFrame, *, num_samples: int, seed: int) -> ReliabilityCurve:
    """Groups candidates by probability, with the same expected number of purchases in each group."""
    probable = probable.sort_values("score", kind="stable")
    cumulative = probable["score"].to_numpy(np.float64).cumsum()
    group = np.minimum((NUM_GROUPS * cumulative / cumulative[-1]).astype(int), NUM_GROUPS - 1)
    _groups, group = np.unique(group, return_inverse=True)
    shape = (probable["customer_index"].nunique(), int(group.max()) + 1)
    customer = np.unique(probable["customer_index"], return_inverse=True)[1]

    def sum_by_group(weights: np.ndarray) -> np.ndarray:
        """Sums by customer and group, `[num_customers, num_groups]`."""
        return np.bincount(customer * shape[1] + group, weights, minlength=shape[0] * shape[1]).reshape(shape)

    pairs, bought = sum_by_group(np.ones(len(probable))), sum_by_group(probable["is_bought"].to_numpy())
    expected = sum_by_group(probable["score"].to_numpy(np.float64)).sum(axis=0) / pairs.sum(axis=0)
    share = bootstrap_ratio(bought, pairs, num_samples=num_samples, seed=seed)
    return ReliabilityCurve(pairs.sum(axis=0), expected, share)
