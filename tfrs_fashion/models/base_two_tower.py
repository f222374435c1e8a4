"""The base model of two towers: who the customer is against what the article is, told apart from random pairs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.models.encoders import CategoryEncoder
from tfrs_fashion.models.recorded import RecordedModel
from tfrs_fashion.settings.base import CategoryEncoding


class BaseTower(tf.keras.Model):
    """An index and categorical features as one vector: a linear layer, or several with rectifiers between.

    Args:
        sizes: Number of indices of each feature, the index itself among them.
        embedding_dim: Width of the output.
        encoding: See `CategoryEncoder`.
        hidden_dims: Widths of the layers before the last one; none for a shallow tower.
        seed: Of the initial weights.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        embedding_dim: int,
        encoding: CategoryEncoding,
        hidden_dims: Sequence[int],
        seed: int,
    ) -> None:
        super().__init__(name="base_tower")
        first, *others = *hidden_dims, embedding_dim
        self._encoder = CategoryEncoder(sizes, output_dim=first, encoding=encoding, scale=1.0, seed=seed)
        self._bias = self.add_weight("bias", [first], initializer="zeros")
        self._layers = [
            tf.keras.layers.Dense(width, kernel_initializer=tf.keras.initializers.GlorotUniform(seed=seed + number))
            for number, width in enumerate(others, start=1)
        ]
        self(tf.zeros([0, len(sizes)], tf.int32))

    def call(self, index: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch, num_features]` int32 as `[batch, embedding_dim]` float32."""
        hidden = self._encoder(index) + self._bias
        for layer in self._layers:
            hidden = layer(tf.nn.relu(hidden))
        return hidden


class BaseTwoTowerModel(RecordedModel):
    """Two towers whose inner product's sigmoid is 1 for what was bought, and 0 for as many random articles.

    Args:
        query_tower: Of customers: their index and the categorical features of their profiles.
        candidate_tower: Of articles: their index and their categorical features.
        features: `[num_articles + 2, num_features]` int32, of articles.
        negatives: `[any]` int32, the articles that negatives are drawn from, each as likely.

    Source: Ziolo's first two towers on H&M: random negatives, mean squared error.
    """

    def __init__(
        self, query_tower: BaseTower, candidate_tower: BaseTower, *, features: np.ndarray, negatives: np.ndarray
    ) -> None:
        super().__init__(name="base_two_tower")
        self._query_tower = query_tower
        self._candidate_tower = candidate_tower
        self._features = tf.constant(features, tf.int32)
        self._negatives = tf.constant(negatives, tf.int32)

    def embed_queries(self, customer_index: tf.Tensor, profile: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch]` customers with `[batch, num_features]` int32 profiles as `[batch, embedding_dim]`."""
        return self._query_tower(tf.concat([customer_index[:, tf.newaxis], profile], axis=1))

    def embed_candidates(self, article_index: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch]` int32 articles as `[batch, embedding_dim]` float32."""
        return self._candidate_tower(
            tf.concat([article_index[:, tf.newaxis], tf.gather(self._features, article_index)], axis=1)
        )

    def compute_loss(self, inputs: dict[str, Any], training: bool = False) -> tf.Tensor:
        """Computes the loss of a batch of `features.inputs.make_training_dataset`, of which histories are not read.

        A query is computed once a basket, whatever the number of its articles.
        """
        histories, target = inputs["histories"], inputs["target"]
        positive = target.flat_values
        number = tf.random.uniform(tf.shape(positive), maxval=tf.size(self._negatives), dtype=tf.int32)
        row = target.value_rowids()
        query = tf.gather(self.embed_queries(histories.customer_index, histories.profile), tf.concat([row, row], 0))
        candidate = self.embed_candidates(tf.concat([positive, tf.gather(self._negatives, number)], axis=0))
        bought = tf.concat([tf.ones_like(positive, tf.float32), tf.zeros_like(positive, tf.float32)], axis=0)
        return tf.reduce_mean(tf.square(tf.sigmoid(tf.reduce_sum(query * candidate, axis=1)) - bought))
