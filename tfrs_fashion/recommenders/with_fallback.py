"""A recommender with a fallback, for customers whom it cannot answer and for lists that are too short."""

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.recommenders.recommender import Recommendations, Recommender
from tfrs_fashion.schema import PADDING_INDEX


class WithFallback(tf.Module):
    """A recommender's list, filled up by a fallback: the answer of an artifact.

    Args:
        recommender: Answers customers with a history.
        fallback: Answers the others, and fills lists that are too short. Its scores are not negative.
    """

    def __init__(self, recommender: Recommender, fallback: Recommender) -> None:
        super().__init__(name=recommender.name)
        self._recommender = recommender
        self._fallback = fallback

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends; see `Recommender`.

        Scores never rise along a list: the fallback's are below the recommender's own, and below 0, so that they cannot
        be taken for probabilities.
        """
        answer = self._recommender(histories, now=now, k=k, exclude=exclude)
        article_index = answer.article_index
        if self._recommender.needs_history:
            has_history = histories.article_index.row_lengths()[:, tf.newaxis] > 0
            article_index = tf.where(has_history, article_index, PADDING_INDEX)
        is_found = article_index != PADDING_INDEX
        num_found = tf.reduce_sum(tf.cast(is_found, tf.int32), axis=1, keepdims=True)
        fill = self._fallback(histories, now=now, k=k, exclude=tf.concat([exclude, article_index], axis=1))
        lowest = tf.reduce_min(tf.where(is_found, answer.score, np.inf), axis=1, keepdims=True)
        lowest = tf.where(num_found > 0, lowest, 0.0)
        position = tf.maximum(tf.range(k)[tf.newaxis, :] - num_found, 0)
        fill_index = tf.gather(fill.article_index, position, batch_dims=1)
        fill_score = tf.minimum(lowest, 0.0) - 1.0 / (1.0 + tf.gather(fill.score, position, batch_dims=1))
        fill_source = tf.gather(fill.source, position, batch_dims=1)
        return Recommendations(
            article_index=tf.where(is_found, article_index, fill_index),
            score=tf.where(is_found, answer.score, tf.where(fill_index != PADDING_INDEX, fill_score, 0.0)),
            source=tf.where(is_found, answer.source, fill_source),
        )
