"""Model inputs: batches of customer histories, and the tf.data pipeline of training baskets."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.timelines import ALWAYS, EVENT_TYPES, Timelines
from tfrs_fashion.features.vocabulary import look_up
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX, InputError

SECONDS_PER_DAY = 86_400


class Histories(NamedTuple):
    """The purchases of a batch of customers before `now`, oldest first, and their profiles.

    Attributes:
        customer_index: `[batch]` int32; 1 for unknown customers.
        article_index: `[batch, (length)]` ragged int32; 1 for unknown articles.
        time: `[batch, (length)]` ragged int64, seconds since 1970; all events of a customer at one instant are one basket.
        price: `[batch, (length)]` ragged float32, paid per unit, NaN where unknown.
        quantity: `[batch, (length)]` ragged int32.
        discount: `[batch, (length)]` ragged float32, share off the list price, NaN where unknown.
        sales_channel_id: `[batch, (length)]` ragged int32, 0 where unknown.
        store_index: `[batch, (length)]` ragged int32, 0 where unknown.
        profile: `[batch, num_features]` int32 indices into the profile vocabularies; 0 where missing.
        profile_numbers: `[batch, num_numbers]` float32, NaN where missing.
    """

    customer_index: tf.Tensor
    article_index: tf.RaggedTensor
    time: tf.RaggedTensor
    price: tf.RaggedTensor
    quantity: tf.RaggedTensor
    discount: tf.RaggedTensor
    sales_channel_id: tf.RaggedTensor
    store_index: tf.RaggedTensor
    profile: tf.Tensor
    profile_numbers: tf.Tensor

    def last(self, num_events: int) -> "Histories":
        """Keeps each row's last `num_events` events."""
        first, end = self.article_index.row_starts(), self.article_index.row_limits()
        return self._from(tf.maximum(first, end - num_events))

    def since(self, instant: tf.Tensor) -> "Histories":
        """Keeps each row's events at or after `[batch]` int64 seconds since 1970."""
        is_before = tf.cast(self.time < instant[:, tf.newaxis], tf.int64)
        return self._from(self.article_index.row_starts() + tf.reduce_sum(is_before, axis=1))

    def _from(self, first: tf.Tensor) -> "Histories":
        """Keeps each row's events from `[batch]` int64 positions on."""
        # All columns share one partition, so the positions are computed once for all of them.
        position = tf.ragged.range(first, self.article_index.row_limits())
        kept = {
            name: position.with_flat_values(tf.gather(getattr(self, name).flat_values, position.flat_values))
            for name in EVENT_TYPES
        }
        return self._replace(**kept)

    @classmethod
    def empty(cls, batch_size: int | tf.Tensor, *, num_features: int, num_numbers: int) -> "Histories":
        """Returns the empty histories and profiles of unknown customers."""
        splits = tf.zeros([batch_size + 1], tf.int64)
        events = {
            name: tf.RaggedTensor.from_row_splits(tf.zeros([0], dtype), splits, validate=False)
            for name, dtype in EVENT_TYPES.items()
        }
        return cls(
            customer_index=tf.fill([batch_size], OUT_OF_VOCABULARY_INDEX),
            profile=tf.zeros([batch_size, num_features], tf.int32),
            profile_numbers=tf.fill([batch_size, num_numbers], float("nan")),
            **events,
        )


class Profiles(NamedTuple):
    """The encoded profiles of customers, by `customer_index`; rows 0 and 1 are empty.

    Attributes:
        categorical: `[num_customers + 2, num_features]` int32 indices into the profile vocabularies; 0 where missing.
        numbers: `[num_customers + 2, num_numbers]` float32, NaN where missing.
    """

    categorical: np.ndarray
    numbers: np.ndarray


def encode_profiles(timelines: Timelines, vocabulary: dict[str, list[str]]) -> Profiles:
    """Encodes the profiles of all customers.

    Args:
        timelines: The timelines of all customers.
        vocabulary: The values of each categorical profile feature.
    """
    size = timelines.num_customers + FIRST_INDEX
    categorical = np.zeros((size, len(vocabulary)), dtype=np.int32)
    for column, (name, values) in enumerate(vocabulary.items()):
        categorical[FIRST_INDEX:, column] = look_up(timelines.profile[name], values)
    numbers = np.full((size, len(timelines.profile_numbers)), np.nan, dtype=np.float32)
    for column, feature in enumerate(timelines.profile_numbers.values()):
        numbers[FIRST_INDEX:, column] = feature
    return Profiles(categorical, numbers)


class ProfileVocabulary(tf.Module):
    """`encode_profiles` in the graph, for profiles that come with a request.

    Args:
        vocabulary: The values of each categorical profile feature.
    """

    def __init__(self, vocabulary: dict[str, list[str]]) -> None:
        super().__init__(name="profile_vocabulary")
        self._num_features = len(vocabulary)
        # One table for all features, so that every artifact has the same structure whatever their number.
        keys = [f"{column}={value}" for column, values in enumerate(vocabulary.values()) for value in values]
        index = [FIRST_INDEX + number for values in vocabulary.values() for number in range(len(values))]
        entries = tf.lookup.KeyValueTensorInitializer(tf.constant(["", *keys]), tf.constant([PADDING_INDEX, *index]))
        self._index = tf.lookup.StaticHashTable(entries, default_value=OUT_OF_VOCABULARY_INDEX)

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Encodes `[batch, num_features]` strings as int32; empty strings are missing, unknown ones out of vocabulary."""
        column = tf.strings.as_string(tf.range(self._num_features))[tf.newaxis, :]
        index = self._index.lookup(tf.strings.join([tf.broadcast_to(column, tf.shape(values)), values], separator="="))
        return tf.where(values == "", PADDING_INDEX, index)


class HistoryTable(tf.Module):
    """The histories and profiles of all customers as variables, looked up in the graph.

    Args:
        timelines: The visible timelines.
        profiles: The encoded profiles; see `encode_profiles`.
    """

    def __init__(self, timelines: Timelines, profiles: Profiles) -> None:
        super().__init__(name="history_table")
        splits = np.concatenate([[0] * FIRST_INDEX, timelines.row_splits])

        def variable(values: np.ndarray, dtype: tf.DType) -> tf.Variable:
            return tf.Variable(values, trainable=False, dtype=dtype)

        self._row_splits = variable(splits, tf.int64)
        self._events = {name: variable(getattr(timelines, name), dtype) for name, dtype in EVENT_TYPES.items()}
        self._profile = variable(profiles.categorical, tf.int32)
        self._profile_numbers = variable(profiles.numbers, tf.float32)
        # Only training needs it: a constant, since artifacts would store a variable.
        self._known_from = tf.constant(np.concatenate([[ALWAYS] * FIRST_INDEX, timelines.known_from]), tf.int64)

    @property
    def num_features(self) -> int:
        """Number of categorical profile features."""
        return int(self._profile.shape[1])

    @property
    def num_numbers(self) -> int:
        """Number of numeric profile features."""
        return int(self._profile_numbers.shape[1])

    def empty(self, batch_size: tf.Tensor) -> Histories:
        """Returns the empty histories of unknown customers, with the profile features of this table."""
        return Histories.empty(batch_size, num_features=self.num_features, num_numbers=self.num_numbers)

    def __call__(self, customer_index: tf.Tensor) -> Histories:
        """Returns the histories of `[batch]` int32 customer indices; unknown customers (0, 1) have empty ones."""
        start = tf.gather(self._row_splits, customer_index)
        end = tf.gather(self._row_splits, customer_index + 1)
        return self._read(customer_index, start, end)

    def spec(self) -> Histories:
        """Returns the type of the histories that a lookup returns, for the input signature of a `tf.function`."""
        events = {
            name: tf.RaggedTensorSpec([None, None], dtype, ragged_rank=1, row_splits_dtype=tf.int64)
            for name, dtype in EVENT_TYPES.items()
        }
        return Histories(
            customer_index=tf.TensorSpec([None], tf.int32),
            profile=tf.TensorSpec([None, self.num_features], tf.int32),
            profile_numbers=tf.TensorSpec([None, self.num_numbers], tf.float32),
            **events,
        )

    def between(self, customer_index: tf.Tensor, start: tf.Tensor, end: tf.Tensor, now: tf.Tensor) -> Histories:
        """Returns histories as they were known at an instant of the past.

        Args:
            customer_index: `[batch]` int32.
            start: `[batch]` int64, position of the first event.
            end: `[batch]` int64, position just after the last event.
            now: `[batch]` int64, seconds since 1970. The profile of a customer who became known with a purchase is hidden up
                to and including that purchase, so that predicting the purchase cannot use it.
        """
        histories = self._read(customer_index, start, end)
        is_known = (tf.gather(self._known_from, customer_index) < now)[:, tf.newaxis]
        return histories._replace(
            profile=tf.where(is_known, histories.profile, PADDING_INDEX),
            profile_numbers=tf.where(is_known, histories.profile_numbers, float("nan")),
        )

    def _read(self, customer_index: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> Histories:
        position = tf.ragged.range(start, end)
        events = {
            name: position.with_flat_values(tf.gather(values, position.flat_values))
            for name, values in self._events.items()
        }
        return Histories(
            customer_index=customer_index,
            profile=tf.gather(self._profile, customer_index),
            profile_numbers=tf.gather(self._profile_numbers, customer_index),
            **events,
        )


class TrainingBaskets(NamedTuple):
    """Baskets to train on, as positions in the flat events of `Timelines`.

    Attributes:
        row: `[num_baskets]` int64, the customer's row.
        history_start: `[num_baskets]` int64, first event of the history that the query tower reads.
        start: `[num_baskets]` int64, first event of the basket, where its history ends.
        target_splits: `[num_baskets + 1]` int64, where the targets of each basket begin and end in `target`.
        target: `[num_targets]` int32, the distinct articles of each basket.
        time: `[num_baskets]` int64, seconds since 1970.
    """

    row: np.ndarray
    history_start: np.ndarray
    start: np.ndarray
    target_splits: np.ndarray
    target: np.ndarray
    time: np.ndarray


def make_training_baskets(
    timelines: Timelines, *, since: int, history_length: int, section: str = "recommender.two_tower"
) -> TrainingBaskets:
    """Selects the baskets to train on, including customers' first baskets, whose history is empty.

    The history of a basket ends where the basket begins, so that the articles of a basket never predict each other.

    Args:
        timelines: The visible timelines.
        since: Seconds since 1970; earlier baskets serve as history only.
        history_length: Maximum number of events that the query tower reads.
        section: Section of the pipeline file whose `target_days` determines `since`, for messages.

    Raises:
        InputError: There is no basket since then.
    """
    row, time = timelines.row, timelines.time
    first = timelines.starts_basket
    start = np.flatnonzero(first)
    is_target = time[start] >= since
    if not is_target.any():
        name = section.removeprefix("recommender.")
        raise InputError(
            f"{name}: no baskets to train on: {timelines.num_customers:,} customer(s) made {len(start):,} basket(s) "
            f"before the cutoff, none of them in the last `{section}.target_days` days. Raise this setting, or leave "
            f"{name} out of `recommenders`."
        )
    basket_of_event = np.cumsum(first) - 1
    kept = is_target[basket_of_event]
    pairs = np.unique(np.stack([basket_of_event[kept], timelines.article_index[kept]], axis=1), axis=0)
    start = start[is_target]
    row_start = timelines.row_splits[row[start]]
    counts = np.unique(pairs[:, 0], return_counts=True)[1]
    return TrainingBaskets(
        row=row[start],
        history_start=np.maximum(row_start, start - history_length),
        start=start,
        target_splits=np.concatenate([[0], np.cumsum(counts)]),
        target=pairs[:, 1].astype(np.int32),
        time=time[start],
    )


def weekly_batches(week: np.ndarray, *, batch_size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Shuffles baskets into batches of a single week each; the batches of all weeks are in random order.

    Args:
        week: `[num_baskets]` int, the week of each basket.
        batch_size: Approximate number of baskets per batch; the batches of a week are of equal size.
        random: Source of the random order.

    Returns:
        The positions of the baskets of each batch; every basket is in one batch.
    """
    order = np.lexsort([random.random(len(week)), week])
    batches = []
    for positions in np.split(order, np.flatnonzero(np.diff(week[order])) + 1):
        batches += np.array_split(positions, max(1, round(len(positions) / batch_size)))
    return [batches[number] for number in random.permutation(len(batches))]


def make_training_dataset(
    table: HistoryTable, baskets: TrainingBaskets, *, week: np.ndarray, batch_size: int, seed: int
) -> tf.data.Dataset:
    """Makes a dataset of shuffled batches of training baskets.

    The baskets of a batch are of one week, so that its in-batch candidates share one set of weekly features.

    Args:
        table: The histories.
        baskets: The baskets to train on.
        week: `[num_baskets]` int, the week before the cutoff whose features each basket reads.
        batch_size: Approximate number of baskets per batch.
        seed: Seed of the shuffling, which differs from epoch to epoch.

    Returns:
        Dataset of `{"histories": Histories, "now": [batch] int64, "target": [batch, (articles)] ragged int32,
        "week": scalar int32}`.
    """
    random = np.random.default_rng(seed)
    row, history_start, start, target_splits, target, time = (tf.constant(column) for column in baskets)

    def shuffled() -> Iterator[tuple[int, np.ndarray]]:
        for batch in weekly_batches(week, batch_size=batch_size, random=random):
            yield int(week[batch[0]]), batch

    def gather(week: tf.Tensor, basket: tf.Tensor) -> dict[str, object]:
        customer_index = tf.cast(tf.gather(row, basket), tf.int32) + FIRST_INDEX
        position = tf.ragged.range(tf.gather(target_splits, basket), tf.gather(target_splits, basket + 1))
        first, end, now = (tf.gather(column, basket) for column in (history_start, start, time))
        return {
            "histories": table.between(customer_index, first, end, now),
            "now": now,
            "target": position.with_flat_values(tf.gather(target, position.flat_values)),
            "week": week,
        }

    signature = (tf.TensorSpec([], tf.int32), tf.TensorSpec([None], tf.int64))
    num_batches = len(weekly_batches(week, batch_size=batch_size, random=np.random.default_rng(seed)))
    dataset = tf.data.Dataset.from_generator(shuffled, output_signature=signature)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches))
    return dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
