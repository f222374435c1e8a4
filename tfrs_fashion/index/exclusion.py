"""Leaving out articles before the top k is taken, so that exclusion never shortens the list."""

import numpy as np
import tensorflow as tf

from tfrs_fashion.schema import PADDING_INDEX


def is_excluded(article_index: tf.Tensor, exclude: tf.Tensor) -> tf.Tensor:
    """Tells which articles a row excludes.

    Args:
        article_index: `[batch, width]` int32.
        exclude: `[batch, num_excluded]` int32, `PADDING_INDEX` where a row excludes fewer.

    Returns:
        `[batch, width]` bool.
    """
    exclude = tf.sort(tf.pad(exclude, [[0, 0], [0, 1]], constant_values=PADDING_INDEX), axis=1)
    # What `tf.searchsorted` calls, without its reshaping, which fails for an empty batch.
    position = tf.raw_ops.LowerBound(sorted_inputs=exclude, values=article_index)
    position = tf.minimum(position, tf.shape(exclude)[1] - 1)
    return tf.gather(exclude, position, batch_dims=1) == article_index


def take_allowed(
    article_index: tf.Tensor, score: tf.Tensor, exclude: tf.Tensor, k: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes the first k articles that are neither padding nor excluded.

    Args:
        article_index: `[batch, width]` int32, best first.
        score: `[batch, width]` float32.
        exclude: `[batch, num_excluded]` int32.
        k: Scalar int32.

    Returns:
        Articles and scores, `[batch, k]`, in their former order; `PADDING_INDEX` and 0 where too few are left.
    """
    width = tf.shape(article_index)[1]
    allowed = (article_index != PADDING_INDEX) & ~is_excluded(article_index, exclude)
    position = tf.range(width)[tf.newaxis, :]
    order = tf.where(allowed, position, width + position)
    taken = tf.minimum(k, width)
    first = tf.math.top_k(-order, k=taken).indices
    kept = tf.gather(allowed, first, batch_dims=1)
    article_index = tf.where(kept, tf.gather(article_index, first, batch_dims=1), PADDING_INDEX)
    score = tf.where(kept, tf.gather(score, first, batch_dims=1), 0.0)
    padding = [[0, 0], [0, k - taken]]
    return tf.pad(article_index, padding), tf.pad(score, padding)


def take_best(score: tf.Tensor, excluded_column: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes the k best columns of each row that are not excluded.

    Args:
        score: `[batch, width]` float32, -inf where a column is no candidate of the row.
        excluded_column: `[batch, num_excluded]` int32, columns to leave out; those outside of `[0, width)` are none.
        k: Scalar int32.

    Returns:
        Columns and scores, `[batch, k]`, best first, ties by column; -1 and 0 where fewer are left.
    """
    batch, width = tf.shape(score)[0], tf.shape(score)[1]
    is_column = (excluded_column >= 0) & (excluded_column < width)
    column = tf.where(is_column, excluded_column, width)
    row = tf.broadcast_to(tf.range(batch)[:, tf.newaxis], tf.shape(column))
    # What is no column lands in one of its own, which is cut off again.
    score = tf.pad(score, [[0, 0], [0, 1]])
    cells = tf.stack([tf.reshape(row, [-1]), tf.reshape(column, [-1])], axis=1)
    score = tf.tensor_scatter_nd_update(score, cells, tf.fill([tf.shape(cells)[0]], -np.inf))[:, :-1]
    taken = tf.minimum(k, width)
    best = tf.math.top_k(score, k=taken)
    found = tf.math.is_finite(best.values)
    padding = [[0, 0], [0, k - taken]]
    columns = tf.pad(tf.where(found, best.indices, -1), padding, constant_values=-1)
    return columns, tf.pad(tf.where(found, best.values, 0.0), padding)
