from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import (
    HistoryTable,
    TrainingBaskets,
    encode_profiles,
    make_training_baskets,
    make_training_dataset,
)
from tfrs_fashion.features.timelines import ALWAYS, Timelines
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, InputError


def make_timelines(histories: list[list[tuple[int, int]]]) -> Timelines:
    """Histories of (article, second)."""
    events = [event for history in histories for event in history]
    return Timelines(
        customer_id=np.array([f"c{row}" for row in range(len(histories))], dtype=object),
        row_splits=np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64),
        article_index=np.array([article for article, _time in events], dtype=np.int32),
        time=np.array([time for _article, time in events], dtype=np.int64),
        price=np.array([article / 2 for article, _time in events], dtype=np.float32),
        quantity=np.ones(len(events), dtype=np.int32),
        discount=np.zeros(len(events), dtype=np.float32),
        sales_channel_id=np.full(len(events), 2, dtype=np.int32),
        known_from=np.array([history[0][1] if history else ALWAYS for history in histories], dtype=np.int64),
        profile={"size": np.array(["s", "", "xl", "m"][: len(histories)], dtype=object)},
        profile_numbers={},
    )


# Ten events. Customer 0: baskets at 10 (2, 3), 20 (2 twice), 30 (4, 2). Customer 1: nothing. Customer 2: one basket
# at 30, right after customer 0's at the same second. Customer 3: baskets at 30 and 40.
HISTORIES = [
    [(2, 10), (3, 10), (2, 20), (2, 20), (4, 30), (2, 30)],
    [],
    [(5, 30), (6, 30)],
    [(2, 30), (7, 40)],
]


def as_lists(baskets: TrainingBaskets, timelines: Timelines) -> list[tuple[int, int, list[int], list[int]]]:
    """Customer row, second, history and targets of each basket."""
    return [
        (
            int(baskets.row[number]),
            int(baskets.time[number]),
            timelines.article_index[baskets.history_start[number] : baskets.start[number]].tolist(),
            baskets.target[baskets.target_splits[number] : baskets.target_splits[number + 1]].tolist(),
        )
        for number in range(len(baskets.row))
    ]


def test_targets_are_the_next_basket_and_history_is_all_before_it() -> None:
    timelines = make_timelines(HISTORIES)
    # First baskets have no history and are no targets; what a basket holds twice is one target.
    assert as_lists(make_training_baskets(timelines, since=0, history_length=99), timelines) == [
        (0, 20, [2, 3], [2]),
        (0, 30, [2, 3, 2, 2], [2, 4]),
        (3, 40, [2], [7]),
    ]


def test_early_baskets_are_history_only() -> None:
    timelines = make_timelines(HISTORIES)
    found = as_lists(make_training_baskets(timelines, since=30, history_length=99), timelines)
    assert [row[:2] for row in found] == [(0, 30), (3, 40)]
    assert found[0][2] == [2, 3, 2, 2]


def test_history_length_counts_the_latest_events() -> None:
    timelines = make_timelines(HISTORIES)
    found = as_lists(make_training_baskets(timelines, since=0, history_length=3), timelines)
    assert [row[2] for row in found] == [[2, 3], [3, 2, 2], [2]]
    one = as_lists(make_training_baskets(timelines, since=0, history_length=1), timelines)
    assert [row[2] for row in one] == [[3], [2], [2]]


def test_baskets_equal_a_slow_search(view: View) -> None:
    timelines = view.timelines
    since, length = int(np.median(timelines.time)), 7
    expected = []
    for row in range(timelines.num_customers):
        part = slice(timelines.row_splits[row], timelines.row_splits[row + 1])
        time, article = timelines.time[part], timelines.article_index[part]
        for moment in np.unique(time)[1:]:
            if moment >= since:
                history = article[time < moment][-length:].tolist()
                expected.append((row, int(moment), history, sorted(set(article[time == moment].tolist()))))
    found = as_lists(make_training_baskets(timelines, since=since, history_length=length), timelines)
    assert len(found) > 50
    assert found == expected


@pytest.mark.parametrize(
    ("histories", "since", "counts"),
    [
        ([[(2, 10), (3, 10)], [(4, 20)]], 0, "2 customer(s) made 2 basket(s) before the cutoff, 0 of them"),
        ([[(2, 10), (3, 20)]], 21, "1 customer(s) made 2 basket(s) before the cutoff, 1 of them"),
        ([[]], 0, "1 customer(s) made 0 basket(s)"),
    ],
)
def test_no_basket_to_learn_from(histories: list[list[tuple[int, int]]], since: int, counts: str) -> None:
    with pytest.raises(InputError) as caught:
        make_training_baskets(make_timelines(histories), since=since, history_length=9)
    assert str(caught.value).startswith("two_tower: no basket to learn from: ")
    assert counts in str(caught.value)
    assert "`two_tower.target_days`" in str(caught.value)


def make_batches(num_baskets: int, *, batch_size: int, seed: int = 1) -> tuple[Any, TrainingBaskets]:
    """One customer for each basket, who bought article 2 at second 0 and then one of their own."""
    timelines = make_timelines([[(2, 0), (3 + number, 10 + number)] for number in range(num_baskets)])
    baskets = make_training_baskets(timelines, since=0, history_length=5)
    table = HistoryTable(timelines, np.zeros([num_baskets + FIRST_INDEX, 1], np.int32))
    return make_training_dataset(table, baskets, batch_size=batch_size, seed=seed), baskets


def epoch(dataset: tf.data.Dataset) -> list[list[int]]:
    return [batch["now"].numpy().tolist() for batch in dataset]


def test_each_basket_comes_at_most_once_an_epoch() -> None:
    dataset, baskets = make_batches(23, batch_size=5)
    found = epoch(dataset)
    # 23 baskets make four batches of five; the last three are left out.
    assert [len(batch) for batch in found] == [5] * 4
    assert int(dataset.cardinality()) == 4
    flat = [time for batch in found for time in batch]
    assert len(set(flat)) == 20
    assert set(flat) <= set(baskets.time.tolist())


def test_fewer_baskets_than_a_batch_are_one_batch() -> None:
    dataset, baskets = make_batches(3, batch_size=256)
    assert [sorted(batch) for batch in epoch(dataset)] == [baskets.time.tolist()]


def test_the_seed_fixes_the_order_which_differs_from_epoch_to_epoch() -> None:
    dataset, _baskets = make_batches(40, batch_size=8, seed=3)
    first, second = epoch(dataset), epoch(dataset)
    assert first != second
    again, _baskets = make_batches(40, batch_size=8, seed=3)
    assert [epoch(again), epoch(again)] == [first, second]
    other, _baskets = make_batches(40, batch_size=8, seed=4)
    assert epoch(other) != first


def test_a_batch_holds_history_moment_and_targets_of_the_same_baskets() -> None:
    timelines = make_timelines(HISTORIES)
    baskets = make_training_baskets(timelines, since=0, history_length=3)
    profile = encode_profiles(timelines, {"size": ["m", "s"]})
    expected = {
        (row + FIRST_INDEX, time): (history, target) for row, time, history, target in as_lists(baskets, timelines)
    }
    (batch,) = make_training_dataset(HistoryTable(timelines, profile), baskets, batch_size=9, seed=1)
    histories = batch["histories"]
    keys = list(zip(histories.customer_index.numpy().tolist(), batch["now"].numpy().tolist(), strict=True))
    assert sorted(keys) == sorted(expected)
    assert histories.article_index.to_list() == [expected[key][0] for key in keys]
    assert batch["target"].to_list() == [expected[key][1] for key in keys]
    for (_customer, now), times in zip(keys, histories.time.to_list(), strict=True):
        assert max(times) < now
    assert histories.profile.numpy().tolist() == profile[[customer for customer, _now in keys]].tolist()


def test_profiles_are_encoded_by_customer() -> None:
    # "s" and "m" are known, customer 1's is missing, "xl" is unknown; indices 0 and 1 are no customers.
    found = encode_profiles(make_timelines(HISTORIES), {"size": ["m", "s"]})
    assert found.tolist() == [[0], [0], [FIRST_INDEX + 1], [0], [OUT_OF_VOCABULARY_INDEX], [FIRST_INDEX]]
    assert found.dtype == np.int32
    assert encode_profiles(make_timelines(HISTORIES), {}).shape == (6, 0)


def test_known_customers_are_looked_up_and_unknown_ones_have_nothing() -> None:
    timelines = make_timelines(HISTORIES)
    profile = encode_profiles(timelines, {"size": ["m", "s"]})
    found = HistoryTable(timelines, profile)(tf.constant([5, 1, 2, 0, 3, 1], tf.int32))
    articles = [[article for article, _time in history] for history in HISTORIES]
    assert found.article_index.to_list() == [articles[3], [], articles[0], [], articles[1], []]
    assert found.time.to_list() == [[30, 40], [], [10, 10, 20, 20, 30, 30], [], [], []]
    assert found.price.to_list()[0] == [1.0, 3.5]
    assert found.profile.numpy().tolist() == profile[[5, 1, 2, 0, 3, 1]].tolist()
    assert found.customer_index.numpy().tolist() == [5, 1, 2, 0, 3, 1]


def test_an_empty_batch_is_looked_up() -> None:
    table = HistoryTable(make_timelines(HISTORIES), np.zeros([6, 1], np.int32))
    assert table(tf.zeros([0], tf.int32)).article_index.to_list() == []


@pytest.mark.parametrize("num_events", [1, 2, 100])
def test_last_events_of_a_batch(num_events: int) -> None:
    table = HistoryTable(make_timelines(HISTORIES), np.zeros([6, 1], np.int32))
    found = table(tf.constant([2, 3, 5], tf.int32)).last(num_events)
    for row, history in enumerate([HISTORIES[0], HISTORIES[1], HISTORIES[3]]):
        latest = history[-num_events:]
        assert found.article_index.to_list()[row] == [article for article, _time in latest]
        assert found.time.to_list()[row] == [time for _article, time in latest]
        assert found.price.to_list()[row] == [article / 2 for article, _time in latest]


def test_the_type_of_a_look_up_fits_what_it_gives() -> None:
    table = HistoryTable(make_timelines(HISTORIES), np.zeros([6, 1], np.int32))
    lengths = tf.function(lambda found: found.article_index.row_lengths(), input_signature=(table.spec(),))
    for customers in ([2, 3], [5], [1, 1, 1]):
        found = lengths(table(tf.constant(customers, tf.int32))).numpy().tolist()
        assert found == [len([[], [], *HISTORIES][customer]) for customer in customers]
