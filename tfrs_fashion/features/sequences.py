"""Sequences: histories as steps, each of which predicts the next purchase, for training and for queries alike.

A sequence begins with an empty step, which predicts the first purchase; then follows one step per purchase. A step knows the
time of the purchase that it predicts, just as a query knows `now`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.timelines import Timelines
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX, InputError

# Columns of events that steps contain in addition to the article, with their types.
EVENT_COLUMNS = {"price": tf.float32, "discount": tf.float32, "sales_channel_id": tf.int32}


class Steps(NamedTuple):
    """The steps of a batch of sequences, padded at the end.

    Attributes:
        article_index: `[batch, length]` int32, the article bought; 0 at the first step and in the padding.
        time: `[batch, length]` int64, seconds since 1970 of that purchase; at the first step, of the next purchase.
        next_time: `[batch, length]` int64, seconds since 1970 of the purchase to predict.
        price: `[batch, length]` float32, NaN where unknown.
        discount: `[batch, length]` float32, NaN where unknown.
        sales_channel_id: `[batch, length]` int32, 0 where unknown.
        num_steps: `[batch]` int32, number of steps without the padding; at least 1.
    """

    article_index: tf.Tensor
    time: tf.Tensor
    next_time: tf.Tensor
    price: tf.Tensor
    discount: tf.Tensor
    sales_channel_id: tf.Tensor
    num_steps: tf.Tensor


def read_steps(histories: Histories, now: tf.Tensor, *, length: int) -> Steps:
    """Makes the steps of queries, the last of which predicts the purchase at `now`.

    Args:
        histories: A batch of histories, in time order; an event after `now` counts as bought at `now`.
        now: `[batch]` int64, seconds since 1970.
        length: Maximum number of events read, the most recent ones.
    """
    events = histories.last(length)
    num_events = tf.cast(events.article_index.row_lengths(), tf.int32)

    def dense(column: tf.RaggedTensor, default: float | int) -> tf.Tensor:
        return tf.pad(column.to_tensor(default), [[0, 0], [1, 0]], constant_values=default)

    time = tf.minimum(dense(events.time, np.iinfo(np.int64).max), now[:, tf.newaxis])
    next_time = tf.concat([time[:, 1:], now[:, tf.newaxis]], axis=1)
    first = tf.one_hot(tf.zeros_like(num_events), tf.shape(time)[1], on_value=True, off_value=False)
    return Steps(
        article_index=dense(events.article_index, PADDING_INDEX),
        time=tf.where(first, next_time, time),
        next_time=next_time,
        price=dense(events.price, float("nan")),
        discount=dense(events.discount, float("nan")),
        sales_channel_id=dense(events.sales_channel_id, 0),
        num_steps=num_events + 1,
    )


class Windows(NamedTuple):
    """Windows of histories to train on, as positions in the flat events of `Timelines`.

    Attributes:
        row: `[num_windows]` int64, the customer's row.
        start: `[num_windows]` int64, first event.
        end: `[num_windows]` int64, just after the last event.
        is_target: `[num_events]` bool, events to predict: the first of each basket, since those of a basket must not see each other.
        first_target: `[num_windows]` int64, the first event to predict; this window only reads the events before it, which an
            earlier window predicts.
    """

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    is_target: np.ndarray
    first_target: np.ndarray


def make_windows(timelines: Timelines, *, since: int, length: int, section: str) -> Windows:
    """Cuts histories into windows of at most `length` events.

    Windows overlap by half. Every target is predicted once, from at least half a window of past events where there are as many.

    Args:
        timelines: The visible timelines.
        since: Seconds since 1970; earlier baskets serve as history only.
        length: Maximum number of events per window, at least 2.
        section: Section of the pipeline file whose `target_days` determines `since`, for messages.

    Raises:
        InputError: There is no basket since then.
    """
    begin, behind = timelines.row_splits[:-1], timelines.row_splits[1:]
    half = max(length // 2, 1)
    # Windows are placed from the end of a history backwards, so that the latest targets have the longest past.
    count = 1 + np.maximum(-(-(behind - begin - length) // half), 0)
    row = np.repeat(np.arange(len(begin)), count)
    back = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    end = behind[row] - back * half
    start = np.maximum(end - length, begin[row])
    first_target = np.where(start == begin[row], start, end - half)
    is_target = timelines.starts_basket & (timelines.time >= since)
    num_before = np.concatenate([[0], np.cumsum(is_target)])
    kept = num_before[end] > num_before[first_target]
    if not kept.any():
        raise InputError(
            f"{section.removeprefix('recommender.')}: no baskets to train on: {timelines.num_customers:,} customer(s) made "
            f"{int(timelines.starts_basket.sum()):,} basket(s) before the cutoff, none of them in the last "
            f"`{section}.target_days` days. Raise this setting, or leave the recommender out of `recommenders`."
        )
    return Windows(row[kept], start[kept], end[kept], is_target, first_target[kept])


def count_targets(timelines: Timelines, windows: Windows, *, size: int) -> np.ndarray:
    """Returns how often each article is a target in an epoch, on average.

    Baskets are shuffled, so each article of a basket is its first, and thus the target, equally often.

    Args:
        timelines: The timelines of the windows.
        windows: The windows to train on.
        size: Number of article indices, including padding and out of vocabulary.

    Returns:
        `[size]` float64; 0 for padding and out of vocabulary.
    """
    starts = timelines.starts_basket
    basket = np.cumsum(starts) - 1
    weight = windows.is_target[starts][basket] / np.bincount(basket)[basket]
    weight[timelines.article_index < FIRST_INDEX] = 0.0
    return np.bincount(timelines.article_index, weights=weight, minlength=size)


def shuffle_baskets(timelines: Timelines, *, random: np.random.Generator) -> np.ndarray:
    """Returns the positions of all events, shuffled within each basket: `[num_events]` int64."""
    basket = np.cumsum(timelines.starts_basket)
    return np.lexsort([random.random(len(basket)), basket])


def batch_windows(windows: Windows, *, batch_events: int, random: np.random.Generator) -> list[np.ndarray]:
    """Batches windows of similar length, so that batches contain hardly any padding.

    Args:
        windows: The windows to batch.
        batch_events: Approximate number of events per batch, including padding.
        random: Source of the random order.

    Returns:
        The positions of the windows of each batch, in random order; every window is in one batch.
    """
    length = windows.end - windows.start
    order = np.lexsort([random.random(len(length)), length])
    batches, begin = [], 0
    while begin < len(order):
        # Lengths ascend, so the last window of a batch is the longest and sets the padded width.
        width = length[order[begin : begin + batch_events]]
        fits = np.flatnonzero((np.arange(len(width)) + 1) * (width + 1) <= batch_events)
        size = int(fits[-1]) + 1 if len(fits) else 1
        batches.append(order[begin : begin + size])
        begin += size
    return [batches[number] for number in random.permutation(len(batches))]


def make_sequence_dataset(
    view: View, windows: Windows, *, batch_events: int, shuffle: bool, seed: int
) -> tf.data.Dataset:
    """Makes a dataset of batches of windows.

    Args:
        view: What the fit may see.
        windows: Windows of the view's timelines.
        batch_events: Approximate number of events per batch, including padding.
        shuffle: Whether to shuffle whole histories, an ablation that measures what their order is worth. By default, only
            the articles within each basket are shuffled, whose order means nothing.
        seed: Seed of all random orders, which differ from epoch to epoch.

    Returns:
        Dataset of `{"steps": Steps, "next_article": [batch, length] int32, "is_target": [batch, length] bool,
        "customer_index": [batch] int32, "profile": [batch, any] int32, "profile_numbers": [batch, any] float32,
        "known_from": [batch] int64}`. A step predicts the next article; the loss counts it where `is_target`.
    """
    timelines = view.timelines
    random = np.random.default_rng(seed)

    def epoch() -> Iterator[tuple[np.ndarray, ...]]:
        order = shuffle_baskets(timelines, random=random)
        events = {name: getattr(timelines, name)[order] for name in ("article_index", *EVENT_COLUMNS)}
        if shuffle:
            mixed = np.lexsort([random.random(len(order)), timelines.row])
            events = {name: values[mixed] for name, values in events.items()}
        for batch in batch_windows(windows, batch_events=batch_events, random=random):
            row = windows.row[batch]
            customer_index = (row + FIRST_INDEX).astype(np.int32)
            profile = tuple(values[customer_index] for values in view.profiles)
            customer = (customer_index, *profile, timelines.known_from[row])
            yield (*customer, *_pad_windows(timelines, windows, batch, events))

    def name_columns(*columns: tf.Tensor) -> dict[str, object]:
        return {**dict(zip(names, columns, strict=False)), "steps": Steps(*columns[len(names) :])}

    names = ("customer_index", "profile", "profile_numbers", "known_from", "next_article", "is_target")
    square = {"article_index": tf.int32, "time": tf.int64, "next_time": tf.int64, **EVENT_COLUMNS}
    signature = (
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, view.profiles.categorical.shape[1]], tf.int32),
        tf.TensorSpec([None, view.profiles.numbers.shape[1]], tf.float32),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, None], tf.bool),
        *(tf.TensorSpec([None, None], dtype) for dtype in square.values()),
        tf.TensorSpec([None], tf.int32),
    )
    num_batches = len(batch_windows(windows, batch_events=batch_events, random=np.random.default_rng(seed)))
    dataset = tf.data.Dataset.from_generator(epoch, output_signature=signature)
    # Batches depend on lengths alone, so every epoch has the same number of them.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches))
    return dataset.map(name_columns, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _pad_windows(
    timelines: Timelines, windows: Windows, batch: np.ndarray, events: dict[str, np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Pads windows to a batch; returns the next articles, which of them are targets, and the fields of `Steps`."""
    start, end = windows.start[batch], windows.end[batch]
    width = int((end - start).max())
    # Step i reads event i - 1 of its window and predicts event i; a window of n events has n steps.
    predicted = start[:, np.newaxis] + np.arange(width)
    inside = predicted < end[:, np.newaxis]
    predicted = np.where(inside, predicted, end[:, np.newaxis] - 1)
    read = np.maximum(predicted - 1, start[:, np.newaxis])
    is_read = inside & (np.arange(width) > 0)
    learned = inside & windows.is_target[predicted] & (predicted >= windows.first_target[batch, np.newaxis])
    next_time = timelines.time[predicted]
    article = np.where(is_read, events["article_index"][read], PADDING_INDEX).astype(np.int32)
    missing = {"price": np.nan, "discount": np.nan, "sales_channel_id": 0}
    columns = [
        np.where(is_read, events[name][read], default).astype(events[name].dtype) for name, default in missing.items()
    ]
    return (
        np.where(inside, events["article_index"][predicted], PADDING_INDEX).astype(np.int32),
        # An unknown article cannot be recommended, so there is nothing to learn from it.
        learned & (events["article_index"][predicted] >= FIRST_INDEX),
        article,
        np.where(is_read, timelines.time[read], next_time),
        next_time,
        *columns,
        (end - start).astype(np.int32),
    )
