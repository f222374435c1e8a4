"""Neighbours: each article of a history adds to the scores of the articles that go with it.

Item-kNN, co-visitation, basket pairs and designs differ in how the table of neighbours is counted; this module answers
for all of them.
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
from tfrs_fashion.recommenders.recommender import Recommendations, load_state, save_state, with_source
from tfrs_fashion.schema import PADDING_INDEX

_BLOCK = 512


class Neighbours(tf.Module):
    """Adds up the neighbours of what a customer bought, weighted by how often and how lately that was.

    Args:
        neighbour: `[num_articles + 2, num_neighbours]` int32, padding where an article has fewer.
        weight: `[num_articles + 2, num_neighbours]` float32, above 0 where there is a neighbour.
        history_articles: Strongest articles of a history that are read.
        half_life_days: Age in days at which a purchase weighs half.
        name: As used in reports.
    """

    history_length: int | None = None
    needs_history = True

    def __init__(
        self, neighbour: np.ndarray, weight: np.ndarray, *, history_articles: int, half_life_days: float, name: str
    ) -> None:
        super().__init__(name=name)
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
        # Articles that came after the table was made have no neighbours, as padding has none.
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
        save_state(folder, arrays, **settings, name=self.name)

    @classmethod
    def load(cls, folder: Path) -> "Neighbours":
        """Reads what `save` wrote."""
        arrays, settings = load_state(folder)
        return cls(**arrays, **settings)


def nearest(
    left: csr_matrix,
    right: csr_matrix,
    *,
    num_neighbours: int,
    weigh: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the largest entries of each row of a sparse product, a block of rows at a time.

    The product itself, articles times articles, is never held.

    Args:
        left: `[num_articles, any]`.
        right: `[any, num_articles]`.
        num_neighbours: Entries to keep in a row.
        weigh: Makes weights of `(row, column, entry)` of a block; those that are not above 0 are dropped.

    Returns:
        Columns int32 and weights float32, `[num_articles, num_neighbours]`, best first, ties by column; 0 where a row has
        fewer.
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
                # All that reach the last one's weight, so that ties are broken by column and not by chance.
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
    """Empties all columns but these, so that nothing else can become a neighbour."""
    is_kept = np.zeros(matrix.shape[1], bool)
    is_kept[columns] = True
    kept = matrix.tocoo()
    chosen = is_kept[kept.col]
    return csr_matrix((kept.data[chosen], (kept.row[chosen], kept.col[chosen])), shape=matrix.shape)
