"""Pools: the candidates of several generators, each once per customer, and the choice of the best of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.recommenders.recommender import Recommendations, Recommender
from tfrs_fashion.schema import PADDING_INDEX


class Pool(NamedTuple):
    """Every candidate of any generator, once per customer; rows ascend.

    Attributes:
        row: `[num_pairs]` int64, row in the batch.
        article_index: `[num_pairs]` int32.
        score: `[num_pairs, num_generators]` float32, 0 where a generator did not name it.
        rank: `[num_pairs, num_generators]` float32, from 1; 0 where it did not.
        context: `[num_pairs, 2]` float32 features of the customer: number of events, days since the last one (0 without
            any).
    """

    row: tf.Tensor
    article_index: tf.Tensor
    score: tf.Tensor
    rank: tf.Tensor
    context: tf.Tensor


def describe_customers(histories: Histories, now: tf.Tensor) -> tf.Tensor:
    """Returns `[batch, 2]` float32: events of each history, and days since the last one, 0 without any."""
    num_events = histories.time.row_lengths()
    last = tf.reduce_max(histories.time, axis=1)
    days = tf.where(num_events > 0, tf.cast(now - last, tf.float32) / SECONDS_PER_DAY, 0.0)
    return tf.stack([tf.cast(num_events, tf.float32), tf.maximum(days, 0.0)], axis=1)


def make_pool(
    generators: Sequence[Recommender],
    histories: Histories,
    *,
    now: tf.Tensor,
    num_candidates: int,
    exclude: tf.Tensor,
) -> Pool:
    """Requests candidates from every generator, and joins their scores and ranks by candidate.

    Args:
        generators: At least one recommender.
        histories: Histories of a batch of customers.
        now: `[batch]` int64, seconds since 1970.
        num_candidates: Number of candidates requested from each generator.
        exclude: `[batch, num_excluded]` int32 article indices.
    """
    answers = [generator(histories, now=now, k=num_candidates, exclude=exclude) for generator in generators]
    article = tf.stack([answer.article_index for answer in answers], axis=1)
    given = tf.where(article != PADDING_INDEX)
    row, generator, position = given[:, 0], given[:, 1], given[:, 2]
    article = tf.gather_nd(article, given)
    stride = tf.cast(tf.reduce_max(tf.concat([article, [0]], 0)), tf.int64) + 1
    key, pair = tf.unique(row * stride + tf.cast(article, tf.int64), out_idx=tf.int64)
    # `tf.unique` keeps the order of first occurrence, so that pairs stay in the order of the rows.
    shape = tf.stack([tf.size(key, out_type=tf.int64), tf.constant(len(generators), tf.int64)])
    cell = tf.stack([pair, generator], axis=1)
    score = tf.gather_nd(tf.stack([answer.score for answer in answers], axis=1), given)
    return Pool(
        row=key // stride,
        article_index=tf.cast(key % stride, tf.int32),
        score=tf.scatter_nd(cell, score, shape),
        rank=tf.scatter_nd(cell, tf.cast(position + 1, tf.float32), shape),
        context=tf.gather(describe_customers(histories, now), key // stride),
    )


def score_by_quotas(rank: tf.Tensor, quotas: tf.Tensor) -> tf.Tensor:
    """Scores pairs by the earliest position, rank over quota, at which a generator contributes them.

    Args:
        rank: `[num_pairs, num_generators]` float, 0 where a generator did not name the pair.
        quotas: `[num_generators]` float.

    Returns:
        `[num_pairs]`, at most 0; -inf if no generator with a quota named the pair.
    """
    return -tf.reduce_min(tf.where((rank > 0) & (quotas > 0), rank / quotas, np.inf), axis=1)


def best_of_rows(score: tf.Tensor, row: tf.Tensor, batch: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Selects the best pairs of each row.

    Args:
        score: `[num_pairs]` float32; pairs with a score that is not finite are left out.
        row: `[num_pairs]` int64, ascending.
        batch: Scalar int64, number of rows.
        k: Scalar int32.

    Returns:
        `[batch, k]` int64 positions among the pairs, best first, ties in their order; -1 where there are fewer.
    """

    def dense(values: tf.Tensor, default: float | int) -> tf.Tensor:
        ragged = tf.RaggedTensor.from_value_rowids(values, row, batch, validate=False)
        return ragged.to_tensor(default)

    by_row = dense(tf.where(tf.math.is_finite(score), score, -np.inf), -np.inf)
    taken = tf.minimum(k, tf.shape(by_row)[1])
    best = tf.math.top_k(by_row, k=taken)
    place = tf.gather(dense(tf.range(tf.size(row, tf.int64)), -1), best.indices, batch_dims=1)
    place = tf.where(tf.math.is_finite(best.values), place, -1)
    return tf.pad(place, [[0, 0], [0, k - taken]], constant_values=-1)


def answer_pairs(
    place: tf.Tensor, score: tf.Tensor, article_index: tf.Tensor, rank: tf.Tensor, generators: Sequence[str]
) -> Recommendations:
    """Makes recommendations from pairs; the source of each is the generator that ranked it highest.

    Args:
        place: `[batch, k]` int64 positions of pairs, -1 where there are fewer.
        score: `[num_pairs]` float32.
        article_index: `[num_pairs]` int32.
        rank: `[num_pairs, num_generators]` float32, 0 where a generator did not name the pair.
        generators: Names of the generators.
    """
    highest = tf.argmin(tf.where(rank > 0, rank, np.inf), axis=1)
    source = tf.gather(tf.constant(list(generators)), highest)
    # One more pair stands for none.
    there = tf.where(place >= 0, place, tf.size(score, tf.int64))
    columns = ((article_index, PADDING_INDEX), (score, 0.0), (source, ""))
    return Recommendations(*(tf.gather(tf.concat([values, [nothing]], 0), there) for values, nothing in columns))
