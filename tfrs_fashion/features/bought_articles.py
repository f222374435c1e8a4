"""The distinct articles of a history, with how often and how recently each was bought."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.schema import FIRST_INDEX


class BoughtArticles(NamedTuple):
    """The distinct known articles of each history, stored flat; rows ascend, and articles ascend within a row.

    Attributes:
        row: `[num_pairs]` int64, the history's row in the batch.
        article_index: `[num_pairs]` int32.
        num_baskets: `[num_pairs]` int32, number of baskets of the history that contain the article.
        first_time: `[num_pairs]` int64, seconds since 1970 of the first of these baskets.
        last_time: `[num_pairs]` int64, seconds since 1970 of the last of these baskets.
        share: `[num_pairs]` float32, these baskets as a share of the history's baskets that contain any known article.
        decayed: `[num_pairs, num_time_scales]` float32, sum of exp(-age / time scale) over these baskets.
    """

    row: tf.Tensor
    article_index: tf.Tensor
    num_baskets: tf.Tensor
    first_time: tf.Tensor
    last_time: tf.Tensor
    share: tf.Tensor
    decayed: tf.Tensor


def starts_group(*columns: tf.Tensor) -> tf.Tensor:
    """Returns `[num_rows]` bool, whether a row differs from the row before it in any of the `[num_rows]` columns."""
    differs = functools.reduce(tf.logical_or, [column[1:] != column[:-1] for column in columns])
    return tf.concat([[True], differs], axis=0)[: tf.size(columns[0])]


def bought_articles(histories: Histories, now: tf.Tensor, *, time_scales_days: Sequence[float] = ()) -> BoughtArticles:
    """Counts how often and how recently each article of a history was bought.

    An article counts once per basket, however many lines it has there; all events at one instant are one basket. Unknown
    articles are left out.

    Args:
        histories: A batch of histories.
        now: `[batch]` int64, seconds since 1970, after all events.
        time_scales_days: Time constants of the decayed counts, in days.
    """
    row = histories.article_index.value_rowids()
    article = tf.cast(histories.article_index.flat_values, tf.int64)
    time = histories.time.flat_values
    known = tf.where(article >= FIRST_INDEX)[:, 0]
    row, article, time = (tf.gather(values, known) for values in (row, article, time))
    starts_basket = starts_group(row, time)
    total = tf.math.unsorted_segment_sum(tf.cast(starts_basket, tf.int32), row, histories.article_index.nrows())
    # One integer per pair of row and article, so that a single sort groups the events by pair.
    stride = tf.reduce_max(tf.concat([article, [0]], 0)) + 1
    pair = row * stride + article
    # Histories are in time order, so after a stable sort by pair the lines of one basket are adjacent.
    order = tf.argsort(pair, stable=True)
    pair, time = tf.gather(pair, order), tf.gather(time, order)
    # Only the first line of each basket counts.
    first = tf.where(starts_group(pair, time))[:, 0]
    pair, time = tf.gather(pair, first), tf.gather(time, first)
    segment = tf.cumsum(tf.cast(starts_group(pair), tf.int32)) - 1
    distinct = tf.math.segment_max(pair, segment)
    row_of_basket = pair // stride
    age_days = tf.cast(tf.gather(now, row_of_basket) - time, tf.float32) / SECONDS_PER_DAY
    scales = tf.constant(list(time_scales_days), tf.float32)
    # An event after `now` (a clock that runs ahead) must not count more than one bought just now.
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
    """Returns the time constant in days of an exponential decay with this half-life: exp(-t / scale) = 0.5^(t / half-life)."""
    return half_life_days / math.log(2)


def strongest_first(row: tf.Tensor, strength: tf.Tensor, *, limit: int) -> tf.Tensor:
    """Returns the positions of the `limit` strongest entries of each row.

    Args:
        row: `[num_entries]` int64, in any order.
        strength: `[num_entries]` float32, not negative; ties keep their order.
        limit: Maximum number of entries per row.

    Returns:
        `[num_kept]` int32 positions, in ascending order of row, the strongest of a row first.
    """
    # One sort by row and strength: the bit patterns of non-negative floats, read as integers, order like the floats.
    weakness = 2**31 - 1 - tf.cast(tf.bitcast(strength, tf.int32), tf.int64)
    order = tf.argsort(row * 2**32 + weakness, stable=True)
    row = tf.gather(row, order)
    first = tf.searchsorted(row, row, side="left", out_type=tf.int64)
    return tf.gather(order, tf.where(tf.range(tf.size(row, out_type=tf.int64)) - first < limit)[:, 0])


def keep_strongest(bought: BoughtArticles, strength: tf.Tensor, *, limit: int) -> BoughtArticles:
    """Keeps the `limit` strongest articles of each row.

    Args:
        bought: The articles of a batch.
        strength: `[num_pairs]` float32, not negative; of equal ones the lower article index is kept.
        limit: Maximum number of articles per row.

    Returns:
        The articles kept. Rows still ascend, but articles within a row are ordered by strength.
    """
    order = strongest_first(bought.row, strength, limit=limit)
    return BoughtArticles(*(tf.gather(values, order) for values in bought))
