"""Accuracy of recommended lists against what customers bought: per customer, and averaged by list length."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.pair_keys import contains, count_runs, pair_keys
from tfrs_fashion.schema import FIRST_INDEX, InputError

ACCURACY_METRICS = ("map", "recall", "precision", "ndcg", "hit_rate", "mrr")


@dataclass(frozen=True)
class Hits:
    """Ranks at which customers' lists hold articles that they bought; every accuracy metric follows from these.

    Attributes:
        depth: Length of the lists that were searched.
        customer_index: `[num_customers]` int64, every customer with a target, ascending.
        num_targets: `[num_customers]` int64, distinct targets of each customer.
        row: `[num_hits]` int64, position of the hit's customer in `customer_index`, ascending.
        rank: `[num_hits]` int64, from 1, ascending within a customer.
    """

    depth: int
    customer_index: np.ndarray
    num_targets: np.ndarray
    row: np.ndarray
    rank: np.ndarray

    def first(self, k: int) -> "Hits":
        """Keeps the hits within the first k ranks."""
        is_first = self.rank <= k
        return Hits(min(k, self.depth), self.customer_index, self.num_targets, self.row[is_first], self.rank[is_first])


class AccuracyCurve(NamedTuple):
    """Means over customers by list length: float64 `[depth]` each, for lists of 1, 2, … articles."""

    recall: np.ndarray
    precision: np.ndarray


def check_k(k: int) -> None:
    """Raises an `InputError` if `k` is below 1."""
    if k < 1:
        raise InputError(f"`k` is {k}; expected 1 or more.")


def first_places(candidates: pd.DataFrame, *, k: int) -> pd.DataFrame:
    """Returns the rows of ranks 1 to k; raises an `InputError` if `k` is below 1."""
    check_k(k)
    ranks = candidates["rank"].to_numpy()
    is_first = (ranks >= 1) & (ranks <= k)
    return candidates if is_first.all() else candidates.loc[is_first]


def find_hits(candidates: pd.DataFrame, targets: pd.DataFrame, *, depth: int, key: str = "article_index") -> Hits:
    """Finds the purchased articles in each customer's list.

    Args:
        candidates: Rows of Candidates in any order; `customer_index`, `key` and `rank` (from 1) are read. A key that
            occurs twice in a customer's list hits once, at its lower rank.
        targets: (`customer_index`, `key`) pairs; duplicates are dropped. A key below `FIRST_INDEX` (out of
            vocabulary) counts among the targets and is never hit. Several out-of-vocabulary articles that share
            an index are one target; give them indices above the vocabulary to count each.
        depth: Length of the lists.
        key: Column that has to match: `article_index`, or an integer column of both tables made from it; see
            `near_misses`.

    Returns:
        The hits of every customer of `targets`; a customer without candidates has none.

    Raises:
        InputError: `depth` is below 1, or a table lacks a column.
    """
    check_k(depth)
    for name, frame, columns in (
        ("candidates", candidates, ("customer_index", key, "rank")),
        ("targets", targets, ("customer_index", key)),
    ):
        missing = [column for column in columns if column not in frame.columns]
        if missing:
            raise InputError(f"{name}: missing column(s) {', '.join(missing)}; found {list(frame.columns)}.")
    target_keys = np.unique(pair_keys(targets, key=key))
    customers, _starts, num_targets = count_runs(target_keys >> 32)
    shown = first_places(candidates, k=depth)
    keys = pair_keys(shown, key=key)
    is_hit = contains(target_keys, keys)
    is_hit &= shown[key].to_numpy() >= FIRST_INDEX
    keys, ranks = keys[is_hit], shown["rank"].to_numpy()[is_hit].astype(np.int64)
    order = np.lexsort((ranks, keys))
    keys, starts, _lengths = count_runs(keys[order])
    ranks = ranks[order][starts]
    rows = np.searchsorted(customers, keys >> 32)
    order = np.lexsort((ranks, rows))
    return Hits(depth, customers, num_targets, rows[order], ranks[order])


def measure_hits(hits: Hits, *, k: int) -> pd.DataFrame:
    """Computes the accuracy metrics of each customer's list from its hits.

    With `n` targets, and hits at ranks `r_1 < r_2 < …` of the first `k`:
    `map` = Σ_i (i / r_i) / min(k, n); `recall` = hits / n; `precision` = hits / k; `hit_rate` = 1 if there is a
    hit; `mrr` = 1 / r_1; `ndcg` = Σ_i 1 / log2(r_i + 1) over the same sum for ranks 1 … min(k, n).

    Args:
        hits: Hits in lists of at least `k` articles.
        k: Length of the evaluated lists.

    Returns:
        One row for each customer with a target, indexed by `customer_index` in ascending order, with the float64
        columns `ACCURACY_METRICS`. A customer without candidates has zeros.

    Raises:
        InputError: `k` is below 1, or the hits come from shorter lists.

    Source:
        Average precision as in Kaggle's "H&M Personalized Fashion Recommendations"; NDCG with binary gains from
        Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002).
    """
    check_k(k)
    if k > hits.depth:
        raise InputError(f"`k` is {k}, but only the first {hits.depth} places were searched for hits: search deeper.")
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


def measure_accuracy(
    candidates: pd.DataFrame, targets: pd.DataFrame, *, k: int, key: str = "article_index"
) -> pd.DataFrame:
    """Computes the accuracy metrics of each customer's first k candidates; see `find_hits` and `measure_hits`."""
    return measure_hits(find_hits(candidates, targets, depth=k, key=key), k=k)


def trace_accuracy(hits: Hits) -> AccuracyCurve:
    """Computes mean recall and precision for every list length from 1 to the depth of the hits.

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
