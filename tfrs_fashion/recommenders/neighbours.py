"""Neighbours: each article of a history adds to the scores of its neighbours in a table.

Item-kNN, co-visitation, basket pairs and same product differ only in how the table is counted; they share the
recommender in this module.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_matrix

from tfrs_fashion.features.bought_articles import bought_articles, keep_strongest, time_scale
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.index.pooled import rank_sums
from tfrs_fashion.recommenders.recommender import (
    FitContext,
    Recommendations,
    save_state,
    with_source,
)
from tfrs_fashion.schema import PADDING_INDEX
from tfrs_fashion.settings.recommenders import NeighboursConfig

_BLOCK = 512


class Neighbours(tf.Module):
    """Sums the neighbours of a customer's articles, weighted by how often and how recently they were bought.

    Args:
        neighbour: `[num_articles + 2, num_neighbours]` int32, padding where an article has fewer.
        weight: `[num_articles + 2, num_neighbours]` float32, above 0 where there is a neighbour.
        history_articles: Number of strongest articles of a history that are read.
        half_life_days: Age in days at which a purchase weighs half.
        kind: What the table counts, e.g. `item_knn`.
        name: Name in reports.
    """

    history_length: int | None = None
    needs_history = True

    def __init__(
        self,
        neighbour: np.ndarray,
        weight: np.ndarray,
        *,
        history_articles: int,
        half_life_days: float,
        kind: str,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.kind = kind
        self._neighbour = tf.Variable(neighbour, trainable=False, dtype=tf.int32)
        self._weight = tf.Variable(weight, trainable=False, dtype=tf.float32)
        self._history_articles = history_articles
        self._half_life_days = half_life_days

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k articles with the largest sums; see `Recommender`."""
        scale = time_scale(self._half_life_days)
        bought = bought_articles(histories, now, time_scales_days=(scale,))
        bought = keep_strongest(bought, bought.decayed[:, 0], limit=self._history_articles)
        num_articles, width = self._neighbour.shape
        # Articles newer than the table have no neighbours, like padding.
        article = tf.where(bought.article_index < num_articles, bought.article_index, PADDING_INDEX)
        score = tf.gather(self._weight, article) * bought.decayed
        article_index, score = rank_sums(
            tf.repeat(bought.row, width),
            tf.reshape(tf.gather(self._neighbour, article), [-1]),
            tf.reshape(score, [-1]),
            num_rows=histories.article_index.nrows(),
            num_articles=num_articles,
            k=k,
            exclude=exclude,
        )
        return with_source(article_index, score, self.name)

    def save(self, folder: Path) -> None:
        """Writes the table of neighbours."""
        arrays = {"neighbour": self._neighbour.numpy(), "weight": self._weight.numpy()}
        settings = {"history_articles": self._history_articles, "half_life_days": self._half_life_days}
        save_state(folder, arrays, kind=self.kind, **settings, name=self.name)


def make_neighbours(
    table: tuple[np.ndarray, np.ndarray], settings: NeighboursConfig, context: FitContext
) -> Neighbours:
    """Makes the recommender of a table of neighbours and their weights, as `nearest` returns it."""
    return Neighbours(
        *table,
        history_articles=settings.history_articles,
        half_life_days=settings.half_life_days,
        kind=settings.kind,
        name=context.name,
    )


def nearest(
    left: csr_matrix,
    right: csr_matrix,
    *,
    num_neighbours: int,
    weigh: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the largest entries of each row of a sparse product, a block of rows at a time.

    The product itself, articles times articles, would not fit into memory.

    Args:
        left: `[num_articles, any]`.
        right: `[any, num_articles]`.
        num_neighbours: Number of entries to keep per row.
        weigh: Computes weights from `(row, column, entry)` of a block; those that are not above 0 are dropped.

    Returns:
        Columns int32 and weights float32, `[num_articles, num_neighbours]`, best first, ties by column; 0 where a row
        has fewer.
    """
    num_rows = left.shape[0]
    neighbour = np.zeros((num_rows, num_neighbours), np.int32)
    weight = np.zeros((num_rows, num_neighbours), np.float32)

    def fill(start: int) -> None:
        product = (left[start : start + _BLOCK] @ right).tocsr()
        row = np.repeat(np.arange(product.shape[0]), np.diff(product.indptr))
        data = product.data if weigh is None else weigh(row + start, product.indices, product.data)
        for number in range(product.shape[0]):
            begin, end = product.indptr[number], product.indptr[number + 1]
            column, value = product.indices[begin:end], data[begin:end]
            if len(value) > num_neighbours:
                # All that reach the last one's weight, so that ties are broken by column and not at random.
                reach = np.partition(value, len(value) - num_neighbours)[len(value) - num_neighbours]
                column, value = column[value >= reach], value[value >= reach]
            column, value = column[value > 0], value[value > 0]
            order = np.lexsort([column, -value])[:num_neighbours]
            neighbour[start + number, : len(order)] = column[order]
            weight[start + number, : len(order)] = value[order]

    # Most of the work is in SciPy and NumPy, which let other threads run meanwhile; each block has rows of its own.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        list(threads.map(fill, range(0, num_rows, _BLOCK)))
    return neighbour, weight


def keep_columns(matrix: csr_matrix, columns: np.ndarray) -> csr_matrix:
    """Empties all columns but these, so that no other article can become a neighbour."""
    is_kept = np.zeros(matrix.shape[1], bool)
    is_kept[columns] = True
    kept = matrix.tocoo()
    chosen = is_kept[kept.col]
    return csr_matrix((kept.data[chosen], (kept.row[chosen], kept.col[chosen])), shape=matrix.shape)
