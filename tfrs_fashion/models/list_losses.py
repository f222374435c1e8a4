"""Losses over lists of candidates: one list a customer, of which some were bought."""

from typing import Literal

import tensorflow as tf

RankingLoss = Literal["pointwise", "listwise", "lambdarank"]


def pointwise(label: tf.Tensor, logit: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Computes the cross-entropy of each candidate by itself.

    Args:
        label: `[batch, width]` float32, 1 where a candidate was bought, 0 where not, -1 at padding.
        logit: `[batch, width]` float32.
        weight: `[batch, width]` float32, how many candidates each stands for; what was not bought may be a sample.

    Returns:
        `[batch]` float32, the weighted mean of each list; 0 of an empty one.
    """
    counts = tf.where(label >= 0, weight, 0.0)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.maximum(label, 0.0), logit)
    return tf.math.divide_no_nan(tf.reduce_sum(counts * losses, axis=1), tf.reduce_sum(counts, axis=1))


def listwise(label: tf.Tensor, logit: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Computes the softmax cross-entropy of what was bought among the whole list; see `pointwise` for the arguments.

    Returns:
        `[batch]` float32, `-log(e^p / Σ w e^x)`, the mean over what was bought in a list; 0 where nothing was.

    Source: Cao et al. 2007, Learning to Rank: From Pairwise Approach to Listwise Approach, with one place.
    """
    weighed = tf.where(label >= 0, logit + tf.math.log(tf.maximum(weight, 1e-9)), logit.dtype.min)
    is_bought = tf.cast(label > 0, tf.float32)
    losses = (tf.reduce_logsumexp(weighed, axis=1, keepdims=True) - logit) * is_bought
    return tf.math.divide_no_nan(tf.reduce_sum(losses, axis=1), tf.reduce_sum(is_bought, axis=1))


def lambdarank(label: tf.Tensor, logit: tf.Tensor, weight: tf.Tensor, *, k: int) -> tf.Tensor:
    """Computes the logistic loss of each bought candidate above each other one, by what exchanging them is worth.

    Args:
        label: See `pointwise`.
        logit: See `pointwise`.
        weight: See `pointwise`.
        k: Places that count.

    Returns:
        `[batch]` float32, `Σ |ΔNDCG@k| log(1 + e^(n - p))` over pairs of a bought candidate p and another one n, where the places
        are those by the logits; 0 where nothing was bought.

    Source: Burges 2010, From RankNet to LambdaRank to LambdaMART, section 4.
    """
    is_there, is_bought = label >= 0, label > 0
    order = tf.argsort(tf.where(is_there, logit, logit.dtype.min), axis=1, direction="DESCENDING", stable=True)
    place = tf.cast(tf.argsort(order, axis=1), tf.float32) + 1.0
    discount = tf.where(place <= k, tf.math.log(2.0) / tf.math.log(1.0 + place), 0.0)
    num_bought = tf.reduce_sum(tf.cast(is_bought, tf.int32), axis=1)
    best = tf.math.log(2.0) / tf.math.log(2.0 + tf.range(k, dtype=tf.float32))
    ideal = tf.gather(tf.concat([[0.0], tf.cumsum(best)], axis=0), tf.minimum(num_bought, k))
    worth = tf.abs(discount[:, :, tf.newaxis] - discount[:, tf.newaxis, :])
    is_pair = is_bought[:, :, tf.newaxis] & (is_there & ~is_bought)[:, tf.newaxis, :]
    losses = tf.math.softplus(logit[:, tf.newaxis, :] - logit[:, :, tf.newaxis])
    total = tf.reduce_sum(
        tf.where(is_pair, tf.stop_gradient(worth) * weight[:, tf.newaxis, :] * losses, 0.0), axis=[1, 2]
    )
    return tf.math.divide_no_nan(total, ideal)
