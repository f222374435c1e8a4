"""Features of pairs of customer and candidate, computed by the same TensorFlow function in training and in serving."""

from collections.abc import Mapping
from dataclasses import replace

import tensorflow as tf

from tfrs_fashion.features.article_weeks import SEASONS
from tfrs_fashion.features.bought_articles import BoughtArticles, bought_articles, starts_group, time_scale
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
    """`make_pair_features` with the lookups as variables, so that a SavedModel stores them once.

    Args:
        lookups: Lookups fitted before the cutoff.
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
        """Computes the features of `[num_pairs]` pairs; see `make_pair_features`."""
        return make_pair_features(histories, now, row, article_index, self.lookups)


def make_pair_features(
    histories: Histories, now: tf.Tensor, row: tf.Tensor, article_index: tf.Tensor, lookups: PairLookups
) -> tf.Tensor:
    """Computes the features of pairs of customer and candidate; `docs/ranking.md` defines each of them.

    Args:
        histories: A batch of histories, in time order; events after `now` count as bought at `now`.
        now: `[batch]` int64, seconds since 1970.
        row: `[num_pairs]` int64, the row of each pair's history in the batch.
        article_index: `[num_pairs]` int32, the candidate of each pair; unknown articles have no features of their own.
        lookups: Lookups fitted before any `now`.

    Returns:
        `[num_pairs, num_features]` float32 in the order of `lookups.names`; NaN where a feature is unknown or undefined.
    """
    time = tf.minimum(histories.time, now[:, tf.newaxis])
    histories = histories._replace(time=time)
    article = _known(article_index, tf.shape(lookups.article)[0])
    bought = _known(histories.article_index.flat_values, tf.shape(lookups.article)[0])
    keys = {ARTICLE: (bought, article)}
    for name, index in lookups.groups.items():
        keys[name] = (tf.gather(index, bought), tf.gather(index, article))
    features = [_describe_keys(histories, now, row, keys, lookups.usual_gap_days)]
    customer = _describe_customer(histories, now, lookups.age_column)
    of_article = tf.gather(lookups.article, article)
    of_customer = {name: tf.gather(values, row) for name, values in customer.items()}
    features.append(tf.stack([of_customer[name] for name in CUSTOMER_FEATURES], axis=1))
    if set(COMPARED) <= set(lookups.article_names):
        by_name = {name: of_article[:, column] for column, name in enumerate(lookups.article_names)}
        compared = {
            # A log ratio, so that half and double the usual price are equally far from it.
            "price_to_paid": tf.math.log(by_name["mean_price"] / of_customer["price_paid"]),
            "discount_gap": by_name["discount_rate"] - of_customer["discount_taken"],
            # `age_preference` is relative to the mean age of all customers.
            "age_gap": by_name["age_preference"] + lookups.mean_age - of_customer["age"],
            "season_share_now": tf.gather(
                tf.stack([by_name[f"season_share_{name}"] for name in SEASONS], axis=1),
                tf.gather(find_season(now), row),
                batch_dims=1,
            ),
        }
        features.append(tf.stack([_finite(compared[name]) for name in PRICE_FEATURES], axis=1))
    return tf.concat([*features, of_article], axis=1)


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
    """Computes when and how often a history contains the candidate itself (one kind of key) and each of its groups.

    All kinds are computed in one pass, over a batch that repeats the histories once per kind.

    Args:
        histories: A batch of histories.
        now: `[batch]` int64, seconds since 1970.
        row: `[num_pairs]` int64, the row of each pair's history in the batch.
        keys: By kind, `[num_events]` int32, the key of each event, and `[num_pairs]` int32, the key of each candidate; below
            `FIRST_INDEX` if there is none.
        usual_gap_days: By kind, `[num_keys]` float32.

    Returns:
        `[num_pairs, num_kinds * num_key_features]` float32, kind by kind.
    """
    kinds, batch = len(keys), tf.shape(now, tf.int64)[0]
    # A key that was unknown when the lookups were fitted has no usual gap.
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
    """Computes when and how often a history contains a key: `[num_pairs, num_key_features]` float32.

    Args:
        histories: A batch of histories, with keys in place of articles.
        now: `[batch]` int64, seconds since 1970.
        row: `[num_pairs]` int64, the row of each pair's history in the batch.
        key: `[num_pairs]` int32, the key of each candidate.
        usual: `[num_pairs]` float32, the usual days between two purchases of the key.
    """
    scales = [time_scale(days) for days in HALF_LIVES_DAYS]
    bought = bought_articles(histories, now, time_scales_days=scales)
    position = _find(bought, row, key)
    is_bought = position >= 0
    # A last row of zeros, so that there is something to gather where nobody bought anything.
    padded = (tf.pad(values, [[0, 1]] + [[0, 0]] * (len(values.shape) - 1)) for values in bought)
    purchases = BoughtArticles(*(tf.gather(values, tf.maximum(position, 0)) for values in padded))
    times = tf.where(is_bought, tf.cast(purchases.num_baskets, tf.float32), 0.0)
    moment = tf.gather(now, row)
    days_since = tf.where(is_bought, _days(moment - purchases.last_time), _NAN)
    # n purchases have n - 1 gaps, whose mean is the span divided by their number.
    gap = tf.where(times > 1, _days(purchases.last_time - purchases.first_time) / (times - 1), _NAN)
    columns = {
        "times": times,
        "share": tf.where(is_bought, purchases.share, 0.0),
        "days_since": days_since,
        "days_since_first": tf.where(is_bought, _days(moment - purchases.first_time), _NAN),
        "mean_gap_days": gap,
        "gap_ratio": _ratio(days_since, gap),
        "gap_to_usual": _ratio(days_since, usual),
    }
    decayed = tf.where(is_bought[:, tf.newaxis], purchases.decayed, 0.0)
    return tf.concat([tf.stack([columns[name] for name in KEY_FEATURES if name in columns], axis=1), decayed], axis=1)


def _find(bought: BoughtArticles, row: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Returns the position of each pair among those bought: `[num_pairs]` int64, -1 where it was not bought."""
    stride = tf.cast(tf.reduce_max(tf.concat([bought.article_index, key, [0]], axis=0)), tf.int64) + 1
    ids = bought.row * stride + tf.cast(bought.article_index, tf.int64)
    pair_ids = row * stride + tf.cast(key, tf.int64)
    position = tf.searchsorted(ids, pair_ids, out_type=tf.int64)
    is_bought = tf.gather(tf.concat([ids, [-1]], axis=0), position) == pair_ids
    return tf.where(is_bought & (key >= FIRST_INDEX), position, -1)


def _describe_customer(histories: Histories, now: tf.Tensor, age_column: int | None) -> dict[str, tf.Tensor]:
    """Computes the features of each history as a whole: `[batch]` float32 by the names of `CUSTOMER_FEATURES`."""
    batch = tf.shape(now, tf.int64)[0]
    row, time = histories.time.value_rowids(), histories.time.flat_values

    def total(values: tf.Tensor) -> tf.Tensor:
        # In float64, so that the order of the events does not change the rounded sum.
        return tf.cast(tf.math.unsorted_segment_sum(tf.cast(values, tf.float64), row, batch), tf.float32)

    def mean(values: tf.Tensor) -> tf.Tensor:
        is_known = tf.math.is_finite(values)
        return _ratio(total(tf.where(is_known, values, 0.0)), total(is_known))

    num_baskets, num_events = total(starts_group(row, time)), total(tf.ones_like(time))
    first = tf.math.unsorted_segment_min(time, row, batch)
    last = tf.math.unsorted_segment_max(time, row, batch)
    has_any = num_baskets > 0
    age = tf.fill([batch], _NAN)
    if age_column is not None:
        stated = histories.profile_numbers[:, age_column]
        age = tf.where((stated >= YOUNGEST) & (stated <= OLDEST), stated, _NAN)
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
