"""The next category: a tower over sequences with a softmax over categories on top."""

from typing import Any

import tensorflow as tf

from tfrs_fashion.features.sequences import Steps
from tfrs_fashion.models.encoders import ArticleEncoder, GivenArticles
from tfrs_fashion.models.recorded import RecordedModel
from tfrs_fashion.models.sequential import SequentialTower, embed_targets, mean_loss


def stretch(query: tf.Tensor) -> tf.Tensor:
    """Makes each part of `[batch, width]` queries of length 1 about 1, as a layer behind them is used to."""
    return query * tf.sqrt(tf.cast(tf.shape(query)[1], tf.float32))


class NextCategoryModel(RecordedModel):
    """Predicts of which category each next purchase is, by cross-entropy.

    Args:
        encoder: Of articles.
        tower: See `SequentialTower`.
        category: `[num_articles + 2]` int32, 0 where unknown, which is not learned from.
        num_categories: Categories, 0 among them.
        article_dropout: Share of the articles of a batch that are their content alone.
        seed: Of the initial weights.
        name: Of the model, as progress shows it.
    """

    def __init__(
        self,
        encoder: ArticleEncoder | GivenArticles,
        tower: SequentialTower,
        *,
        category: tf.Tensor,
        num_categories: int,
        article_dropout: float,
        seed: int,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.encoder = encoder
        self.tower = tower
        self.head = tf.keras.layers.Dense(
            num_categories, kernel_initializer=tf.keras.initializers.GlorotUniform(seed=seed)
        )
        self.head(tf.zeros([1, tower.embedding_dim + 1]))
        self._category = tf.constant(category, tf.int32)
        self._article_dropout = article_dropout

    def compute_loss(self, inputs: dict[str, Any], training: bool = False) -> tf.Tensor:
        """Computes the mean loss of the targets of a batch of `features.sequences.make_sequence_dataset`."""
        steps: Steps = inputs["steps"]
        category = tf.gather(self._category, inputs["next_article"])
        place = tf.where(inputs["is_target"] & (category > 0))
        articles, column = tf.unique(tf.reshape(steps.article_index, [-1]))
        keep = tf.cast(tf.random.uniform(tf.shape(articles)) >= self._article_dropout, tf.float32)
        encoded = self.encoder(articles, tf.constant(0), keep)
        vectors = tf.gather(encoded.embedding, tf.reshape(column, tf.shape(steps.time)))
        query = embed_targets(self.tower, vectors, steps, inputs, place, training=training)
        logits = self.head(stretch(query))
        return mean_loss(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather_nd(category, place), logits))
