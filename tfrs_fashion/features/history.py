"""Features of a whole history, computed by one TensorFlow function, in training and inside the SavedModel alike.

`docs/history_features.md` says what each of them means; they come in the order of `number_names` and
`categorical_names` in `features/history_lookups.py`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import tensorflow as tf

from tfrs_fashion.features.bought_articles import bought_articles
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
# Half the width of "about this time last year".
SEASON_DAYS = 45


class HistoryFeatures(NamedTuple):
    """Features of a batch of histories.

    Attributes:
        numbers: `[batch, num_numbers]` float32 in the order of `number_names`; always finite.
        categorical: `[batch, num_categorical]` int32 in the order of `categorical_names`; 0 where there is none.
    """

    numbers: tf.Tensor
    categorical: tf.Tensor


class HistoryFeatureLayer(tf.Module):
    """`make_history_features` with its lookups as variables, so that a SavedModel holds them once.

    Args:
        lookups: Fitted before the cutoff.
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
    """The baskets of a batch, flat, in the order of the histories.

    Attributes:
        row: `[num_baskets]` int64, row in the batch.
        time: `[num_baskets]` int64, seconds since 1970.
        of_event: `[num_events]` int64, each event's basket; ascends.
    """

    row: tf.Tensor
    time: tf.Tensor
    of_event: tf.Tensor


def make_history_features(histories: Histories, now: tf.Tensor, lookups: HistoryLookups) -> HistoryFeatures:
    """Computes all features of histories.

    Args:
        histories: Of a batch, in time order; articles that the lookups lack are unknown ones.
        now: `[batch]` int64, seconds since 1970, after all events; later ones would count as bought just now.
        lookups: Fitted before any `now`.
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
    first = tf.concat([[True], (row[1:] != row[:-1]) | (time[1:] != time[:-1])], 0)[: tf.size(row)]
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
    # Segment reductions end with the last row that is not empty. Unsorted ones would not, and take twice as long.
    reduced = reduce(values, row)
    return tf.pad(reduced, [[0, batch - tf.size(reduced, out_type=tf.int64)]])


def _sum_by_row(columns: list[tf.Tensor], row: tf.Tensor, batch: tf.Tensor) -> list[tf.Tensor]:
    """Sums columns by row in float64, which is exact for counts and loses nothing that matters of prices."""
    return [_by_row(tf.math.segment_sum, tf.cast(column, tf.float64), row, batch) for column in columns]


def _count_values(row: tf.Tensor, value: tf.Tensor, batch: tf.Tensor, size: int) -> tf.Tensor:
    """Counts each value in each row: `[batch, size]` int64."""
    cell = row * size + tf.cast(value, tf.int64)
    return tf.reshape(tf.math.unsorted_segment_sum(tf.ones_like(cell), cell, batch * size), [batch, size])


def _most_frequent(row: tf.Tensor, value: tf.Tensor, batch: tf.Tensor, size: int) -> tf.Tensor:
    """Finds each row's most frequent known value, `[batch]` int64: the lowest of several, 0 if there is none."""
    column = tf.range(size, dtype=tf.int64)
    count = tf.where(column >= FIRST_INDEX, _count_values(row, value, batch, size), 0)
    # One number orders by count, then by falling value; `tf.argmax` promises nothing about ties.
    best = tf.reduce_max(count * size + (size - 1 - column), axis=1)
    return size - 1 - best % size


def _prefer_channel(channel: tf.Tensor, baskets: _Baskets, batch: tf.Tensor) -> tf.Tensor:
    """Finds the channel of most baskets, `[batch]` int64; a basket's channel is the lowest known of its lines."""
    others = MAX_SALES_CHANNEL_ID + FIRST_INDEX
    known = (channel > 0) & (channel <= MAX_SALES_CHANNEL_ID)
    index = tf.where(known, channel - 1 + FIRST_INDEX, others)
    lowest = tf.math.segment_min(tf.where(channel == 0, others + 1, index), baskets.of_event)
    most = _most_frequent(baskets.row, tf.where(lowest > others, PADDING_INDEX, lowest), batch, others + 1)
    return tf.where(most == others, tf.constant(OUT_OF_VOCABULARY_INDEX, tf.int64), most)


def _find_usual_store(store: tf.Tensor, baskets: _Baskets, batch: tf.Tensor, size: int) -> tf.Tensor:
    """Finds the store of most baskets, `[batch]` int64: of several the one visited last, 0 if there is none."""
    store = tf.cast(tf.math.segment_max(store, baskets.of_event), tf.int64)
    num_baskets = tf.size(store, out_type=tf.int64)
    _distinct, pair, count = tf.unique_with_counts(baskets.row * size + store, tf.int64)
    # Baskets come in time order, so one number orders the stores of a row by visits, then by the last of them.
    visits = tf.gather(count, pair) * num_baskets + tf.range(num_baskets)
    best = tf.math.unsorted_segment_max(tf.where(store >= FIRST_INDEX, visits, -1), baskets.row, batch)
    place = tf.math.floormod(tf.maximum(best, 0), tf.maximum(num_baskets, 1))
    found = tf.gather(tf.concat([store, tf.zeros([1], tf.int64)], axis=0), place)
    return tf.where(best >= 0, found, tf.constant(PADDING_INDEX, tf.int64))


def _describe_baskets(baskets: _Baskets, now: tf.Tensor) -> dict[str, tf.Tensor]:
    """When the baskets were bought."""
    batch = tf.shape(now, out_type=tf.int64)[0]
    age = tf.gather(now, baskets.row) - baskets.time
    around_last_year = tf.abs(age - YEAR_DAYS * SECONDS_PER_DAY) <= SEASON_DAYS * SECONDS_PER_DAY
    num_baskets, last_year = _sum_by_row([tf.ones_like(age), around_last_year], baskets.row, batch)
    oldest, latest = (
        tf.cast(_by_row(reduce, age, baskets.row, batch), tf.float64) / SECONDS_PER_DAY
        for reduce in (tf.math.segment_max, tf.math.segment_min)
    )
    gap = tf.where(num_baskets > 1, (oldest - latest) / tf.maximum(num_baskets - 1, 1), 0.0)
    return {
        "has_history": num_baskets > 0,
        "has_gap": num_baskets > 1,
        "recency_days": tf.math.log1p(latest),
        "frequency": tf.math.log1p(num_baskets),
        "baskets_per_month": tf.math.log1p(num_baskets * MONTH_DAYS / tf.maximum(oldest, MONTH_DAYS)),
        "days_between_baskets": tf.math.log1p(gap),
        "same_season_last_year": tf.math.log1p(last_year),
    }


def _describe_articles(histories: Histories, baskets: _Baskets, now: tf.Tensor) -> dict[str, tf.Tensor]:
    """How many articles were bought, and whether again."""
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
        # Which articles the unknown ones are cannot be told: they count as one in a basket, and as no repeat.
        "basket_size": tf.math.log1p(tf.math.divide_no_nan(num_pairs + num_unknown, num_baskets)),
        "repeat_share": tf.math.divide_no_nan(num_pairs - num_articles, num_pairs),
    }


def _describe_payments(histories: Histories, row: tf.Tensor) -> dict[str, tf.Tensor]:
    """What was paid."""
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
    """Which parts of the shop were bought in, from `[batch, sections + 2]` counts of events."""
    count = tf.cast(count, tf.float64)
    # A section that is too rare for the vocabulary is one of the others.
    total = tf.reduce_sum(count[:, OUT_OF_VOCABULARY_INDEX:], axis=1)
    position = {section: FIRST_INDEX + number for number, section in enumerate(lookups.vocabulary["section"])}

    def count_in(sections: tuple[str, ...]) -> tf.Tensor:
        columns = [position[section] for section in sorted(set(sections) & set(position))]
        return tf.reduce_sum(tf.gather(count, tf.constant(columns, tf.int32), axis=1), axis=1)

    women, men = count_in(lookups.women), count_in(lookups.men)
    shown = {section: count[:, position[section]] for section in lookups.section_shares}
    return {
        "predicted_sex": tf.math.divide_no_nan(women - men, women + men),
        "predicted_kids": tf.math.divide_no_nan(count_in(lookups.kids), total),
        **{
            f"section_share/{section}": tf.math.divide_no_nan(of_section, total)
            for section, of_section in shown.items()
        },
        "section_share_of_others": tf.math.divide_no_nan(total - count_in(lookups.section_shares), total),
    }
