"""The selector: which candidates of a pool earn their place, learned from what generators said of those that were bought."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.models.encoders import squash

# Deviations from the mean beyond which a feature says no more.
_LIMIT = 5.0
NUM_CONTEXT = 2


def describe_pool(score: tf.Tensor, rank: tf.Tensor, *, num_candidates: int) -> tf.Tensor:
    """Makes features of what each generator said of each candidate.

    Args:
        score: `[num_pairs, num_generators]` float32, 0 where a generator did not name the candidate.
        rank: `[num_pairs, num_generators]` float32, from 1; 0 where it did not.
        num_candidates: Candidates that each generator was asked for.

    Returns:
        `[num_pairs, 3 * num_generators]` float32: whether it named the candidate; how near the top, from 1 for the first to 0
        for the last, by the logarithm; and the score's logarithm, with its sign.
    """
    named = tf.cast(rank > 0, tf.float32)
    height = 1.0 - tf.math.log(tf.maximum(rank, 1.0)) / float(np.log(num_candidates + 1))
    return tf.concat([named, named * height, named * squash(score)], axis=1)


class Selector(tf.keras.Model):
    """Scores candidates of a pool by what each generator said of them, by the customer and by the article.

    Args:
        num_generators: How many there are.
        num_candidates: Candidates that each was asked for.
        num_article_features: Features of articles.
        hidden_dims: Widths of the layers.
        seed: Of the initial weights.
    """

    def __init__(
        self,
        *,
        num_generators: int,
        num_candidates: int,
        num_article_features: int,
        hidden_dims: Sequence[int],
        seed: int,
    ) -> None:
        super().__init__(name="selector")
        self._num_candidates = num_candidates
        width = 3 * num_generators + NUM_CONTEXT + num_article_features
        self._mean = self.add_weight("mean", [width], initializer="zeros", trainable=False)
        self._scale = self.add_weight("scale", [width], initializer="ones", trainable=False)

        def dense(width: int, number: int, activation: str | None) -> tf.keras.layers.Dense:
            initializer = tf.keras.initializers.GlorotUniform(seed=seed + number)
            return tf.keras.layers.Dense(width, activation, kernel_initializer=initializer)

        self._layers = [dense(width, number, "relu") for number, width in enumerate(hidden_dims)]
        self._last = dense(1, len(hidden_dims), None)
        told = tf.zeros([0, num_generators])
        self(told, told, tf.zeros([0, NUM_CONTEXT]), tf.zeros([0, num_article_features]))

    def _inputs(self, score: tf.Tensor, rank: tf.Tensor, context: tf.Tensor, article: tf.Tensor) -> tf.Tensor:
        told = describe_pool(score, rank, num_candidates=self._num_candidates)
        return tf.concat([told, squash(context), squash(article)], axis=1)

    def adapt(self, score: np.ndarray, rank: np.ndarray, context: np.ndarray, article: np.ndarray) -> None:
        """Measures mean and deviation of each feature where it is known, over a sample of pairs; see `call`."""
        inputs = self._inputs(*(tf.constant(values, tf.float32) for values in (score, rank, context, article))).numpy()
        known = np.isfinite(inputs)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, inputs, 0.0).sum(axis=0) / count
        spread = np.where(known, inputs - mean, 0.0)
        self._mean.assign(mean)
        self._scale.assign(np.maximum(np.sqrt((spread**2).sum(axis=0) / count), 1e-3))

    def call(self, score: tf.Tensor, rank: tf.Tensor, context: tf.Tensor, article: tf.Tensor) -> tf.Tensor:
        """Scores pairs of a customer and a candidate.

        Args:
            score: See `describe_pool`.
            rank: See `describe_pool`.
            context: `[num_pairs, NUM_CONTEXT]` float32, of the customer: events of the history, days since the last one.
            article: `[num_pairs, num_article_features]` float32, NaN where unknown, which counts as the mean.

        Returns:
            `[num_pairs]` float32, the logit that the candidate is bought.
        """
        hidden: Any = (self._inputs(score, rank, context, article) - self._mean) / self._scale
        hidden = tf.where(tf.math.is_nan(hidden), 0.0, tf.clip_by_value(hidden, -_LIMIT, _LIMIT))
        for layer in self._layers:
            hidden = layer(hidden)
        return self._last(hidden)[:, 0]
