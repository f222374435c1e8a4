"""Restricted: a recommender that chooses among what the customer bought lately."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.bought_articles import bought_articles
from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.index.exclusion import is_excluded, take_best
from tfrs_fashion.recommenders.recommender import Recommendations, Recommender, load_state, save_state, with_source
from tfrs_fashion.schema import PADDING_INDEX


class ScoringRecommender(Recommender, Protocol):
    """A recommender that scores any article, not its best ones alone."""

    def score(self, histories: Histories, now: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
        """Scores some articles for each customer.

        Args:
            histories: What each customer bought before `now`.
            now: `[batch]` int64, seconds since 1970.
            article_index: `[batch, width]` int32.

        Returns:
            `[batch, width]` float32, -inf where an article is no candidate.
        """


class Restricted(tf.Module):
    """Recommends what the customer bought in the last days, in the order of another recommender's scores.

    Args:
        inner: Gives the scores.
        days: Days before now whose purchases are candidates.
        name: As used in reports.

    Source: Ziolo restricted two towers to the repurchases of the last week and of the last month.
    """

    history_length: int | None = None
    needs_history = True

    def __init__(self, inner: ScoringRecommender, *, days: int, name: str) -> None:
        super().__init__(name=name)
        self._inner = inner
        self._days = days

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k best of what was bought lately; see `Recommender`. Ties go to the lower article index."""
        bought = bought_articles(histories.since(now - self._days * SECONDS_PER_DAY), now)
        article_index = tf.RaggedTensor.from_value_rowids(
            bought.article_index, bought.row, histories.article_index.nrows()
        ).to_tensor(PADDING_INDEX)
        score = self._inner.score(histories, now, article_index)
        # Padding, of which a row has as much as the longest one needs, counts as excluded too.
        score = tf.where(is_excluded(article_index, exclude), -np.inf, score)
        column, score = take_best(score, tf.zeros([tf.shape(now)[0], 0], tf.int32), k)
        # One column more stands for no candidate, which column -1 is.
        padded = tf.pad(article_index, [[0, 0], [1, 0]], constant_values=PADDING_INDEX)
        return with_source(tf.gather(padded, column + 1, batch_dims=1), score, self.name)

    def save(self, folder: Path) -> None:
        """Writes the days, and the inner recommender into a folder of its own."""
        inner = folder / "inner"
        inner.mkdir()
        self._inner.save(inner)
        save_state(folder, {}, days=self._days, name=self.name)

    @classmethod
    def load(cls, folder: Path, *, load_inner: Callable[[Path], ScoringRecommender]) -> "Restricted":
        """Reads what `save` wrote.

        Args:
            folder: Where that is.
            load_inner: Reads the inner recommender from its folder.
        """
        _arrays, settings = load_state(folder)
        return cls(load_inner(folder / "inner"), **settings)
