"""Fashion DNA: articles as vectors of what they are made of, which factorise who bought what."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.models.encoders import ArticleEncoder
from tfrs_fashion.models.losses import basket_sigmoid
from tfrs_fashion.models.recorded import RecordedModel


class FashionDna(tf.keras.Model):
    """The content of articles through dense layers to a narrow one, whose output is their Fashion DNA.

    It has no embedding of an article's own, so that an article never sold gets its vector by the same pass as any other.

    Args:
        encoder: Of articles, of which the content alone is read.
        hidden_dims: Widths of the layers before the narrow one.
        dim: Width of that.
        dropout: Share of each hidden layer that is left out in training.
        seed: Of the initial weights.

    Source: Heinz, Bracher and Vollgraf 2017, 2.2; Bracher, Heinz and Vollgraf 2016, Fashion DNA.
    """

    def __init__(
        self, encoder: ArticleEncoder, *, hidden_dims: Sequence[int], dim: int, dropout: float, seed: int
    ) -> None:
        super().__init__(name="fashion_dna")
        self._encoder = encoder
        self._layers = [
            tf.keras.layers.Dense(width, "relu", kernel_initializer=tf.keras.initializers.HeNormal(seed=seed + number))
            for number, width in enumerate(hidden_dims)
        ]
        self._dropout = tf.keras.layers.Dropout(dropout, seed=seed)
        self._narrow = tf.keras.layers.Dense(
            dim, kernel_initializer=tf.keras.initializers.GlorotUniform(seed=seed + 99)
        )
        self(tf.zeros([1], tf.int32))

    def call(self, article_index: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the Fashion DNA of `[num_articles]` int32 articles, `[num_articles, dim]` float32."""
        nothing = tf.zeros([tf.size(article_index)])
        # Without an own embedding what is encoded is the content; weekly sales are left out with it.
        hidden = self._encoder(article_index, tf.constant(0), nothing).side
        for layer in self._layers:
            hidden = self._dropout(layer(hidden), training=training)
        vectors: tf.Tensor = self._narrow(hidden)
        return vectors


class FashionDnaModel(RecordedModel):
    """The logistic factorisation `p = sigmoid(f·s + b)` of who bought what, by batches of articles.

    Args:
        dna: Makes f of an article.
        dim: Width of f, and of the styles s.
        share: `[num_customers]` float32, of the articles that each customer bought, where the odds of all begin (b).
        seed: Of the initial styles.
    """

    def __init__(self, dna: FashionDna, *, dim: int, share: np.ndarray, seed: int) -> None:
        super().__init__(name="fashion_dna")
        self.dna = dna
        self.style = self.add_weight(
            "style",
            [len(share), dim],
            initializer=tf.keras.initializers.RandomNormal(stddev=0.1 * dim**-0.5, seed=seed),
        )
        self.bias = self.add_weight(
            "bias", [len(share)], initializer=tf.keras.initializers.Constant(np.log(share / (1.0 - share)))
        )

    def compute_loss(self, inputs: dict[str, Any], training: bool = False) -> tf.Tensor:
        """Computes the mean cross-entropy of a batch of articles against all customers.

        Args:
            inputs: `article_index` `[batch]` int32, and `customer` `[batch, (any)]` ragged int32, who bought each.
            training: Whether something is left out.
        """
        vectors = self.dna(inputs["article_index"], training=training)
        customer = inputs["customer"]
        logits = tf.matmul(vectors, self.style, transpose_b=True) + self.bias
        losses = basket_sigmoid(
            logits, query=tf.cast(customer.value_rowids(), tf.int32), candidate=customer.flat_values
        )
        return tf.reduce_mean(losses)
