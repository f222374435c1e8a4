"""Features of a customer's whole history, computed by the same TensorFlow function in training and in the SavedModel.

`docs/history_features.md` defines each feature; their order is that of `number_names` and `categorical_names` in
`features/history_lookups.py`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import tensorflow as tf

from tfrs_fashion.features.bought_articles import bought_articles, starts_group
from tfrs_fashion.features.history_lookups import (
    MAX_SALES_CHANNEL_ID,
    HistoryLookups,
    categorical_names,
    number_names,
)
from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.features.season import find_season
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX

MONTH_DAYS = 30
YEAR_DAYS = 365
# Days before and after the same day of last year that count as the same season.
SEASON_DAYS = 45


class HistoryFeatures(NamedTuple):
    """Features of a batch of histories.

    Attributes:
        numbers: `[batch, num_numbers]` float32 in the order of `number_names`; always finite.
        categorical: `[batch, num_categorical]` int32 in the order of `categorical_names`; 0 where unknown.
    """

    numbers: tf.Tensor
    categorical: tf.Tensor


class HistoryFeatureLayer(tf.Module):
    """`make_history_features` with the lookups as variables, so that a SavedModel stores them once.

    Args:
        lookups: Lookups fitted before the cutoff.
    """

    def __init__(self, lookups: HistoryLookups) -> None:
        super().__init__(name="history_features")
        self._index = {
            role: tf.Variable(index, trainable=False, dtype=tf.int32, name=role)
            for role, index in lookups.index.items()
        }
        self.lookups = replace(lookups, index=self._index)

    def __call__(self, histories: Histories, now: tf.Tensor) -> HistoryFeatures:
        """Computes the features of `[batch]` histories at `now`; see `make_history_features`."""
        return make_history_features(histories, now, self.lookups)


class _Baskets(NamedTuple):
    """The baskets of a batch of histories, stored flat in the order of the histories.

    Attributes:
        row: `[num_baskets]` int64, the history's row in the batch.
        time: `[num_baskets]` int64, seconds since 1970.
        of_event: `[num_events]` int64, the basket of each event; ascending.
    """

    row: tf.Tensor
    time: tf.Tensor
    of_event: tf.Tensor


def make_history_features(histories: Histories, now: tf.Tensor, lookups: HistoryLookups) -> HistoryFeatures:
    """Computes all features of a batch of histories.

    Args:
        histories: A batch of histories, in time order; articles that the lookups lack count as unknown.
        now: `[batch]` int64, seconds since 1970, after all events; a later event counts as bought at `now`.
        lookups: Lookups fitted before any `now`.
    """
    batch = tf.shape(now, out_type=tf.int64)[0]
    row = histories.article_index.value_rowids()
    time = tf.minimum(histories.time.flat_values, tf.gather(now, row))
    baskets = _find_baskets(row, time)
    values = {
        role: _look_up(histories.article_index.flat_values, index)
        for role, index in lookups.index.items()
        if role != "store"
    }
    numbers = _describe_baskets(baskets, now) | _describe_articles(histories, baskets, now)
    numbers |= _describe_payments(histories, row)
    categorical = {"preferred_sales_channel": _prefer_channel(histories.sales_channel_id.flat_values, baskets, batch)}
    if "colour" in values:
        this_season = find_season(time) == tf.gather(find_season(now), row)
        colour = tf.where(this_season, values["colour"], PADDING_INDEX)
        categorical["favourite_colour_this_season"] = _most_frequent(row, colour, batch, lookups.size("colour"))
    if "garment_group" in values:
        categorical["favourite_garment_group"] = _most_frequent(
            row, values["garment_group"], batch, lookups.size("garment_group")
        )
    if "store" in lookups.index:
        store = _look_up(histories.store_index.flat_values, lookups.index["store"])
        categorical["usual_store"] = _find_usual_store(store, baskets, batch, lookups.size("store"))
    if "section" in values:
        numbers |= _describe_sections(_count_values(row, values["section"], batch, lookups.size("section")), lookups)
    return HistoryFeatures(
        numbers=tf.stack([tf.cast(numbers[name], tf.float32) for name in number_names(lookups)], axis=1),
        categorical=tf.stack([tf.cast(categorical[name], tf.int32) for name in categorical_names(lookups)], axis=1),
    )


def _find_baskets(row: tf.Tensor, time: tf.Tensor) -> _Baskets:
    first = starts_group(row, time)
    start = tf.where(first)[:, 0]
    return _Baskets(
        row=tf.gather(row, start),
        time=tf.gather(time, start),
        of_event=tf.cumsum(tf.cast(first, tf.int64)) - 1,
    )


def _look_up(article_index: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    known = (article_index >= FIRST_INDEX) & (article_index < tf.shape(index)[0])
    return tf.gather(index, tf.where(known, article_index, OUT_OF_VOCABULARY_INDEX))


def _by_row(reduce: Callable[..., tf.Tensor], values: tf.Tensor, row: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
    """Reduces values of events or baskets, whose rows ascend, to `[batch]`; 0 for empty rows."""
    # Sorted segment reductions stop at the last row that is not empty, hence the padding; unsorted ones take twice as long.
    reduced = reduce(values, row)
    return tf.pad(reduced, [[0, batch - tf.size(reduced, out_type=tf.int64)]])


def _sum_by_row(columns: list[tf.Tensor], row: tf.Tensor, batch: tf.Tensor) -> list[tf.Tensor]:
    """Sums columns by row in float64, which is exact for counts and precise enough for sums of prices."""
    return [_by_row(tf.math.segment_sum, tf.cast(column, tf.float64), row, batch) for column in columns]


def _count_values(row: tf.Tensor, value: tf.Tensor, batch: tf.Tensor, size: int) -> tf.Tensor:
    """Counts each value in each row: `[batch, size]` int64."""
    cell = row * size + tf.cast(value, tf.int64)
    return tf.reshape(tf.math.unsorted_segment_sum(tf.ones_like(cell), cell, batch * size), [batch, size])


def _most_frequent(row: tf.Tensor, value: tf.Tensor, batch: tf.Tensor, size: int) -> tf.Tensor:
    """Returns each row's most frequent known value, `[batch]` int64; of equal ones the lowest, 0 if there is none."""
    column = tf.range(size, dtype=tf.int64)
    count = tf.where(column >= FIRST_INDEX, _count_values(row, value, batch, size), 0)
    # One integer orders by count, then by descending value; `tf.argmax` does not define which of equal values it returns.
    best = tf.reduce_max(count * size + (size - 1 - column), axis=1)
    return size - 1 - best % size


def _prefer_channel(channel: tf.Tensor, baskets: _Baskets, batch: tf.Tensor) -> tf.Tensor:
    """Returns the channel of most baskets, `[batch]` int64; a basket's channel is the lowest known channel of its lines."""
    others = MAX_SALES_CHANNEL_ID + FIRST_INDEX
    known = (channel > 0) & (channel <= MAX_SALES_CHANNEL_ID)
    index = tf.where(known, channel - 1 + FIRST_INDEX, others)
    lowest = tf.math.segment_min(tf.where(channel == 0, others + 1, index), baskets.of_event)
    most = _most_frequent(baskets.row, tf.where(lowest > others, PADDING_INDEX, lowest), batch, others + 1)
    return tf.where(most == others, tf.constant(OUT_OF_VOCABULARY_INDEX, tf.int64), most)


def _find_usual_store(store: tf.Tensor, baskets: _Baskets, batch: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the store of most baskets, `[batch]` int64; of equal ones the last visited, 0 if there is none."""
    store = tf.cast(tf.math.segment_max(store, baskets.of_event), tf.int64)
    num_baskets = tf.size(store, out_type=tf.int64)
    _distinct, pair, count = tf.unique_with_counts(baskets.row * size + store, tf.int64)
    # Baskets are in time order, so one integer orders the stores of a row by number of visits, then by the last visit.
    visits = tf.gather(count, pair) * num_baskets + tf.range(num_baskets)
    best = tf.math.unsorted_segment_max(tf.where(store >= FIRST_INDEX, visits, -1), baskets.row, batch)
    place = tf.math.floormod(tf.maximum(best, 0), tf.maximum(num_baskets, 1))
    usual = tf.gather(tf.concat([store, tf.zeros([1], tf.int64)], axis=0), place)
    return tf.where(best >= 0, usual, tf.constant(PADDING_INDEX, tf.int64))


def _describe_baskets(baskets: _Baskets, now: tf.Tensor) -> dict[str, tf.Tensor]:
    """Computes the features of when and how often the customer bought, most of them on a log scale: they are skewed."""
    batch = tf.shape(now, out_type=tf.int64)[0]
    age = tf.gather(now, baskets.row) - baskets.time
    around_last_year = tf.abs(age - YEAR_DAYS * SECONDS_PER_DAY) <= SEASON_DAYS * SECONDS_PER_DAY
    num_baskets, last_year = _sum_by_row([tf.ones_like(age), around_last_year], baskets.row, batch)
    oldest, latest = (
        tf.cast(_by_row(reduce, age, baskets.row, batch), tf.float64) / SECONDS_PER_DAY
        for reduce in (tf.math.segment_max, tf.math.segment_min)
    )
    # n baskets have n - 1 gaps, whose mean is the span divided by their number.
    gap = tf.where(num_baskets > 1, (oldest - latest) / tf.maximum(num_baskets - 1, 1), 0.0)
    return {
        "has_history": num_baskets > 0,
        "has_gap": num_baskets > 1,
        "recency_days": tf.math.log1p(latest),
        "frequency": tf.math.log1p(num_baskets),
        # At least a month, or the first basket of a new customer would count as thirty a month.
        "baskets_per_month": tf.math.log1p(num_baskets * MONTH_DAYS / tf.maximum(oldest, MONTH_DAYS)),
        "days_between_baskets": tf.math.log1p(gap),
        "same_season_last_year": tf.math.log1p(last_year),
    }


def _describe_articles(histories: Histories, baskets: _Baskets, now: tf.Tensor) -> dict[str, tf.Tensor]:
    """Computes the features of how many articles were bought, and how often again."""
    batch = tf.shape(now, out_type=tf.int64)[0]
    row = histories.article_index.value_rowids()
    recent = tf.gather(now, row) - histories.time.flat_values <= MONTH_DAYS * SECONDS_PER_DAY
    (num_recent,) = _sum_by_row([recent], row, batch)
    bought = bought_articles(histories, now)
    num_articles, num_pairs = _sum_by_row([tf.ones_like(bought.row), bought.num_baskets], bought.row, batch)
    unknown = tf.cast(histories.article_index.flat_values < FIRST_INDEX, tf.int32)
    has_unknown = tf.math.segment_max(unknown, baskets.of_event)
    num_baskets, num_unknown = _sum_by_row([tf.ones_like(baskets.row), has_unknown], baskets.row, batch)
    return {
        "recent_purchases": tf.math.log1p(num_recent),
        # Unknown articles cannot be distinguished: all those of a basket count as one article, and never as a repeat.
        "basket_size": tf.math.log1p(tf.math.divide_no_nan(num_pairs + num_unknown, num_baskets)),
        "repeat_share": tf.math.divide_no_nan(num_pairs - num_articles, num_pairs),
    }


def _describe_payments(histories: Histories, row: tf.Tensor) -> dict[str, tf.Tensor]:
    """Computes the features of prices and discounts paid."""
    batch = histories.article_index.nrows()
    priced, price = _known_or_zero(histories.price.flat_values)
    discounted, discount = _known_or_zero(histories.discount.flat_values)
    paid = price * tf.cast(tf.maximum(histories.quantity.flat_values, 0), tf.float64)
    num_priced, sum_price, spend, num_discounts, num_reduced, sum_discount = _sum_by_row(
        [priced, price, paid, discounted, discount > 0, discount], row, batch
    )
    return {
        "has_price": num_priced > 0,
        "has_discount": num_discounts > 0,
        "mean_price": tf.math.log1p(tf.math.divide_no_nan(sum_price, num_priced)),
        "spend": tf.math.log1p(spend),
        "discount_share": tf.math.divide_no_nan(num_reduced, num_discounts),
        "mean_discount": tf.math.divide_no_nan(sum_discount, num_discounts),
    }


def _known_or_zero(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    known = (values >= 0) & (values < float("inf"))
    return known, tf.where(known, tf.cast(values, tf.float64), 0.0)


def _describe_sections(count: tf.Tensor, lookups: HistoryLookups) -> dict[str, tf.Tensor]:
    """Computes the features of sections from `[batch, sections + 2]` numbers of events per section."""
    count = tf.cast(count, tf.float64)
    # Sections too rare for the vocabulary count among the others.
    total = tf.reduce_sum(count[:, OUT_OF_VOCABULARY_INDEX:], axis=1)
    position = {section: FIRST_INDEX + number for number, section in enumerate(lookups.vocabulary["section"])}

    def count_in(sections: tuple[str, ...]) -> tf.Tensor:
        columns = [position[section] for section in sorted(set(sections) & set(position))]
        return tf.reduce_sum(tf.gather(count, tf.constant(columns, tf.int32), axis=1), axis=1)

    women, men = count_in(lookups.women), count_in(lookups.men)
    return {
        "predicted_sex": tf.math.divide_no_nan(women - men, women + men),
        "predicted_kids": tf.math.divide_no_nan(count_in(lookups.kids), total),
        **{
            f"section_share/{section}": tf.math.divide_no_nan(count[:, position[section]], total)
            for section in lookups.section_shares
        },
        "section_share_of_others": tf.math.divide_no_nan(total - count_in(lookups.section_shares), total),
    }
