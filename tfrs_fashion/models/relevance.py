"""The relevance classifier: how often a customer buys an article, low, medium or high, from ids, amounts and words."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_fashion.features.hashed_words import HashedWords
from tfrs_fashion.models.encoders import NumberEncoder, WordEncoder
from tfrs_fashion.models.recorded import RecordedModel
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX

Imbalance = Literal["none", "weights", "focal"]


def focal(label: tf.Tensor, logits: tf.Tensor, *, focus: float = 2.0) -> tf.Tensor:
    """Computes the cross-entropy of each row, less the surer it is.

    Args:
        label: `[num_rows]` int32.
        logits: `[num_rows, num_classes]` float32.
        focus: Power by which sure ones count less; 0 is the cross-entropy.

    Returns:
        `[num_rows]` float32, `-(1 - p)^focus log p` of the probability p of the label.

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 4.
    """
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits)
    return (1.0 - tf.exp(-entropy)) ** focus * entropy


def class_weights(label: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns `[num_classes]` float32, by which every class that there is weighs alike and a row 1 on average."""
    count = np.bincount(label, minlength=num_classes)
    present = max(int((count > 0).sum()), 1)
    return np.where(count > 0, len(label) / (present * np.maximum(count, 1)), 0.0).astype(np.float32)


class RelevanceNetwork(tf.keras.Model):
    """Tells classes of pairs from embeddings and biases of customer and article, numbers and words.

    Args:
        words: Of the descriptions of all articles; None leaves them out.
        num_customers: Customers known.
        num_articles: Articles known.
        num_features: Numbers of a pair.
        num_bins: Bins of each.
        embedding_dim: Width of the embeddings.
        hidden_dims: Widths of the dense layers.
        dropout: Share of inputs and layers that is left out in training.
        num_classes: How many.
        seed: Of the initial weights.
    """

    def __init__(
        self,
        words: HashedWords | None,
        *,
        num_customers: int,
        num_articles: int,
        num_features: int,
        num_bins: int,
        embedding_dim: int,
        hidden_dims: Sequence[int],
        dropout: float,
        num_classes: int,
        seed: int,
    ) -> None:
        super().__init__(name="relevance_network")
        small = tf.keras.initializers.RandomNormal(stddev=0.05, seed=seed)
        # The last numbers of each are its biases, one a class.
        self._customer = self.add_weight(
            "customer", [num_customers + FIRST_INDEX, embedding_dim + num_classes], initializer=small
        )
        self._article = self.add_weight(
            "article", [num_articles + FIRST_INDEX, embedding_dim + num_classes], initializer=small
        )
        self._numbers = NumberEncoder(num_features, num_bins, "quantile")
        self._words = WordEncoder(words, output_dim=embedding_dim, scale=1.0, seed=seed + 1) if words else None
        glorot = tf.keras.initializers.GlorotUniform
        self._layers = [
            tf.keras.layers.Dense(units, "relu", kernel_initializer=glorot(seed=seed + 2 + number))
            for number, units in enumerate(hidden_dims)
        ]
        self._last = tf.keras.layers.Dense(num_classes, kernel_initializer=glorot(seed=seed + 20))
        self._dropout = tf.keras.layers.Dropout(dropout, seed=seed)
        self._num_classes = num_classes
        nothing = tf.zeros([1], tf.int32)
        self(nothing, nothing, tf.zeros([1, num_features]))

    def fit(self, features: np.ndarray) -> None:
        """Sets the bins of the numbers, `[num_rows, num_features]` float32, NaN where unknown."""
        self._numbers.fit(features)

    def call(
        self, customer_index: tf.Tensor, article_index: tf.Tensor, features: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Tells the classes of pairs.

        Args:
            customer_index: `[num_pairs]` int32; those beyond what is known are unknown.
            article_index: `[num_pairs]` int32, as above.
            features: `[num_pairs, num_features]` float32, NaN where unknown.
            training: Whether something is left out.

        Returns:
            `[num_pairs, num_classes]` float32 logits.
        """
        customer, article = (
            tf.where(index < tf.shape(table)[0], index, OUT_OF_VOCABULARY_INDEX)
            for index, table in ((customer_index, self._customer), (article_index, self._article))
        )
        of_customer, of_article = tf.gather(self._customer, customer), tf.gather(self._article, article)
        width = -self._num_classes
        parts = [of_customer[:, :width], of_article[:, :width], self._numbers(features)]
        if self._words is not None:
            parts.append(self._words(article))
        hidden = self._dropout(tf.concat(parts, axis=1), training=training)
        for layer in self._layers:
            hidden = self._dropout(layer(hidden), training=training)
        logits: tf.Tensor = self._last(hidden) + of_customer[:, width:] + of_article[:, width:]
        return logits


class _Focal(tf.keras.losses.Loss):
    """`focal`, as a task of TFRS takes it."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return focal(y_true, y_pred)


class RelevanceModel(RecordedModel):
    """A relevance network and its task.

    Args:
        network: Tells classes.
        imbalance: `weights` lets every class weigh alike, `focal` what is not sure yet weigh more.
        weights: `[num_classes]` float32, see `class_weights`.
        name: Of the model, as progress shows it.
    """

    def __init__(self, network: RelevanceNetwork, *, imbalance: Imbalance, weights: np.ndarray, name: str) -> None:
        super().__init__(name=name)
        self.network = network
        entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._task = tfrs.tasks.Ranking(loss=_Focal() if imbalance == "focal" else entropy)
        used = weights if imbalance == "weights" else np.ones_like(weights)
        self._weights = tf.constant(used, tf.float32)

    def compute_loss(self, inputs: dict[str, Any], training: bool = False) -> tf.Tensor:
        """Computes the mean loss of `customer_index`, `article_index`, `features` and `label`, `[batch]` int32."""
        logits = self.network(inputs["customer_index"], inputs["article_index"], inputs["features"], training=training)
        weight = tf.gather(self._weights, inputs["label"])
        loss: tf.Tensor = self._task(labels=inputs["label"], predictions=logits, sample_weight=weight)
        return loss
