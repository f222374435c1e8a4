"""Steps and windows of histories: what is read, what is predicted, and when."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories, HistoryTable
from tfrs_fashion.features.sequences import (
    Steps,
    batch_windows,
    count_targets,
    make_sequence_dataset,
    make_windows,
    read_steps,
    shuffle_baskets,
)
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX, InputError

MakeView = Callable[[Sequence[tuple[int, int, int]]], View]
DAY = 86_400


def histories_of(rows: list[list[tuple[int, int]]]) -> Histories:
    """Histories of (article, day)."""
    empty = Histories.empty(len(rows), num_features=0, num_numbers=0)
    lengths = tf.constant([len(row) for row in rows], tf.int64)

    def ragged(values: list[float], dtype: tf.DType) -> tf.RaggedTensor:
        return tf.RaggedTensor.from_row_lengths(tf.constant(values, dtype), lengths)

    flat = [event for row in rows for event in row]
    number = list(range(len(flat)))
    return empty._replace(
        article_index=ragged([article for article, _day in flat], tf.int32),
        time=ragged([day * DAY for _article, day in flat], tf.int64),
        price=ragged([float(place) for place in number], tf.float32),
        quantity=ragged([1] * len(flat), tf.int32),
        discount=ragged([place / 100 for place in number], tf.float32),
        sales_channel_id=ragged([1 + place % 2 for place in number], tf.int32),
        store_index=ragged([0] * len(flat), tf.int32),
    )


def test_a_query_begins_with_a_step_of_nothing_and_ends_at_now() -> None:
    rows = [[(5, 1), (6, 1), (7, 4)], [], [(8, 2)]]
    steps = read_steps(histories_of(rows), tf.constant([9 * DAY, 9 * DAY, 3 * DAY], tf.int64), length=10)
    assert steps.num_steps.numpy().tolist() == [4, 1, 2]
    assert steps.article_index.numpy().tolist() == [[0, 5, 6, 7], [0, 0, 0, 0], [0, 8, 0, 0]]
    days = {name: getattr(steps, name).numpy() // DAY for name in ("time", "next_time")}
    assert days["time"].tolist() == [[1, 1, 1, 4], [9, 9, 9, 9], [2, 2, 3, 3]]
    assert days["next_time"].tolist() == [[1, 1, 4, 9], [9, 9, 9, 9], [2, 3, 3, 3]]
    assert steps.price.numpy()[0, 1:].tolist() == [0, 1, 2]
    assert np.isnan(steps.price.numpy()[:, 0]).all()
    assert steps.sales_channel_id.numpy()[2].tolist() == [0, 2, 0, 0]


def test_a_query_reads_the_last_events_and_none_is_later_than_now() -> None:
    rows = [[(number, number) for number in range(2, 12)]]
    steps = read_steps(histories_of(rows), tf.constant([10 * DAY], tf.int64), length=3)
    assert steps.article_index.numpy().tolist() == [[0, 9, 10, 11]]
    assert (steps.time.numpy() // DAY).tolist() == [[9, 9, 10, 10]]
    assert (steps.next_time.numpy() // DAY).tolist() == [[9, 10, 10, 10]]


def test_every_first_of_a_basket_is_predicted_once(make_view: MakeView) -> None:
    random = np.random.default_rng(3)
    purchases = {
        (customer, int(random.integers(2, 8)), int(day))
        for customer, size in ((2, 1), (3, 4), (4, 5), (5, 40), (6, 23))
        for day in random.integers(1, 11, size=size)
    }
    view = make_view(sorted(purchases))
    timelines = view.timelines
    for length in (2, 3, 4, 7, 50):
        windows = make_windows(timelines, since=0, length=length, section="recommender.gru")
        assert (windows.end - windows.start <= length).all()
        predicted: list[int] = []
        for start, first, end in zip(windows.start, windows.first_target, windows.end, strict=True):
            mine = np.arange(first, end)[windows.is_target[first:end]]
            predicted += mine.tolist()
            history = timelines.row_splits[timelines.row[start]]
            # Half a window of the past, or all of it.
            assert (np.minimum(mine - start, mine - history) >= np.minimum(length // 2, mine - history)).all()
        assert sorted(predicted) == np.flatnonzero(timelines.starts_basket).tolist()


def test_what_lies_before_the_targets_is_read_alone(make_view: MakeView) -> None:
    view = make_view([(2, 2, 1), (2, 3, 4), (2, 4, 9), (3, 5, 1)])
    since = int(view.timelines.time[2])
    windows = make_windows(view.timelines, since=since, length=9, section="recommender.gru")
    assert windows.row.tolist() == [0]
    (batch,) = make_sequence_dataset(view, windows, batch_events=50, shuffle=False, seed=1)
    assert batch["steps"].article_index.numpy().tolist() == [[0, 2, 3]]
    assert batch["next_article"].numpy().tolist() == [[2, 3, 4]]
    assert batch["is_target"].numpy().tolist() == [[False, False, True]]


def test_each_of_a_basket_is_as_often_a_target(make_view: MakeView) -> None:
    view = make_view([(2, 2, 1), (2, 3, 1), (2, 4, 1), (2, 5, 3), (3, 3, 4), (3, 5, 4), (4, 7, 1)])
    since = int(view.timelines.time[3])  # day 3
    windows = make_windows(view.timelines, since=since, length=9, section="recommender.gru")
    counted = count_targets(view.timelines, windows, size=8)
    assert counted.tolist() == [0, 0, 0, 0.5, 0, 1.5, 0, 0]
    found = np.zeros(8)
    for batch in make_sequence_dataset(view, windows, batch_events=50, shuffle=False, seed=1).repeat(200):
        found += np.bincount(batch["next_article"].numpy()[batch["is_target"].numpy()], minlength=8)
    assert found / 200 == pytest.approx(counted, abs=0.15)


def test_no_target_raises(make_view: MakeView) -> None:
    view = make_view([(2, 2, 1)])
    with pytest.raises(InputError, match=r"^gru: no baskets to train on: 1 customer.*`recommender\.gru\.target_days`"):
        make_windows(view.timelines, since=2**40, length=9, section="recommender.gru")


def test_baskets_are_shuffled_within_themselves(make_view: MakeView) -> None:
    view = make_view([(2, article, day) for day in (1, 5) for article in (2, 3, 4, 5)] + [(3, 6, 2)])
    orders = {tuple(shuffle_baskets(view.timelines, random=np.random.default_rng(seed))) for seed in range(20)}
    assert len(orders) > 10
    assert all(sorted(order[:4]) == [0, 1, 2, 3] and order[8] == 8 for order in orders)


def test_batches_are_nearly_full_and_hold_every_window_once(make_view: MakeView) -> None:
    random = np.random.default_rng(1)
    length = random.geometric(0.15, size=3000)
    splits = np.concatenate([[0], np.cumsum(length)])
    windows = make_windows(
        replace(
            make_view([(2, 2, 1)]).timelines,
            customer_id=np.zeros(len(length), object),
            row_splits=splits,
            article_index=np.full(splits[-1], 2, np.int32),
            time=np.arange(splits[-1], dtype=np.int64),
        ),
        since=0,
        length=50,
        section="recommender.gru",
    )
    batches = batch_windows(windows, batch_events=1000, random=random)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(windows.row)))
    size = windows.end - windows.start
    padded = sum(len(batch) * size[batch].max() for batch in batches)
    # Padded to 50, as is usual, they would be 7.5 times as many.
    assert padded < 1.06 * size.sum()
    assert all(len(batch) * size[batch].max() <= 1000 for batch in batches)


def test_training_reads_what_a_query_would_read(view: View) -> None:
    """The steps before each target equal those of a query at its time."""
    windows = make_windows(view.timelines, since=0, length=20, section="recommender.gru")
    dataset = make_sequence_dataset(view, windows, batch_events=400, shuffle=False, seed=1)
    table = HistoryTable(view.timelines, view.profiles)
    is_long = np.diff(view.timelines.row_splits) > 20
    checked = 0
    for batch in dataset:
        steps: Steps = batch["steps"]
        for row, place in tf.where(batch["is_target"]).numpy()[::5]:
            customer = int(batch["customer_index"][row])
            if is_long[customer - FIRST_INDEX]:
                continue
            now = steps.next_time[row, place]
            start = view.timelines.row_splits[customer - FIRST_INDEX]
            histories = table.between(
                tf.constant([customer]), tf.constant([start]), tf.constant([start + place]), now[tf.newaxis]
            )
            query = read_steps(histories, now[tf.newaxis], length=20)
            for name in ("time", "next_time"):
                assert (
                    getattr(steps, name)[row, : place + 1].numpy().tolist() == getattr(query, name)[0].numpy().tolist()
                )
            # Within a basket the order is by chance.
            found = steps.article_index[row, : place + 1].numpy()
            assert sorted(found) == sorted(query.article_index[0].numpy())
            checked += 1
    assert checked > 50


def test_no_future_event_is_read(view: View) -> None:
    windows = make_windows(view.timelines, since=0, length=20, section="recommender.gru")
    for batch in make_sequence_dataset(view, windows, batch_events=400, shuffle=False, seed=1):
        steps = batch["steps"]
        is_target = batch["is_target"].numpy()
        # The step before a target is of an earlier basket, unless it is the first step.
        earlier = steps.time.numpy() < steps.next_time.numpy()
        first = np.arange(is_target.shape[1]) == 0
        assert (earlier | first)[is_target].all()
