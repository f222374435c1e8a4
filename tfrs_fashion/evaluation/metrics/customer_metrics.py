"""How well lists foretell what customers buy: of each customer, and of all over the length of the list."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.hits import Hits, check_k, find_hits
from tfrs_fashion.schema import InputError

CUSTOMER_METRICS = ("map", "recall", "precision", "ndcg", "hit_rate", "mrr")


class AccuracyCurve(NamedTuple):
    """Means over customers by the length of the list: float64 `[depth]` each, for 1, 2, … places."""

    recall: np.ndarray
    precision: np.ndarray


def measure_customers(hits: Hits, *, k: int) -> pd.DataFrame:
    """Measures each customer's list against what the customer bought.

    With `n` targets, and hits at ranks `r_1 < r_2 < …` of the first `k`:
    `map` = Σ_i (i / r_i) / min(k, n); `recall` = hits / n; `precision` = hits / k; `hit_rate` = 1 if there is a
    hit; `mrr` = 1 / r_1; `ndcg` = Σ_i 1 / log2(r_i + 1) over the same sum for ranks 1 … min(k, n).

    Args:
        hits: Of lists at least `k` long.
        k: Length of the list that is measured.

    Returns:
        One row for each customer with a target, indexed by `customer_index` in ascending order, with the float64
        columns `CUSTOMER_METRICS`. A customer without candidates has zeros.

    Raises:
        InputError: `k` is below 1, or the hits were read from shorter lists.

    Source:
        Average precision as in Kaggle's "H&M Personalized Fashion Recommendations"; NDCG with binary gains from
        Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002).
    """
    check_k(k)
    if k > hits.depth:
        raise InputError(f"`k` is {k}, and hits were looked for in the first {hits.depth} places only: look deeper.")
    hits = hits.first(k)
    num_customers, rows, ranks = len(hits.customer_index), hits.row, hits.rank
    num_relevant = np.minimum(hits.num_targets, k)
    num_hits = np.bincount(rows, minlength=num_customers)
    first_hit = np.cumsum(num_hits) - num_hits
    hit_number = np.arange(len(rows)) - first_hit[rows] + 1

    def sum_by_customer(values: np.ndarray) -> np.ndarray:
        return np.bincount(rows, weights=values, minlength=num_customers)

    ideal_gain = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(1, k + 1) + 1))])
    return pd.DataFrame(
        {
            "map": sum_by_customer(hit_number / ranks) / num_relevant,
            "recall": num_hits / hits.num_targets,
            "precision": num_hits / k,
            "ndcg": sum_by_customer(1 / np.log2(ranks + 1)) / ideal_gain[num_relevant],
            "hit_rate": (num_hits > 0).astype(np.float64),
            "mrr": sum_by_customer(np.where(hit_number == 1, 1 / ranks, 0.0)),
        },
        index=pd.Index(hits.customer_index, name="customer_index"),
    )


def customer_metrics(
    candidates: pd.DataFrame, targets: pd.DataFrame, *, k: int, key: str = "article_index"
) -> pd.DataFrame:
    """Measures each customer's list against what the customer bought: `find_hits`, then `measure_customers`.

    Args:
        candidates: Rows of Candidates in any order; see `find_hits`.
        targets: (`customer_index`, `key`) pairs.
        k: Length of the list that is measured.
        key: What has to match.

    Raises:
        InputError: `k` is below 1, or a table lacks a column.
    """
    return measure_customers(find_hits(candidates, targets, depth=k, key=key), k=k)


def trace_accuracy(hits: Hits) -> AccuracyCurve:
    """Computes mean recall and precision for every length of the list, from 1 to the depth of the hits.

    Raises:
        InputError: There is no customer.
    """
    if len(hits.customer_index) == 0:
        raise InputError("No customer bought anything, so there is nothing to average. Move or widen the window.")
    share = 1 / hits.num_targets[hits.row]
    recall = np.cumsum(np.bincount(hits.rank, weights=share, minlength=hits.depth + 1)[1:])
    num_hits = np.cumsum(np.bincount(hits.rank, minlength=hits.depth + 1)[1:])
    places = len(hits.customer_index) * np.arange(1, hits.depth + 1)
    return AccuracyCurve(recall / len(hits.customer_index), num_hits / places)
