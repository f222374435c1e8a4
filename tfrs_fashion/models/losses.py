"""Losses of retrieval."""

import tensorflow as tf


def sampling_probability(num_baskets: tf.Tensor, *, total_baskets: int, batch_size: int) -> tf.Tensor:
    """Returns the probability that an article is among the positives of a batch of baskets.

    Args:
        num_baskets: `[num_articles]` baskets that hold each article.
        total_baskets: Baskets that a batch is drawn from.
        batch_size: Baskets in a batch.

    Returns:
        `[num_articles]` float32, `1 - (1 - share) ** batch_size`.
    """
    share = tf.cast(num_baskets, tf.float64) / float(total_baskets)
    return tf.cast(1.0 - (1.0 - tf.minimum(share, 1.0)) ** batch_size, tf.float32)


def basket_softmax(
    logits: tf.Tensor, *, query: tf.Tensor, candidate: tf.Tensor, log_probability: tf.Tensor
) -> tf.Tensor:
    """Computes the sampled softmax loss of each positive among the batch's candidates, with logQ correction.

    The log of the probability that a candidate was sampled is subtracted from its logits, or frequent articles would
    be punished for being drawn often. The other positives of the same basket are removed from the denominator: they
    are no negatives (accidental hits).

    Args:
        logits: `[num_queries, num_candidates]` float32; each candidate is a different article.
        query: `[num_positives]` int32, the query row of each positive.
        candidate: `[num_positives]` int32, its candidate column.
        log_probability: `[num_candidates]` float32, log of the sampling probability.

    Returns:
        `[num_positives]` float32, `-log(e^p / (e^p + Σ e^n))` over the negatives n of the query.

    Source: Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations, eq. 3.
    """
    logits = logits - log_probability[tf.newaxis, :]
    cells = tf.stack([query, candidate], axis=1)
    positive = tf.gather_nd(logits, cells)
    negatives = tf.tensor_scatter_nd_update(logits, cells, tf.fill(tf.shape(positive), logits.dtype.min))
    return tf.math.softplus(tf.gather(tf.reduce_logsumexp(negatives, axis=1), query) - positive)


def basket_sigmoid(logits: tf.Tensor, *, query: tf.Tensor, candidate: tf.Tensor) -> tf.Tensor:
    """Computes the cross-entropy of independent sigmoids, one for each candidate, from the positives alone.

    With targets y of 0 and 1, `Σ log(1 + e^x) - yx` needs no dense matrix of them.

    Args:
        logits: `[num_queries, num_candidates]` float32.
        query: `[num_positives]` int32, the query row of each positive; no pair comes twice.
        candidate: `[num_positives]` int32, its candidate column.

    Returns:
        `[num_queries]` float32, the sum over all candidates.
    """
    positive = tf.gather_nd(logits, tf.stack([query, candidate], axis=1))
    return tf.reduce_sum(tf.math.softplus(logits), axis=1) - tf.math.unsorted_segment_sum(
        positive, query, tf.shape(logits)[0]
    )


def sampled_sigmoid(positive: tf.Tensor, negative: tf.Tensor, *, is_hit: tf.Tensor) -> tf.Tensor:
    """Computes the cross-entropy of a positive and its sampled negatives, each by itself.

    Args:
        positive: `[num_positives]` float32 logits.
        negative: `[num_positives, num_negatives]` float32 logits.
        is_hit: Like `negative`, bool: a negative that is the positive itself, which is left out.

    Returns:
        `[num_positives]` float32, `-log s(p) - Σ log s(-n)`, where s is the sigmoid.

    Source: Heinz, Bracher and Vollgraf 2017, eq. 2, for this loss and the next two.
    """
    away = tf.where(is_hit, 0.0, tf.math.softplus(negative))
    return tf.math.softplus(-positive) + tf.reduce_sum(away, axis=1)


def sampled_softmax(positive: tf.Tensor, negative: tf.Tensor, *, is_hit: tf.Tensor) -> tf.Tensor:
    """Computes the softmax loss of a positive among its sampled negatives; see `sampled_sigmoid`.

    Returns:
        `[num_positives]` float32, `-log(e^p / (e^p + Σ e^n))`.
    """
    others = tf.where(is_hit, negative.dtype.min, negative)
    return tf.math.softplus(tf.reduce_logsumexp(others, axis=1) - positive)


def sigmoid_rank(positive: tf.Tensor, negative: tf.Tensor, *, is_hit: tf.Tensor) -> tf.Tensor:
    """Computes the share of sampled negatives above a positive, made smooth; see `sampled_sigmoid`.

    Returns:
        `[num_positives]` float32, the mean of `s(n - p)` over the negatives.
    """
    above = tf.where(is_hit, 0.0, tf.sigmoid(negative - positive[:, tf.newaxis]))
    return tf.math.divide_no_nan(tf.reduce_sum(above, axis=1), tf.reduce_sum(1.0 - tf.cast(is_hit, tf.float32), axis=1))


def calibrated_sigmoid(
    positive: tf.Tensor, negative: tf.Tensor, *, is_hit: tf.Tensor, num_candidates: int, calibration: float
) -> tf.Tensor:
    """Computes the generalised cross-entropy gBCE, which undoes the overconfidence that few negatives bring.

    Args:
        positive: See `sampled_sigmoid`.
        negative: See `sampled_sigmoid`.
        is_hit: See `sampled_sigmoid`.
        num_candidates: Articles that negatives are drawn from.
        calibration: From 0 for the plain cross-entropy to 1.

    Returns:
        `[num_positives]` float32, `-b log s(p) - Σ log s(-n)` with `b = a (t (1 - 1/a) + 1/a)`, where t is the calibration
        and a the share of the other articles that is drawn.

    Source: Petrov and Macdonald 2023, gSASRec, eq. 11.
    """
    rate = min(negative.shape[1] / max(num_candidates - 1, 1), 1.0)
    power = rate * (calibration * (1.0 - 1.0 / rate) + 1.0 / rate)
    away = tf.where(is_hit, 0.0, tf.math.softplus(negative))
    return power * tf.math.softplus(-positive) + tf.reduce_sum(away, axis=1)
