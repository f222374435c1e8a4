"""Towers: a query tower from customer, profile and history; a candidate tower from article, content and recent sales.

Both end in one more dimension than `embedding_dim`: it lets the inner product carry how popular a candidate is.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.bought_articles import BoughtArticles, bought_articles, keep_strongest
from tfrs_fashion.features.history import HistoryFeatures
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.models.encoders import (
    ArticleEncoder,
    CategoryEncoder,
    CategoryEncoding,
    EncodedArticles,
    GivenArticles,
    NumberEncoder,
    NumberEncoding,
)
from tfrs_fashion.models.history_encoder import HistoryEncoder
from tfrs_fashion.schema import FIRST_INDEX


def residual(hidden_dims: Sequence[int], output_dim: int, *, seed: int) -> tf.keras.Sequential | None:
    """Makes the layers that deepen a tower: they start as nothing, and add to what they are given.

    Args:
        hidden_dims: Widths; none for a shallow tower.
        output_dim: Width of the output.
        seed: Of the initial weights.
    """
    if not hidden_dims:
        return None
    normal = tf.keras.initializers.HeNormal
    layers = [
        tf.keras.layers.Dense(width, "relu", kernel_initializer=normal(seed=seed + number))
        for number, width in enumerate(hidden_dims)
    ]
    return tf.keras.Sequential([*layers, tf.keras.layers.Dense(output_dim, kernel_initializer="zeros")])


class CandidateTower(tf.keras.Model):
    """Article embeddings with a bias, scaled and moved by what an article is made of and how it sold lately.

    Args:
        encoder: Shared with the histories of the query tower.
        initial_bias: `[num_articles + 2]` float32, e.g. from popularity.
        embedding_dim: Width before the bias.
        hidden_dims: Widths of a deep tower.
        seed: Of the initial weights.
    """

    def __init__(
        self,
        encoder: ArticleEncoder | GivenArticles,
        initial_bias: np.ndarray,
        *,
        embedding_dim: int,
        hidden_dims: Sequence[int] = (),
        seed: int = 1,
    ) -> None:
        super().__init__(name="candidate_tower")
        self._encoder = encoder
        self._bias = self.add_weight(
            "bias", initial_bias.shape, initializer=tf.keras.initializers.Constant(initial_bias)
        )
        self._move = tf.keras.layers.Dense(embedding_dim + 1, kernel_initializer="zeros", use_bias=False)
        self._log_scale = tf.keras.layers.Dense(1, kernel_initializer="zeros", use_bias=False)
        self._deep = residual(hidden_dims, embedding_dim + 1, seed=seed)

    def call(
        self,
        article_index: tf.Tensor,
        week: tf.Tensor,
        encoded: EncodedArticles | None = None,
        keep: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Embeds candidates.

        Args:
            article_index: `[num_candidates]` int32.
            week: Scalar int32, whole weeks before the cutoff.
            encoded: The same articles, if the encoder was called already.
            keep: `[num_candidates]` float32, 0 where what belongs to the article alone is dropped.

        Returns:
            `[num_candidates, embedding_dim + 1]` float32, of any length.
        """
        embedding, side = self._encoder(article_index, week) if encoded is None else encoded
        bias = tf.gather(self._bias, article_index) * (1.0 if keep is None else keep)
        scaled = embedding * tf.exp(tf.clip_by_value(self._log_scale(side), -2.0, 2.0))
        candidate = tf.concat([scaled, bias[:, tf.newaxis]], axis=1) + self._move(side)
        if self._deep is not None:
            candidate += self._deep(tf.concat([embedding, side], axis=1))
        return candidate


class QueryTower(tf.keras.Model):
    """Customer embeddings from the history, its features, the profile and the customer's own embedding, at length 1.

    What the history says comes first: everything else starts at zero and learns what it leaves unsaid.

    Args:
        num_customers: Customers that may have an embedding of their own; others share that of strangers.
        num_own: Customers that do.
        profile_sizes: Number of indices of each categorical profile feature.
        num_profile_numbers: Numeric profile features.
        history_sizes: Number of indices of each categorical history feature.
        num_history_numbers: Numeric history features.
        number_encoding: See `NumberEncoder`.
        num_bins: Bins of a numeric feature.
        embedding_dim: Width before the bias.
        time_scales_days: Time constants of the decayed counts of bought articles.
        num_articles: Articles of a history that are read: those with the largest decayed count.
        num_steps: See `HistoryEncoder`.
        history_gain: See `HistoryEncoder`.
        encoding: Of the categorical features.
        hidden_dims: Widths of a deep tower.
        seed: Of the initial weights.
    """

    def __init__(
        self,
        *,
        num_customers: int,
        num_own: int,
        profile_sizes: Sequence[int],
        num_profile_numbers: int,
        history_sizes: Sequence[int],
        num_history_numbers: int,
        number_encoding: NumberEncoding,
        num_bins: int,
        embedding_dim: int,
        time_scales_days: Sequence[float],
        num_articles: int,
        num_steps: int,
        history_gain: float,
        encoding: CategoryEncoding,
        hidden_dims: Sequence[int],
        seed: int,
    ) -> None:
        super().__init__(name="query_tower")
        self._time_scales_days = tuple(time_scales_days)
        self._num_articles = num_articles
        self._base_time_scale = len(self._time_scales_days) // 2
        self._history = HistoryEncoder(
            embedding_dim=embedding_dim,
            num_steps=num_steps,
            base_time_scale=self._base_time_scale,
            gain=history_gain,
            seed=seed,
        )
        self._id_index = self.add_weight(
            "id_index", [num_customers + FIRST_INDEX], dtype=tf.int32, initializer="zeros", trainable=False
        )
        self._customer_embedding = self.add_weight(
            "customer_embedding", [num_own + 1, embedding_dim], initializer="zeros"
        )
        self._categories = CategoryEncoder(
            [*profile_sizes, *history_sizes], output_dim=embedding_dim, encoding=encoding, scale=0.0, seed=seed
        )
        self._numbers = NumberEncoder(num_profile_numbers + num_history_numbers, num_bins, number_encoding)
        self._from_numbers = tf.keras.layers.Dense(embedding_dim + 1, kernel_initializer="zeros")
        self._weigh = tf.keras.layers.Dense(2, kernel_initializer="zeros", use_bias=False)
        self._bias = self.add_weight("bias", [], initializer="ones")
        self._deep = residual(hidden_dims, embedding_dim + 1, seed=seed)

    def fit(self, id_index: np.ndarray, numbers: np.ndarray) -> None:
        """Sets what is not learned.

        Args:
            id_index: `[num_customers + 2]` int32, the row of each customer's own embedding; 0 for strangers.
            numbers: `[num_rows, num_profile_numbers + num_history_numbers]` float32, of rows that may be seen.
        """
        self._id_index.assign(id_index)
        self._numbers.fit(numbers)

    def read(self, histories: Histories, now: tf.Tensor) -> tuple[BoughtArticles, BoughtArticles]:
        """Returns the distinct articles of histories, and those of them that `call` is to be given."""
        bought = bought_articles(histories, now, time_scales_days=self._time_scales_days)
        strength = bought.decayed[:, self._base_time_scale]
        return bought, keep_strongest(bought, strength, limit=self._num_articles)

    def weigh(self, side: tf.Tensor) -> tf.Tensor:
        """Tells how much articles of a history weigh by what they are, `[num_articles, 2]` float32.

        Args:
            side: `[num_articles, any]` float32; see `EncodedArticles`.
        """
        weight: tf.Tensor = self._weigh(side)
        return weight

    def call(
        self,
        bought: BoughtArticles,
        embedding: tf.Tensor,
        weight: tf.Tensor,
        histories: Histories,
        features: HistoryFeatures,
        now: tf.Tensor,
        keep: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Embeds queries.

        Args:
            bought: The strongest articles of each history; see `read`.
            embedding: `[num_pairs, embedding_dim]` float32, of these articles.
            weight: `[num_pairs, 2]` float32, of these articles; see `weigh`.
            histories: Of the batch, for customer and profile.
            features: Of the same histories.
            now: `[batch]` int64, seconds since 1970.
            keep: `[batch]` int32, 0 where the customer's own embedding is dropped.

        Returns:
            `[batch, embedding_dim + 1]` float32.
        """
        query = self._history(bought, embedding, weight, now)
        known = histories.customer_index < tf.shape(self._id_index)[0]
        row = tf.gather(self._id_index, tf.where(known, histories.customer_index, 0)) * (1 if keep is None else keep)
        query += tf.gather(self._customer_embedding, row)
        query += self._categories(tf.concat([histories.profile, features.categorical], axis=1))
        query = tf.concat([query, tf.fill([tf.shape(query)[0], 1], self._bias)], axis=1)
        sides = [query]
        if self._numbers.output_dim:
            numbers = self._numbers(tf.concat([histories.profile_numbers, features.numbers], axis=1))
            query += self._from_numbers(numbers)
            sides.append(numbers)
        if self._deep is not None:
            query += self._deep(tf.concat(sides, axis=1))
        return tf.math.l2_normalize(query, axis=1)
