"""The selector: which candidates of a pool earn their place, learned from what generators said of those that were bought."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_SCORE_LIMIT = 5.0


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
    size = tf.sign(score) * tf.math.log1p(tf.abs(score))
    return tf.concat([named, named * height, named * size], axis=1)


class Selector(tf.keras.Model):
    """Scores candidates of a pool by what each generator said of them, and by how long the history is.

    Args:
        num_generators: How many there are.
        num_candidates: Candidates that each was asked for.
        hidden_dims: Widths of the layers.
        seed: Of the initial weights.
    """

    def __init__(self, *, num_generators: int, num_candidates: int, hidden_dims: Sequence[int], seed: int) -> None:
        super().__init__(name="selector")
        self._num_candidates = num_candidates
        width = 3 * num_generators + 1
        self._mean = self.add_weight("mean", [width], initializer="zeros", trainable=False)
        self._scale = self.add_weight("scale", [width], initializer="ones", trainable=False)

        def dense(width: int, number: int, activation: str | None) -> tf.keras.layers.Dense:
            initializer = tf.keras.initializers.GlorotUniform(seed=seed + number)
            return tf.keras.layers.Dense(width, activation, kernel_initializer=initializer)

        self._layers = [dense(width, number, "relu") for number, width in enumerate(hidden_dims)]
        self._last = dense(1, len(hidden_dims), None)
        self(tf.zeros([0, num_generators]), tf.zeros([0, num_generators]), tf.zeros([0]))

    def _inputs(self, score: tf.Tensor, rank: tf.Tensor, num_events: tf.Tensor) -> tf.Tensor:
        told = describe_pool(score, rank, num_candidates=self._num_candidates)
        return tf.concat([told, tf.math.log1p(num_events)[:, tf.newaxis]], axis=1)

    def adapt(self, score: np.ndarray, rank: np.ndarray, num_events: np.ndarray) -> None:
        """Measures mean and deviation of each feature, over a sample of pairs."""
        inputs = self._inputs(tf.constant(score), tf.constant(rank), tf.constant(num_events)).numpy()
        self._mean.assign(inputs.mean(axis=0))
        self._scale.assign(np.maximum(inputs.std(axis=0), 1e-3))

    def call(self, score: tf.Tensor, rank: tf.Tensor, num_events: tf.Tensor) -> tf.Tensor:
        """Scores pairs of a customer and a candidate.

        Args:
            score: See `describe_pool`.
            rank: See `describe_pool`.
            num_events: `[num_pairs]` float32, length of the customer's history.

        Returns:
            `[num_pairs]` float32, the logit that the candidate is bought.
        """
        hidden: Any = (self._inputs(score, rank, num_events) - self._mean) / self._scale
        hidden = tf.clip_by_value(hidden, -_SCORE_LIMIT, _SCORE_LIMIT)
        for layer in self._layers:
            hidden = layer(hidden)
        return self._last(hidden)[:, 0]
