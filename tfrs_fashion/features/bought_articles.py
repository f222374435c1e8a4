"""The distinct articles of a history: how often and how lately each was bought."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.schema import FIRST_INDEX


class BoughtArticles(NamedTuple):
    """The distinct known articles of each history, flat; rows ascend, articles ascend within a row.

    Attributes:
        row: `[num_pairs]` int64, row in the batch.
        article_index: `[num_pairs]` int32.
        num_baskets: `[num_pairs]` int32, baskets of the history that held the article.
        first_time: `[num_pairs]` int64, seconds since 1970 of the first of them.
        last_time: `[num_pairs]` int64, seconds since 1970 of the latest of them.
        share: `[num_pairs]` float32, of all baskets of the history that hold a known article.
        decayed: `[num_pairs, num_time_scales]` float32, the sum over these baskets of exp(-age / time scale).
    """

    row: tf.Tensor
    article_index: tf.Tensor
    num_baskets: tf.Tensor
    first_time: tf.Tensor
    last_time: tf.Tensor
    share: tf.Tensor
    decayed: tf.Tensor


def bought_articles(histories: Histories, now: tf.Tensor, *, time_scales_days: Sequence[float] = ()) -> BoughtArticles:
    """Counts how often and how lately each article was bought.

    An article counts once a basket, however many lines it has there; one instant is one basket. Unknown articles are
    left out.

    Args:
        histories: Of a batch.
        now: `[batch]` int64, seconds since 1970, after all events.
        time_scales_days: Time constants of the decayed counts.
    """
    row = histories.article_index.value_rowids()
    article = tf.cast(histories.article_index.flat_values, tf.int64)
    time = histories.time.flat_values
    known = tf.where(article >= FIRST_INDEX)[:, 0]
    row, article, time = (tf.gather(values, known) for values in (row, article, time))
    first_of_basket = tf.concat([[True], (row[1:] != row[:-1]) | (time[1:] != time[:-1])], 0)[: tf.size(row)]
    total = tf.math.unsorted_segment_sum(tf.cast(first_of_basket, tf.int32), row, histories.article_index.nrows())
    stride = tf.reduce_max(tf.concat([article, [0]], 0)) + 1
    pair = row * stride + article
    # Histories are in time order, so a stable sort by pair leaves the lines of one basket beside each other.
    order = tf.argsort(pair, stable=True)
    pair, time = tf.gather(pair, order), tf.gather(time, order)
    new_pair = tf.concat([[True], pair[1:] != pair[:-1]], 0)[: tf.size(pair)]
    new_basket = new_pair | tf.concat([[True], time[1:] != time[:-1]], 0)[: tf.size(pair)]
    first = tf.where(new_basket)[:, 0]
    pair, time, new_pair = (tf.gather(values, first) for values in (pair, time, new_pair))
    segment = tf.cumsum(tf.cast(new_pair, tf.int32)) - 1
    distinct = tf.math.segment_max(pair, segment)
    row_of_basket = pair // stride
    age_days = tf.cast(tf.gather(now, row_of_basket) - time, tf.float32) / SECONDS_PER_DAY
    scales = tf.constant(list(time_scales_days), tf.float32)
    decay = tf.exp(-tf.maximum(age_days, 0.0)[:, tf.newaxis] / scales[tf.newaxis, :])
    num_baskets = tf.math.segment_sum(tf.ones_like(segment), segment)
    return BoughtArticles(
        row=distinct // stride,
        article_index=tf.cast(distinct % stride, tf.int32),
        num_baskets=num_baskets,
        first_time=tf.math.segment_min(time, segment),
        last_time=tf.math.segment_max(time, segment),
        share=tf.cast(num_baskets / tf.gather(total, distinct // stride), tf.float32),
        decayed=tf.math.segment_sum(decay, segment),
    )


def time_scale(half_life_days: float) -> float:
    """Returns the time constant in days of what loses half its weight in a half-life."""
    return half_life_days / math.log(2)


def strongest_first(row: tf.Tensor, strength: tf.Tensor, *, limit: int) -> tf.Tensor:
    """Finds the `limit` strongest of each row.

    Args:
        row: `[any]` int64, in any order.
        strength: `[any]` float32, not negative; ties keep their order.
        limit: How many a row.

    Returns:
        Their positions, int32, rows ascending and the strongest of a row first.
    """
    # One sort: the bits of floats that are not negative, read as integers, are in the floats' own order.
    weakness = 2**31 - 1 - tf.cast(tf.bitcast(strength, tf.int32), tf.int64)
    order = tf.argsort(row * 2**32 + weakness, stable=True)
    row = tf.gather(row, order)
    first = tf.searchsorted(row, row, side="left", out_type=tf.int64)
    return tf.gather(order, tf.where(tf.range(tf.size(row, out_type=tf.int64)) - first < limit)[:, 0])


def keep_strongest(bought: BoughtArticles, strength: tf.Tensor, *, limit: int) -> BoughtArticles:
    """Keeps the `limit` strongest articles of each row.

    Args:
        bought: Of a batch.
        strength: `[num_pairs]` float32, not negative; ties keep the lower article index.
        limit: Articles to keep a row.

    Returns:
        The same, with rows still ascending; articles no longer ascend within a row.
    """
    order = strongest_first(bought.row, strength, limit=limit)
    return BoughtArticles(*(tf.gather(values, order) for values in bought))
