"""Leaving out articles before the top k is taken, so that exclusion never shortens the list."""

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
