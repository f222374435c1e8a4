"""The history encoder: what was bought, as one vector."""

import tensorflow as tf

from tfrs_fashion.features.bought_articles import BoughtArticles
from tfrs_fashion.features.inputs import SECONDS_PER_DAY


class HistoryEncoder(tf.keras.layers.Layer):
    """A history as a weighted sum of its articles, whose weights are learned from how often and how lately each came.

    The sum of many embeddings resembles each of them less and less, because they are not quite orthogonal. A few steps
    of gradient descent towards the vector whose inner product with each article is that article's weight undo much of
    that. (This is a Landweber iteration for a least-squares problem, with learned step sizes.)

    Args:
        embedding_dim: Width of the article embeddings.
        num_steps: Steps of that descent; 0 leaves the plain sum.
        base_time_scale: Which of the decayed counts the weights start from.
        power: Exponent of that count at the start.
        gain: Length of the weighted sum at the start; 0 where nobody buys an article twice.
        hidden_dim: Width of the layer behind the weights.
        seed: Of the initial weights.
    """

    def __init__(
        self,
        *,
        embedding_dim: int,
        num_steps: int,
        base_time_scale: int,
        power: float = 1.5,
        gain: float = 1.0,
        hidden_dim: int = 16,
        seed: int = 1,
    ) -> None:
        super().__init__(name="history_encoder")
        self._base_time_scale = base_time_scale
        self._power = power
        initial = tf.keras.initializers.RandomNormal
        self._hidden = tf.keras.layers.Dense(hidden_dim, "relu", kernel_initializer=initial(stddev=0.3, seed=seed))
        self._weight = tf.keras.layers.Dense(2, kernel_initializer=initial(stddev=0.1, seed=seed + 1))
        # The second sum, through a map that starts at zero, adds what goes with the history beside the history itself.
        self._related = tf.keras.layers.Dense(embedding_dim, kernel_initializer="zeros")
        self._gain = self.add_weight("gain", [], initializer=tf.keras.initializers.Constant(gain))
        self._log_step = self.add_weight("log_step", [num_steps], initializer=tf.keras.initializers.Constant(-1.2))
        self._num_steps = num_steps

    def _features(self, bought: BoughtArticles, now: tf.Tensor) -> tf.Tensor:
        def days(seconds: tf.Tensor) -> tf.Tensor:
            return tf.maximum(tf.cast(seconds, tf.float32) / SECONDS_PER_DAY, 0.0)[:, tf.newaxis]

        recency = days(tf.gather(now, bought.row) - bought.last_time)
        num_baskets = tf.cast(bought.num_baskets, tf.float32)[:, tf.newaxis]
        # Bought once, an article has no gap yet; what has come round is due.
        gap = tf.math.divide_no_nan(days(bought.last_time - bought.first_time), num_baskets - 1.0)
        due = tf.clip_by_value(tf.math.divide_no_nan(recency, gap), 0.0, 4.0)
        return tf.concat(
            [
                tf.math.log1p(bought.decayed),
                tf.math.log1p(recency) / 3.0,
                tf.math.log1p(num_baskets),
                tf.exp(-recency / 7.0),
                tf.exp(-recency / 2.0),
                tf.math.log1p(gap) / 3.0,
                tf.cast(num_baskets > 1.0, tf.float32),
                due,
                tf.minimum(due, 1.0),
                bought.share[:, tf.newaxis],
                tf.math.log(bought.share[:, tf.newaxis] + 1e-3) / 3.0,
            ],
            axis=1,
        )

    def call(self, bought: BoughtArticles, embedding: tf.Tensor, weight: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
        """Encodes histories.

        Args:
            bought: The distinct articles of each history.
            embedding: `[num_pairs, embedding_dim]` float32, of these articles, at length 1.
            weight: `[num_pairs, 2]` float32, added to the logarithm of each article's two weights.
            now: `[batch]` int64, seconds since 1970.

        Returns:
            `[batch, embedding_dim]` float32; zero plus a constant where a history is empty.
        """
        num_rows = tf.shape(now, out_type=tf.int64)[0]
        start = self._power * tf.math.log(bought.decayed[:, self._base_time_scale] + 1e-3)
        log_weight = self._weight(self._hidden(self._features(bought, now))) + start[:, tf.newaxis] + weight
        weight = tf.exp(tf.clip_by_value(log_weight, -12.0, 6.0))

        def total(values: tf.Tensor) -> tf.Tensor:
            return tf.math.unsorted_segment_sum(values, bought.row, num_rows)

        length = tf.sqrt(total(tf.square(weight[:, 0])))
        wanted = tf.math.divide_no_nan(weight[:, 0], tf.gather(length, bought.row))
        own = total(wanted[:, tf.newaxis] * embedding)
        for step in range(self._num_steps):
            reached = tf.reduce_sum(tf.gather(own, bought.row) * embedding, axis=1)
            error = (wanted - reached) * (wanted + 0.1)
            own += tf.exp(self._log_step[step]) * total(error[:, tf.newaxis] * embedding)
        related = self._related(_unit(total(weight[:, 1:] * embedding)))
        return self._gain * _unit(own) + related


def _unit(vectors: tf.Tensor) -> tf.Tensor:
    return tf.math.l2_normalize(vectors, axis=1, epsilon=1e-6)
