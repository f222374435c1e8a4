"""Restricted: another recommender's scores, applied only to what the customer bought lately."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.bought_articles import bought_articles
from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.features.view import View
from tfrs_fashion.index.exclusion import is_excluded, take_best
from tfrs_fashion.recommenders.recommender import (
    FitContext,
    Recommendations,
    Recommender,
    ScoringRecommender,
    load_state,
    save_state,
    with_source,
)
from tfrs_fashion.schema import PADDING_INDEX
from tfrs_fashion.settings.recommenders import RestrictedConfig


class Restricted(tf.Module):
    """Recommends what the customer bought in the last days, in the order of another recommender's scores.

    Args:
        inner: The recommender that scores.
        days: Number of days before now whose purchases are candidates.
        name: Name in reports.

    Source: Ziolo restricted two towers to the repurchases of the last week and of the last month.
    """

    kind = "restricted"
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
        # Padding, which fills up shorter rows, counts as excluded too.
        score = tf.where(is_excluded(article_index, exclude), -np.inf, score)
        column, score = take_best(score, tf.zeros([tf.shape(now)[0], 0], tf.int32), k)
        # A column is put in front, so that column -1, which means no candidate, becomes padding.
        padded = tf.pad(article_index, [[0, 0], [1, 0]], constant_values=PADDING_INDEX)
        return with_source(tf.gather(padded, column + 1, batch_dims=1), score, self.name)

    def save(self, folder: Path) -> None:
        """Writes the days, and the inner recommender into a folder."""
        inner = folder / "inner"
        inner.mkdir()
        self._inner.save(inner)
        save_state(folder, {}, kind=self.kind, days=self._days, name=self.name)


def fit(view: View, settings: RestrictedConfig, context: FitContext) -> Restricted:
    """Restricts another recommender, fitted on the same view; see `recommenders.kinds.Kind`."""
    inner = cast(ScoringRecommender, context.fitted_part(settings.of))
    return Restricted(inner, days=settings.days, name=context.name)


def load(folder: Path, load_part: Callable[[Path], Recommender]) -> Restricted:
    """Reads what `Restricted.save` wrote.

    Args:
        folder: The folder.
        load_part: Loads the inner recommender from its folder.
    """
    _arrays, settings = load_state(folder)
    return Restricted(cast(ScoringRecommender, load_part(folder / "inner")), **settings)
