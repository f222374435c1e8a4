"""The multi-layer perceptron over baskets: what was bought in, the odds of every article in store out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.bought_articles import bought_articles, keep_strongest
from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.models.encoders import multiply_sparse
from tfrs_fashion.models.losses import basket_sigmoid
from tfrs_fashion.models.recorded import RecordedModel
from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX


class BasketEncoder(tf.keras.Model):
    """Hidden layers over the articles of a history.

    The input is a sparse multi-hot vector of what was bought, of length 1: the first layer adds up one row of its kernel
    for each article, and no `[batch, num_articles]` input is ever made.

    Args:
        size: Article indices, padding and out of vocabulary among them.
        hidden_dims: Widths of the layers, at least one.
        history_articles: Articles of a history that are read, those bought last.
        dropout: Share of each layer's outputs that are left out in training.
        seed: Of the initial weights.

    Source: Ziolo compared layers of (100) and of (500, 100) for the next basket on H&M.
    """

    def __init__(
        self, *, size: int, hidden_dims: Sequence[int], history_articles: int, dropout: float, seed: int
    ) -> None:
        super().__init__(name="basket_encoder")
        self._size = size
        self._history_articles = history_articles
        # Small, so that articles which few baskets teach add little noise.
        self._kernel = self.add_weight(
            "kernel", [size, hidden_dims[0]], initializer=tf.keras.initializers.RandomNormal(stddev=0.1, seed=seed)
        )
        self._bias = self.add_weight("bias", [hidden_dims[0]], initializer="zeros")
        self._layers = [
            tf.keras.layers.Dense(width, "relu", kernel_initializer=tf.keras.initializers.HeNormal(seed=seed + number))
            for number, width in enumerate(hidden_dims[1:], start=1)
        ]
        self._dropout = tf.keras.layers.Dropout(dropout, seed=seed)
        self(Histories.empty(1, num_features=0, num_numbers=0), tf.zeros([1], tf.int64))

    def call(self, histories: Histories, now: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes what was bought.

        Args:
            histories: Of a batch.
            now: `[batch]` int64, seconds since 1970.
            training: Whether outputs are dropped.

        Returns:
            `[batch, hidden_dims[-1]]` float32, and `[batch]` int32, the articles that were read.
        """
        bought = bought_articles(histories, now)
        age_days = tf.cast(tf.gather(now, bought.row) - bought.last_time, tf.float32) / SECONDS_PER_DAY
        latest = keep_strongest(bought, 1.0 / (1.0 + tf.maximum(age_days, 0.0)), limit=self._history_articles)
        # An article that came into the catalogue after the fit has no row.
        is_known = latest.article_index < self._size
        batch = histories.article_index.nrows()
        num_read = tf.math.unsorted_segment_sum(tf.cast(is_known, tf.int32), latest.row, batch)
        weight = tf.math.rsqrt(tf.cast(tf.maximum(tf.gather(num_read, latest.row), 1), tf.float32))
        summed = multiply_sparse(
            self._kernel,
            latest.row,
            tf.where(is_known, latest.article_index, PADDING_INDEX),
            tf.where(is_known, weight, 0.0),
            batch,
        )
        hidden = self._dropout(tf.nn.relu(summed + self._bias), training=training)
        for layer in self._layers:
            hidden = self._dropout(layer(hidden), training=training)
        return hidden, num_read


class BasketModel(RecordedModel):
    """Independent sigmoids over all candidates, trained on the next basket.

    Args:
        encoder: See `BasketEncoder`.
        candidates: `[num_candidates]` int32 article indices; what else a basket holds is not learned from.
        share: `[num_candidates]` float32, of all baskets that hold each, where the odds begin.
        hidden_dim: Width of the encoder's output.
        seed: Of the initial weights.
    """

    def __init__(
        self, encoder: BasketEncoder, candidates: np.ndarray, *, share: np.ndarray, hidden_dim: int, seed: int
    ) -> None:
        super().__init__(name="basket_mlp")
        self.encoder = encoder
        column = np.full(int(candidates.max(initial=FIRST_INDEX)) + 1, -1, np.int32)
        column[candidates] = np.arange(len(candidates), dtype=np.int32)
        self._column = tf.constant(column)
        self._kernel = self.add_weight(
            "output_kernel",
            [len(candidates), hidden_dim],
            initializer=tf.keras.initializers.RandomNormal(stddev=0.1 * hidden_dim**-0.5, seed=seed),
        )
        # Beginning at even odds, the model would spend its first epochs on how rare every article is.
        self._bias = self.add_weight(
            "output_bias", [len(candidates)], initializer=tf.keras.initializers.Constant(np.log(share / (1.0 - share)))
        )

    def compute_loss(self, inputs: dict[str, Any], training: bool = False) -> tf.Tensor:
        """Computes the mean loss of the baskets of a batch of `features.inputs.make_training_dataset`."""
        hidden, _num_read = self.encoder(inputs["histories"], inputs["now"], training=training)
        target = inputs["target"]
        known = tf.minimum(target.flat_values, tf.size(self._column) - 1)
        column = tf.where(known == target.flat_values, tf.gather(self._column, known), -1)
        is_candidate = tf.where(column >= 0)[:, 0]
        return tf.reduce_mean(
            basket_sigmoid(
                tf.matmul(hidden, self._kernel, transpose_b=True) + self._bias,
                query=tf.gather(tf.cast(target.value_rowids(), tf.int32), is_candidate),
                candidate=tf.gather(column, is_candidate),
            )
        )

    def candidate_embedding(self) -> np.ndarray:
        """Returns `[num_candidates, hidden_dim + 1]` float32, to be multiplied with the hidden layer and a 1."""
        return np.concatenate([self._kernel.numpy(), self._bias.numpy()[:, np.newaxis]], axis=1)
