"""Popularity: the same list for everyone, by baskets in the last days."""

import datetime
from pathlib import Path

import ibis
import numpy as np
import tensorflow as tf
from ibis import _

from tfrs_fashion.data.split import days_before
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.index.exclusion import take_allowed
from tfrs_fashion.recommenders.recommender import Recommendations, load_state, save_state, with_source


class Popularity(tf.Module):
    """A constant list, less what a customer excludes.

    Args:
        article_index: `[num_candidates]` int32, best first.
        score: `[num_candidates]` float32.
        name: As used in reports.
    """

    history_length: int | None = 0

    def __init__(self, article_index: np.ndarray, score: np.ndarray, *, name: str) -> None:
        super().__init__(name=name)
        self._article_index = tf.Variable(article_index, trainable=False, dtype=tf.int32)
        self._score = tf.Variable(score, trainable=False, dtype=tf.float32)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k most popular articles that are not excluded; see `Recommender`."""
        width = tf.minimum(k + tf.shape(exclude)[1], tf.shape(self._article_index)[0])
        batch = tf.shape(exclude)[0]
        article_index = tf.tile(self._article_index[tf.newaxis, :width], [batch, 1])
        score = tf.tile(self._score[tf.newaxis, :width], [batch, 1])
        return with_source(*take_allowed(article_index, score, exclude, k), self.name)

    def save(self, folder: Path) -> None:
        """Writes the list."""
        arrays = {"article_index": self._article_index.numpy(), "score": self._score.numpy()}
        save_state(folder, arrays, name=self.name)

    @classmethod
    def load(cls, folder: Path) -> "Popularity":
        """Reads what `save` wrote."""
        arrays, settings = load_state(folder)
        return cls(**arrays, **settings)


def fit_popularity(transactions: ibis.Table, *, as_of: datetime.datetime, days: int) -> Popularity:
    """Ranks the articles by the baskets that held them in the last days.

    Articles not sold in that time follow, the last sold first, so that a list never ends early.

    Args:
        transactions: The visible transactions only.
        as_of: The cutoff.
        days: Length of the window that ends there.
    """
    start = ibis.literal(days_before(as_of, days))
    basket = ibis.struct({"customer": _.customer_index, "basket": _.basket_id})
    counts = (
        transactions.group_by("article_index")
        .agg(
            score=basket.nunique(where=_.t_dat >= start).cast("float32"),
            last_sold=_.t_dat.max(),
        )
        .order_by([ibis.desc("score"), ibis.desc("last_sold"), "article_index"])
        .execute()
    )
    return Popularity(
        counts["article_index"].to_numpy(dtype=np.int32),
        counts["score"].to_numpy(dtype=np.float32),
        name=f"popularity_{days}d",
    )
