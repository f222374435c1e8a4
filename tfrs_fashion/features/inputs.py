"""Model inputs: histories of a batch of customers, and the tf.data pipeline of training baskets."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.timelines import ALWAYS, EVENT_TYPES, Timelines
from tfrs_fashion.features.vocabulary import look_up
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX, InputError

SECONDS_PER_DAY = 86_400


class Histories(NamedTuple):
    """What a batch of customers bought before `now`, oldest first.

    Attributes:
        customer_index: `[batch]` int32, 1 for unknown customers.
        article_index: `[batch, (length)]` ragged int32, 1 for unknown articles.
        time: `[batch, (length)]` ragged int64, seconds since 1970; one instant is one basket.
        price: `[batch, (length)]` ragged float32, paid per unit, NaN where unknown.
        quantity: `[batch, (length)]` ragged int32.
        discount: `[batch, (length)]` ragged float32, share off the list price, NaN where unknown.
        sales_channel_id: `[batch, (length)]` ragged int32, 0 where unknown.
        store_index: `[batch, (length)]` ragged int32, 0 where unknown.
        profile: `[batch, num_features]` int32 into the profile vocabularies; 0 where missing.
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
        # All columns have one partition; slicing each by itself would find it out six times.
        position = tf.ragged.range(first, self.article_index.row_limits())
        kept = {
            name: position.with_flat_values(tf.gather(getattr(self, name).flat_values, position.flat_values))
            for name in EVENT_TYPES
        }
        return self._replace(**kept)

    @classmethod
    def empty(cls, batch_size: int | tf.Tensor, *, num_features: int, num_numbers: int) -> "Histories":
        """Makes the histories of unknown customers, of whom nothing is known."""
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
    """What is known of customers beside their histories, by `customer_index`; rows 0 and 1 are empty.

    Attributes:
        categorical: `[num_customers + 2, num_features]` int32 into the profile vocabularies; 0 where missing.
        numbers: `[num_customers + 2, num_numbers]` float32, NaN where missing.
    """

    categorical: np.ndarray
    numbers: np.ndarray


def encode_profiles(timelines: Timelines, vocabulary: dict[str, list[str]]) -> Profiles:
    """Encodes profiles.

    Args:
        timelines: Of all customers.
        vocabulary: Values of each categorical profile feature.
    """
    size = timelines.num_customers + FIRST_INDEX
    categorical = np.zeros((size, len(vocabulary)), dtype=np.int32)
    for column, (name, values) in enumerate(vocabulary.items()):
        categorical[FIRST_INDEX:, column] = look_up(timelines.profile[name], values)
    numbers = np.full((size, len(timelines.profile_numbers)), np.nan, dtype=np.float32)
    for column, found in enumerate(timelines.profile_numbers.values()):
        numbers[FIRST_INDEX:, column] = found
    return Profiles(categorical, numbers)


class ProfileVocabulary(tf.Module):
    """`encode_profiles` in the graph, for profiles that come with a request.

    Args:
        vocabulary: Values of each categorical profile feature.
    """

    def __init__(self, vocabulary: dict[str, list[str]]) -> None:
        super().__init__(name="profile_vocabulary")
        self._num_features = len(vocabulary)
        # One table holds all features, so that every artifact has it, whatever the number of features.
        keys = [f"{column}={value}" for column, values in enumerate(vocabulary.values()) for value in values]
        index = [FIRST_INDEX + number for values in vocabulary.values() for number in range(len(values))]
        entries = tf.lookup.KeyValueTensorInitializer(tf.constant(["", *keys]), tf.constant([PADDING_INDEX, *index]))
        self._index = tf.lookup.StaticHashTable(entries, default_value=OUT_OF_VOCABULARY_INDEX)

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Encodes `[batch, num_features]` string as int32; empty ones are missing, unknown ones out of vocabulary."""
        column = tf.strings.as_string(tf.range(self._num_features))[tf.newaxis, :]
        found = self._index.lookup(tf.strings.join([tf.broadcast_to(column, tf.shape(values)), values], separator="="))
        return tf.where(values == "", PADDING_INDEX, found)


class HistoryTable(tf.Module):
    """Histories of all customers as variables, looked up inside the graph.

    Args:
        timelines: What is visible.
        profiles: See `encode_profiles`.
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
        # Of training alone, so it is no variable, which artifacts would keep.
        self._known_from = tf.constant(np.concatenate([[ALWAYS] * FIRST_INDEX, timelines.known_from]), tf.int64)

    @property
    def num_features(self) -> int:
        """Categorical features of a profile."""
        return int(self._profile.shape[1])

    @property
    def num_numbers(self) -> int:
        """Numeric features of a profile."""
        return int(self._profile_numbers.shape[1])

    def empty(self, batch_size: tf.Tensor) -> Histories:
        """Makes the histories of unknown customers, with as many profile features as the known ones have."""
        return Histories.empty(batch_size, num_features=self.num_features, num_numbers=self.num_numbers)

    def __call__(self, customer_index: tf.Tensor) -> Histories:
        """Looks up `[batch]` int32 customers; unknown ones (0, 1) have an empty history and profile."""
        start = tf.gather(self._row_splits, customer_index)
        end = tf.gather(self._row_splits, customer_index + 1)
        return self._read(customer_index, start, end)

    def spec(self) -> Histories:
        """Returns the type of what a look-up gives, for a `tf.function`'s input signature."""
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
        """Reads what was known of `[batch]` int32 customers before some instant of their past.

        Args:
            customer_index: `[batch]` int32.
            start: `[batch]` int64, position of the first event.
            end: `[batch]` int64, position behind the last event.
            now: `[batch]` int64, seconds since 1970. A profile that was made from a purchase is not known before it, and
                so not to the prediction of that very purchase.
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
    """Baskets to learn from, as positions in the flat events of `Timelines`.

    Attributes:
        row: `[num_baskets]` int64, the customer's row.
        history_start: `[num_baskets]` int64, first event of the history that the query tower reads.
        start: `[num_baskets]` int64, first event of the basket, which is where its history ends.
        target_splits: `[num_baskets + 1]` int64 into `target`.
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
    timelines: Timelines, *, since: int, history_length: int, section: str = "two_tower"
) -> TrainingBaskets:
    """Finds the baskets to learn from, first baskets among them, whose history is empty.

    The history of a basket ends where the basket begins, so the articles of one basket never see each other.

    Args:
        timelines: What is visible.
        since: Baskets before this second are history only.
        history_length: Events that the query tower reads.
        section: Of the pipeline file, whose `target_days` made `since`.

    Raises:
        InputError: There is no such basket.
    """
    row, time = timelines.row, timelines.time
    first = timelines.starts_basket
    start = np.flatnonzero(first)
    wanted = time[start] >= since
    if not wanted.any():
        name = section.removeprefix("generators.")
        raise InputError(
            f"{name}: no basket to learn from: {timelines.num_customers:,} customer(s) made {len(start):,} basket(s) "
            f"before the cutoff, none of them in the last `{section}.target_days` days. Lengthen that, or leave "
            f"{name} out of `recommenders`."
        )
    basket_of_event = np.cumsum(first) - 1
    kept = wanted[basket_of_event]
    pairs = np.unique(np.stack([basket_of_event[kept], timelines.article_index[kept]], axis=1), axis=0)
    start = start[wanted]
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
    """Shuffles baskets into batches that each lie within one week, in any order of weeks.

    Args:
        week: `[num_baskets]` int, the week of each basket.
        batch_size: Baskets in a batch; a week's batches differ from it to be of equal size.
        random: Of the order.

    Returns:
        The positions of the baskets of each batch; every basket comes once.
    """
    order = np.lexsort([random.random(len(week)), week])
    batches = []
    for positions in np.split(order, np.flatnonzero(np.diff(week[order])) + 1):
        batches += np.array_split(positions, max(1, round(len(positions) / batch_size)))
    return [batches[number] for number in random.permutation(len(batches))]


def make_training_dataset(
    table: HistoryTable, baskets: TrainingBaskets, *, week: np.ndarray, batch_size: int, seed: int
) -> tf.data.Dataset:
    """Makes shuffled batches of training baskets, each of one week, so that its candidates have one set of features.

    Args:
        table: Histories to look up in.
        baskets: See `make_training_baskets`.
        week: `[num_baskets]` int, weeks before the cutoff at which features are looked up.
        batch_size: Baskets in a batch, about.
        seed: Of the shuffling, which differs from epoch to epoch.

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
