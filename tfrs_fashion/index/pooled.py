"""Scores of articles that come in pieces, one for each cause, added up and ranked."""

import numpy as np
import tensorflow as tf

from tfrs_fashion.index.exclusion import take_best


def rank_sums(
    row: tf.Tensor,
    article_index: tf.Tensor,
    score: tf.Tensor,
    *,
    num_rows: tf.Tensor,
    num_articles: int,
    k: tf.Tensor,
    exclude: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds the scores that an article has in a row, and takes the k best.

    Args:
        row: `[any]` int, row of each piece.
        article_index: `[any]` int32, below `num_articles`; padding may be among it.
        score: `[any]` float32, above 0 where it counts.
        num_rows: Scalar int.
        num_articles: Width of the matrix of sums, padding and out of vocabulary included.
        k: Scalar int32.
        exclude: `[num_rows, num_excluded]` int32 article indices, 0 where a row excludes fewer.

    Returns:
        `article_index` and `score`, `[num_rows, k]`, best first, ties by index; 0 and 0 where there are fewer.
    """
    num_rows = tf.cast(num_rows, tf.int64)
    cell = tf.cast(row, tf.int64) * num_articles + tf.cast(article_index, tf.int64)
    total = tf.math.unsorted_segment_sum(score, cell, num_rows * num_articles)
    total = tf.reshape(total, tf.stack([num_rows, tf.constant(num_articles, tf.int64)]))
    is_article = tf.range(num_articles) > 1
    total = tf.where(is_article & (total > 0), total, -np.inf)
    column, score = take_best(total, exclude, k)
    return tf.maximum(column, 0), score
