"""The query side of a sequential tower: the order of purchases in, an embedding out."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.sequences import read_steps
from tfrs_fashion.models.sequential import SequentialTower
from tfrs_fashion.recommenders.recommender import set_weight_arrays, weight_arrays
from tfrs_fashion.schema import OUT_OF_VOCABULARY_INDEX


class SequenceQuery(tf.Module):
    """Embeds a history by the order of its purchases.

    Args:
        tower: The built tower with its weights.
        article_embedding: `[num_articles + 2, embedding_dim]` float32, the input of steps.
        settings: Arguments of the tower; see `make_sequential_tower`.
    """

    def __init__(self, tower: SequentialTower, article_embedding: np.ndarray, *, settings: dict[str, Any]) -> None:
        super().__init__(name="sequence_query")
        self.history_length: int | None = settings["length"]
        self._settings = settings
        self._tower = tower
        self.article_embedding = tf.Variable(article_embedding, trainable=False, dtype=tf.float32)

    def __call__(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch]` histories at `now` as `[batch, embedding_dim + 1]` float32."""
        steps = read_steps(histories, now, length=self._settings["length"])
        # An article newer than the fit is an unknown one.
        is_known = steps.article_index < tf.shape(self.article_embedding)[0]
        known = tf.where(is_known, steps.article_index, OUT_OF_VOCABULARY_INDEX)
        steps = self._tower.arrange(steps._replace(article_index=known))
        encoded = self._tower.encode(tf.gather(self.article_embedding, steps.article_index), steps)
        last = tf.gather(encoded, steps.num_steps - 1, batch_dims=1)
        customer = self._tower.describe_customers(
            histories.customer_index, histories.profile, histories.profile_numbers
        )
        return self._tower.embed(last, customer)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns the tower's weights and the embeddings of articles; see `load`."""
        return {**weight_arrays(self._tower), "article_embedding": self.article_embedding.numpy()}, self._settings

    @classmethod
    def load(cls, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> "SequenceQuery":
        """Makes the query again from its `state`, which it takes out of the arrays."""
        tower = make_sequential_tower(settings)
        set_weight_arrays(tower, arrays)
        return cls(tower, arrays.pop("article_embedding"), settings=settings)


def make_sequential_tower(settings: dict[str, Any]) -> SequentialTower:
    """Makes a tower whose weights all exist, by embedding an empty history.

    Args:
        settings: Arguments of `SequentialTower`.
    """
    tower = SequentialTower(**settings)
    histories = Histories.empty(
        1, num_features=len(settings["profile_sizes"]), num_numbers=settings["num_profile_numbers"]
    )
    steps = read_steps(histories, tf.zeros([1], tf.int64), length=settings["length"])
    encoded = tower.encode(tf.zeros([1, 1, settings["embedding_dim"]]), steps)
    customer = tower.describe_customers(histories.customer_index, histories.profile, histories.profile_numbers)
    tower.embed(encoded[:, 0], customer)
    return tower
