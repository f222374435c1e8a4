"""Labelled pools: the candidates of a past week, and which of them were bought in it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfrs_fashion.recommenders.stored import read_arrays, write_arrays


def best_of_customers(customer: np.ndarray, score: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds each customer's best pairs.

    Args:
        customer: `[num_pairs]` int, in any order.
        score: `[num_pairs]`; ties keep the order of the pairs, and pairs with a score that is not finite are left out.
        k: Number of pairs per customer.

    Returns:
        Their positions, customers ascending and best first; and the rank of each, from 1.
    """
    order = np.lexsort([-score, customer])
    order = order[np.isfinite(score[order])]
    sorted_by = customer[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_by, sorted_by, side="left") + 1
    return order[rank <= k], rank[rank <= k]


@dataclass(frozen=True)
class LabelledPool:
    """The candidates of one week, from generators that were fitted before it, and which of them were bought in it.

    Attributes:
        customer: `[num_pairs]` int32, position among the customers who bought in that week; ascending.
        customer_index: `[num_customers]` int32, these customers, ascending.
        article_index: `[num_pairs]` int32.
        score: `[num_pairs, num_generators]` float32; see `recommenders.blend.pool.Pool`.
        rank: `[num_pairs, num_generators]` int16; 0 where a generator did not name the pair.
        context: `[num_pairs, 2]` float32; see `recommenders.blend.pool.Pool`.
        article_features: `[num_articles + 2, num_features]` float32, as of the beginning of the week.
        is_bought: `[num_pairs]` bool.
        num_bought: `[num_customers]` int32, number of distinct articles that each customer bought in that week.
    """

    customer: np.ndarray
    customer_index: np.ndarray
    article_index: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    context: np.ndarray
    article_features: np.ndarray
    is_bought: np.ndarray
    num_bought: np.ndarray

    def save(self, path: Path) -> None:
        """Writes all arrays as `.npz`."""
        write_arrays(self, path)

    @classmethod
    def load(cls, path: Path) -> "LabelledPool":
        """Reads what `save` wrote."""
        return read_arrays(cls, path)

    @property
    def weight(self) -> np.ndarray:
        """`[num_pairs]`, how much a pair adds to the recall of its customer."""
        return 1.0 / self.num_bought[self.customer]

    def recall(self, score: np.ndarray, *, k: int) -> float:
        """Returns the mean recall of each customer's k best.

        Args:
            score: `[num_pairs]`; ties keep the order of the pool.
            k: Number of candidates per customer.
        """
        taken, _rank = best_of_customers(self.customer, score, k=k)
        taken = taken[self.is_bought[taken]]
        return float(self.weight[taken].sum() / max(len(self.num_bought), 1))
