"""Repurchase: what the customer bought in most baskets, ties by recency. A strong baseline wherever people come back."""

from pathlib import Path

import tensorflow as tf

from tfrs_fashion.features.bought import bought_articles
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.index.exclusion import take_allowed
from tfrs_fashion.recommenders.recommender import Recommendations, save_state, with_source

# Seconds since 1970 need 33 bits until the year 2242; the basket count takes the bits above them.
_TIME_BITS = 33


class Repurchase(tf.Module):
    """A function of the history alone: nothing is fitted."""

    history_length: int | None = None
    needs_history = True

    def __init__(self) -> None:
        super().__init__(name="repurchase")

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k articles bought in most baskets; see `Recommender`. The score is the basket count.

        Ties go to the article bought last, then to the lower index.
        """
        bought = bought_articles(histories, now)
        strength = tf.cast(bought.num_baskets, tf.int64) * 2**_TIME_BITS + bought.last_time
        order = tf.argsort(-strength, stable=True)
        order = tf.gather(order, tf.argsort(tf.gather(bought.row, order), stable=True))
        row = tf.gather(bought.row, order)

        def dense(values: tf.Tensor) -> tf.Tensor:
            ragged = tf.RaggedTensor.from_value_rowids(tf.gather(values, order), row, histories.article_index.nrows())
            return ragged.to_tensor()

        score = dense(tf.cast(bought.num_baskets, tf.float32))
        return with_source(*take_allowed(dense(bought.article_index), score, exclude, k), self.name)

    def save(self, folder: Path) -> None:
        """Writes an empty state."""
        save_state(folder, {})

    @classmethod
    def load(cls, folder: Path) -> "Repurchase":
        """Rebuilds the recommender; there is nothing to read."""
        return cls()
