"""Features of pairs of a customer and a candidate, computed by one TensorFlow function, in training and when served alike."""

from collections.abc import Mapping
from dataclasses import replace

import tensorflow as tf

from tfrs_fashion.features.article_weeks import SEASONS
from tfrs_fashion.features.bought_articles import BoughtArticles, bought_articles, time_scale
from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.features.pair_lookups import (
    ARTICLE,
    COMPARED,
    CUSTOMER_FEATURES,
    HALF_LIVES_DAYS,
    KEY_FEATURES,
    PRICE_FEATURES,
    PairLookups,
)
from tfrs_fashion.features.season import find_season
from tfrs_fashion.schema import FIRST_INDEX, OLDEST, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX, YOUNGEST

_NAN = float("nan")


class PairFeatureLayer(tf.Module):
    """`make_pair_features` with its lookups as variables, so that a SavedModel holds them once.

    Args:
        lookups: Fitted before the cutoff.
    """

    def __init__(self, lookups: PairLookups) -> None:
        super().__init__(name="pair_features")

        def variable(values: object, dtype: tf.DType) -> tf.Variable:
            return tf.Variable(values, trainable=False, dtype=dtype)

        self._groups = {name: variable(index, tf.int32) for name, index in lookups.groups.items()}
        self._gaps = {name: variable(days, tf.float32) for name, days in lookups.usual_gap_days.items()}
        self._article = variable(lookups.article, tf.float32)
        self.lookups = replace(lookups, groups=self._groups, usual_gap_days=self._gaps, article=self._article)

    def __call__(self, histories: Histories, now: tf.Tensor, row: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
        """See `make_pair_features`."""
        return make_pair_features(histories, now, row, article_index, self.lookups)


def make_pair_features(
    histories: Histories, now: tf.Tensor, row: tf.Tensor, article_index: tf.Tensor, lookups: PairLookups
) -> tf.Tensor:
    """Computes the features of pairs; `docs/ranking.md` says what each of them means.

    Args:
        histories: Of a batch, in time order; events at or after `now` count as bought just now.
        now: `[batch]` int64, seconds since 1970.
        row: `[num_pairs]` int64, the row of each pair's customer.
        article_index: `[num_pairs]` int32, its candidate; unknown ones have no features of their own.
        lookups: Fitted before any `now`.

    Returns:
        `[num_pairs, num_features]` float32 in the order of `lookups.names`; NaN where something is not known, or not defined.
    """
    time = tf.minimum(histories.time, now[:, tf.newaxis])
    histories = histories._replace(time=time)
    article = _known(article_index, tf.shape(lookups.article)[0])
    bought = _known(histories.article_index.flat_values, tf.shape(lookups.article)[0])
    keys = {ARTICLE: (bought, article)}
    for name, index in lookups.groups.items():
        keys[name] = (tf.gather(index, bought), tf.gather(index, article))
    parts = [_describe_keys(histories, now, row, keys, lookups.usual_gap_days)]
    customer = _describe_customer(histories, now, lookups.age_column)
    of_article = tf.gather(lookups.article, article)
    of_customer = {name: tf.gather(values, row) for name, values in customer.items()}
    parts.append(tf.stack([of_customer[name] for name in CUSTOMER_FEATURES], axis=1))
    if set(COMPARED) <= set(lookups.article_names):
        told = {name: of_article[:, place] for place, name in enumerate(lookups.article_names)}
        compared = {
            "price_to_paid": tf.math.log(told["mean_price"] / of_customer["price_paid"]),
            "discount_gap": told["discount_rate"] - of_customer["discount_taken"],
            "age_gap": told["age_preference"] + lookups.mean_age - of_customer["age"],
            "season_share_now": tf.gather(
                tf.stack([told[f"season_share_{name}"] for name in SEASONS], axis=1),
                tf.gather(find_season(now), row),
                batch_dims=1,
            ),
        }
        parts.append(tf.stack([_finite(compared[name]) for name in PRICE_FEATURES], axis=1))
    return tf.concat([*parts, of_article], axis=1)


def _known(article_index: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    is_known = (article_index >= FIRST_INDEX) & (article_index < size)
    return tf.where(is_known, article_index, OUT_OF_VOCABULARY_INDEX)


def _finite(values: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_finite(values), values, _NAN)


def _ratio(part: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
    return tf.where(whole > 0, part / whole, _NAN)


def _days(seconds: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(seconds, tf.float64) / SECONDS_PER_DAY, tf.float32)


def _describe_keys(
    histories: Histories,
    now: tf.Tensor,
    row: tf.Tensor,
    keys: Mapping[str, tuple[tf.Tensor, tf.Tensor]],
    usual_gap_days: Mapping[str, tf.Tensor],
) -> tf.Tensor:
    """Tells of each kind of key when and how often a history held what a candidate is, or belongs to.

    One pass over all kinds: a batch of histories for each, one after the other.

    Args:
        histories: Of a batch.
        now: Of each.
        row: Of each pair.
        keys: By kind, `[num_events]` int32, the key of each event, and `[num_pairs]` int32, that of each candidate; below
            `FIRST_INDEX` without one.
        usual_gap_days: Of each kind, `[num_keys]` float32.

    Returns:
        `[num_pairs, num_kinds * features of a key]` float32, kind by kind.
    """
    kinds, batch = len(keys), tf.shape(now, tf.int64)[0]
    # What nobody has a key for has no usual gap either.
    usual = [
        tf.gather(usual_gap_days[name], tf.where(key < tf.shape(usual_gap_days[name])[0], key, PADDING_INDEX))
        for name, (_of_event, key) in keys.items()
    ]
    start = tf.range(kinds, dtype=tf.int64)[:, tf.newaxis] * batch
    row_of_event = tf.reshape(start + histories.time.value_rowids(), [-1])

    def every(values: tf.Tensor) -> tf.RaggedTensor:
        return tf.RaggedTensor.from_value_rowids(values, row_of_event, kinds * batch, validate=False)

    stacked = histories._replace(
        article_index=every(tf.concat([of_event for of_event, _key in keys.values()], axis=0)),
        time=every(tf.tile(histories.time.flat_values, [kinds])),
    )
    described = _describe_key(
        stacked,
        tf.tile(now, [kinds]),
        tf.reshape(start + row, [-1]),
        tf.concat([key for _of_event, key in keys.values()], axis=0),
        tf.concat(usual, axis=0),
    )
    width = described.shape[1]
    by_kind = tf.reshape(described, [kinds, -1, width])
    return tf.reshape(tf.transpose(by_kind, [1, 0, 2]), [-1, kinds * width])


def _describe_key(histories: Histories, now: tf.Tensor, row: tf.Tensor, key: tf.Tensor, usual: tf.Tensor) -> tf.Tensor:
    """Tells when and how often a history held a key: `[num_pairs, features of a key]` float32.

    Args:
        histories: Of a batch, with a key in place of each article.
        now: Of each.
        row: Of each pair.
        key: `[num_pairs]` int32, of its candidate.
        usual: `[num_pairs]` float32, days between two purchases of it.
    """
    scales = [time_scale(days) for days in HALF_LIVES_DAYS]
    bought = bought_articles(histories, now, time_scales_days=scales)
    place = _find(bought, row, key)
    is_found = place >= 0
    found = BoughtArticles(*(tf.gather(values, tf.maximum(place, 0)) for values in _with_nothing(bought)))
    times = tf.where(is_found, tf.cast(found.num_baskets, tf.float32), 0.0)
    moment = tf.gather(now, row)
    days_since = tf.where(is_found, _days(moment - found.last_time), _NAN)
    gap = tf.where(times > 1, _days(found.last_time - found.first_time) / (times - 1), _NAN)
    columns = {
        "times": times,
        "share": tf.where(is_found, found.share, 0.0),
        "days_since": days_since,
        "days_since_first": tf.where(is_found, _days(moment - found.first_time), _NAN),
        "mean_gap_days": gap,
        "gap_ratio": _ratio(days_since, gap),
        "gap_to_usual": _ratio(days_since, usual),
    }
    decayed = tf.where(is_found[:, tf.newaxis], found.decayed, 0.0)
    told = [columns[name] for name in KEY_FEATURES if name in columns]
    return tf.concat([tf.stack(told, axis=1), decayed], axis=1)


def _with_nothing(bought: BoughtArticles) -> BoughtArticles:
    """Adds a pair of zeros at the end, to be gathered where nothing else is there."""
    return BoughtArticles(*(tf.pad(values, [[0, 1]] + [[0, 0]] * (len(values.shape) - 1)) for values in bought))


def _find(bought: BoughtArticles, row: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Finds pairs among those bought: `[num_pairs]` int64 places, -1 where one was not bought."""
    stride = tf.cast(tf.reduce_max(tf.concat([bought.article_index, key, [0]], axis=0)), tf.int64) + 1
    ids = bought.row * stride + tf.cast(bought.article_index, tf.int64)
    wanted = row * stride + tf.cast(key, tf.int64)
    place = tf.searchsorted(ids, wanted, out_type=tf.int64)
    is_found = tf.gather(tf.concat([ids, [-1]], axis=0), place) == wanted
    return tf.where(is_found & (key >= FIRST_INDEX), place, -1)


def _describe_customer(histories: Histories, now: tf.Tensor, age_column: int | None) -> dict[str, tf.Tensor]:
    """Tells of each history as a whole: `[batch]` float32 by the names of `CUSTOMER_FEATURES`."""
    batch = tf.shape(now, tf.int64)[0]
    row, time = histories.time.value_rowids(), histories.time.flat_values
    starts = tf.concat([[True], (row[1:] != row[:-1]) | (time[1:] != time[:-1])], axis=0)[: tf.size(row)]

    def total(values: tf.Tensor) -> tf.Tensor:
        # In float64, so that the order of the events does not matter.
        return tf.cast(tf.math.unsorted_segment_sum(tf.cast(values, tf.float64), row, batch), tf.float32)

    def mean(values: tf.Tensor) -> tf.Tensor:
        is_known = tf.math.is_finite(values)
        return _ratio(total(tf.where(is_known, values, 0.0)), total(is_known))

    num_baskets, num_events = total(starts), total(tf.ones_like(time))
    first = tf.math.unsorted_segment_min(time, row, batch)
    last = tf.math.unsorted_segment_max(time, row, batch)
    has_any = num_baskets > 0
    age = tf.fill([batch], _NAN)
    if age_column is not None:
        told = histories.profile_numbers[:, age_column]
        age = tf.where((told >= YOUNGEST) & (told <= OLDEST), told, _NAN)
    return {
        "num_baskets": num_baskets,
        "num_articles": num_events,
        "days_since_basket": tf.where(has_any, _days(now - tf.where(has_any, last, now)), _NAN),
        "basket_gap_days": tf.where(
            num_baskets > 1, _days(tf.where(has_any, last - first, 0)) / (num_baskets - 1), _NAN
        ),
        "articles_per_basket": _ratio(num_events, num_baskets),
        "price_paid": mean(histories.price.flat_values),
        "discount_taken": mean(histories.discount.flat_values),
        "age": age,
    }
