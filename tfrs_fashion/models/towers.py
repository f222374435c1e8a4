"""Towers: a query tower from customer, profile and history; a candidate tower from article and content.

Both end in one more dimension than `embedding_dim`: it lets the inner product carry how popular a candidate is.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.bought import BoughtArticles, bought_articles, keep_strongest
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.models.encoders import ArticleEncoder, HistoryEncoder
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX


class CandidateTower(tf.keras.Model):
    """Article embeddings with a bias, at length 1.

    Args:
        encoder: Shared with the histories of the query tower.
        initial_bias: `[num_articles + 2]` float32, e.g. from popularity.
    """

    def __init__(self, encoder: ArticleEncoder, initial_bias: np.ndarray) -> None:
        super().__init__(name="candidate_tower")
        self._encoder = encoder
        self._bias = self.add_weight(
            "bias", initial_bias.shape, initializer=tf.keras.initializers.Constant(initial_bias)
        )

    def call(self, article_index: tf.Tensor, embedding: tf.Tensor | None = None) -> tf.Tensor:
        """Embeds candidates.

        Args:
            article_index: `[num_candidates]` int32.
            embedding: `[num_candidates, embedding_dim]`, if the encoder was called already.

        Returns:
            `[num_candidates, embedding_dim + 1]` float32.
        """
        embedding = self._encoder(article_index) if embedding is None else embedding
        bias = tf.gather(self._bias, article_index)[:, tf.newaxis]
        return tf.math.l2_normalize(tf.concat([embedding, bias], axis=1), axis=1)


class QueryTower(tf.keras.Model):
    """Customer embeddings from the history, the profile and the customer's own embedding, at length 1.

    What the history says comes first: profile and customer start at zero and learn what it leaves unsaid.

    Args:
        num_customers: Customers with an embedding of their own; others share that of unknown customers.
        profile_sizes: Number of indices of each profile feature.
        embedding_dim: Width before the bias.
        time_scales_days: Time constants of the decayed counts of bought articles.
        num_articles: Articles of a history that are read: those with the largest decayed count.
        num_steps: See `HistoryEncoder`.
        seed: Of the initial weights.
    """

    def __init__(
        self,
        *,
        num_customers: int,
        profile_sizes: Sequence[int],
        embedding_dim: int,
        time_scales_days: Sequence[float],
        num_articles: int,
        num_steps: int,
        seed: int,
    ) -> None:
        super().__init__(name="query_tower")
        self._time_scales_days = tuple(time_scales_days)
        self._num_articles = num_articles
        self._base_time_scale = len(self._time_scales_days) // 2
        self._history = HistoryEncoder(
            embedding_dim=embedding_dim, num_steps=num_steps, base_time_scale=self._base_time_scale, seed=seed
        )
        self._customer_embedding = self.add_weight(
            "customer_embedding", [num_customers + FIRST_INDEX, embedding_dim], initializer="zeros"
        )
        self._profile_offset = tf.constant(np.cumsum([0, *profile_sizes])[:-1], tf.int32)
        self._profile_embedding = self.add_weight(
            "profile_embedding", [max(sum(profile_sizes), 1), embedding_dim], initializer="zeros"
        )
        self._bias = self.add_weight("bias", [], initializer="ones")

    def read(self, histories: Histories, now: tf.Tensor) -> tuple[BoughtArticles, BoughtArticles]:
        """Returns the distinct articles of histories, and those of them that `call` is to be given."""
        bought = bought_articles(histories, now, time_scales_days=self._time_scales_days)
        strength = bought.decayed[:, self._base_time_scale]
        return bought, keep_strongest(bought, strength, limit=self._num_articles)

    def call(self, bought: BoughtArticles, embedding: tf.Tensor, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Embeds queries.

        Args:
            bought: The strongest articles of each history; see `read`.
            embedding: `[num_pairs, embedding_dim]` float32, of these articles.
            histories: Of the batch, for customer and profile.
            now: `[batch]` int64, seconds since 1970.

        Returns:
            `[batch, embedding_dim + 1]` float32.
        """
        query = self._history(bought, embedding, now)
        known = histories.customer_index < tf.shape(self._customer_embedding)[0]
        customer_index = tf.where(known, histories.customer_index, OUT_OF_VOCABULARY_INDEX)
        query += tf.gather(self._customer_embedding, customer_index)
        query += tf.reduce_sum(tf.gather(self._profile_embedding, histories.profile + self._profile_offset), axis=1)
        bias = tf.fill([tf.shape(query)[0], 1], self._bias)
        return tf.math.l2_normalize(tf.concat([query, bias], axis=1), axis=1)
