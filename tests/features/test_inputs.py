from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import (
    HistoryTable,
    Profiles,
    ProfileVocabulary,
    TrainingBaskets,
    encode_profiles,
    make_training_baskets,
    make_training_dataset,
    weekly_batches,
)
from tfrs_fashion.features.timelines import ALWAYS, EVENT_TYPES, Timelines
from tfrs_fashion.features.view import View
from tfrs_fashion.features.vocabulary import look_up
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
        quantity=np.array([article for article, _time in events], dtype=np.int32),
        discount=np.array([article / 100 for article, _time in events], dtype=np.float32),
        sales_channel_id=np.array([article % 2 for article, _time in events], dtype=np.int32),
        store_index=np.array([2 + article % 3 for article, _time in events], dtype=np.int32),
        store_id=np.array(["a", "b", "c"], dtype=object),
        known_from=np.full(len(histories), ALWAYS, dtype=np.int64),
        profile={"size": np.array(["s", "", "xl", "m"][: len(histories)], dtype=object)},
        profile_numbers={"age": np.array([20, np.nan, np.nan, 80.5][: len(histories)], dtype=np.float32)},
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
    # First baskets have no history; what a basket holds twice is one target.
    assert as_lists(make_training_baskets(timelines, since=0, history_length=99), timelines) == [
        (0, 10, [], [2, 3]),
        (0, 20, [2, 3], [2]),
        (0, 30, [2, 3, 2, 2], [2, 4]),
        (2, 30, [], [5, 6]),
        (3, 30, [], [2]),
        (3, 40, [2], [7]),
    ]


def test_early_baskets_are_history_only() -> None:
    timelines = make_timelines(HISTORIES)
    found = as_lists(make_training_baskets(timelines, since=30, history_length=99), timelines)
    assert [row[:2] for row in found] == [(0, 30), (2, 30), (3, 30), (3, 40)]
    assert [row[2] for row in found] == [[2, 3, 2, 2], [], [], [2]]
    late = as_lists(make_training_baskets(timelines, since=31, history_length=99), timelines)
    assert late == [(3, 40, [2], [7])]


def test_history_length_counts_the_latest_events() -> None:
    timelines = make_timelines(HISTORIES)
    found = as_lists(make_training_baskets(timelines, since=0, history_length=3), timelines)
    assert [row[2] for row in found] == [[], [2, 3], [3, 2, 2], [], [], [2]]
    one = as_lists(make_training_baskets(timelines, since=0, history_length=1), timelines)
    assert [row[2] for row in one] == [[], [3], [2], [], [], [2]]


def test_baskets_equal_a_slow_search(view: View) -> None:
    timelines = view.timelines
    since, length = int(np.median(timelines.time)), 7
    expected = []
    for row in range(timelines.num_customers):
        part = slice(timelines.row_splits[row], timelines.row_splits[row + 1])
        time, article = timelines.time[part], timelines.article_index[part]
        for moment in np.unique(time):
            if moment >= since:
                history = article[time < moment][-length:].tolist()
                expected.append((row, int(moment), history, sorted(set(article[time == moment].tolist()))))
    found = as_lists(make_training_baskets(timelines, since=since, history_length=length), timelines)
    assert len(found) > 50
    assert found == expected


@pytest.mark.parametrize(
    ("histories", "since", "counts"),
    [
        ([[(2, 10), (3, 10)], [(4, 20)]], 21, "2 customer(s) made 2 basket(s) before the cutoff, none of them in the"),
        ([[]], 0, "1 customer(s) made 0 basket(s)"),
        ([], 0, "0 customer(s) made 0 basket(s)"),
    ],
)
def test_no_basket_to_learn_from(histories: list[list[tuple[int, int]]], since: int, counts: str) -> None:
    with pytest.raises(InputError) as caught:
        make_training_baskets(make_timelines(histories), since=since, history_length=9)
    assert str(caught.value).startswith("two_tower: no baskets to train on: ")
    assert counts in str(caught.value)
    assert "`recommender.two_tower.target_days`" in str(caught.value)


def no_profiles(num_customers: int) -> Profiles:
    size = num_customers + FIRST_INDEX
    return Profiles(np.zeros([size, 0], np.int32), np.zeros([size, 0], np.float32))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("week", [[0] * 23, [3, 0, 3, 1, 1, 3, 3], [5], [0, 1, 2, 3]])
def test_a_batch_lies_within_one_week_and_every_basket_comes_once(week: list[int], batch_size: int) -> None:
    weeks = np.array(week)
    batches = weekly_batches(weeks, batch_size=batch_size, random=np.random.default_rng(1))
    assert sorted(position for batch in batches for position in batch.tolist()) == list(range(len(week)))
    assert all(len(set(weeks[batch])) == 1 for batch in batches)
    for number in set(week):
        sizes = [len(batch) for batch in batches if weeks[batch[0]] == number]
        # As many batches as come nearest to their size, which then differs by one at most.
        count = week.count(number)
        assert sum(sizes) == count
        assert max(sizes) - min(sizes) <= 1
        assert abs(len(sizes) - count / batch_size) <= 0.5 or len(sizes) == 1


def test_weeks_come_in_any_order_and_baskets_are_shuffled_within_them() -> None:
    week = np.repeat([0, 1, 2, 3], 40)
    random = np.random.default_rng(7)
    first, second = (weekly_batches(week, batch_size=8, random=random) for _epoch in range(2))
    orders = [[int(week[batch[0]]) for batch in batches] for batches in (first, second)]
    assert orders[0] != sorted(orders[0])
    assert orders[0] != orders[1]
    contents = [{tuple(sorted(batch.tolist())) for batch in batches} for batches in (first, second)]
    assert contents[0] != contents[1]
    assert {len(batch) for batch in first} == {8}


def make_batches(
    num_baskets: int, *, batch_size: int, seed: int = 1, num_weeks: int = 1
) -> tuple[tf.data.Dataset, TrainingBaskets]:
    """One customer for each basket, who bought one article of their own; weeks follow each other in turn."""
    timelines = make_timelines([[(3 + number, 10 + number)] for number in range(num_baskets)])
    baskets = make_training_baskets(timelines, since=0, history_length=5)
    table = HistoryTable(timelines, no_profiles(num_baskets))
    week = np.arange(num_baskets) % num_weeks
    return make_training_dataset(table, baskets, week=week, batch_size=batch_size, seed=seed), baskets


def epoch(dataset: tf.data.Dataset) -> list[list[int]]:
    return [batch["now"].numpy().tolist() for batch in dataset]


def test_each_basket_comes_once_an_epoch() -> None:
    dataset, baskets = make_batches(23, batch_size=5)
    found = epoch(dataset)
    # 23 baskets are nearest to five batches of five.
    assert sorted(len(batch) for batch in found) == [4, 4, 5, 5, 5]
    assert int(dataset.cardinality()) == 5
    assert sorted(time for batch in found for time in batch) == baskets.time.tolist()


def test_a_batch_says_its_week() -> None:
    dataset, baskets = make_batches(30, batch_size=4, num_weeks=3)
    found = list(dataset)
    # Ten baskets a week are nearest to two batches of five; round(2.5) is 2.
    assert len(found) == int(dataset.cardinality()) == 6
    for batch in found:
        assert batch["week"].dtype == tf.int32
        assert batch["week"].shape == ()
        # Basket i is at second 10 + i, in week i modulo 3.
        assert {(time - 10) % 3 for time in batch["now"].numpy().tolist()} == {int(batch["week"])}
    assert sorted(time for batch in found for time in batch["now"].numpy()) == baskets.time.tolist()


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


# "s" and "m" are known, customer 1's is missing, "xl" is unknown; the ages of the first and the last are known.
VOCABULARY = {"size": ["m", "s"]}


def make_table() -> HistoryTable:
    timelines = make_timelines(HISTORIES)
    return HistoryTable(timelines, encode_profiles(timelines, VOCABULARY))


def test_a_batch_holds_history_moment_and_targets_of_the_same_baskets() -> None:
    timelines = make_timelines(HISTORIES)
    baskets = make_training_baskets(timelines, since=0, history_length=3)
    profiles = encode_profiles(timelines, VOCABULARY)
    expected = {
        (row + FIRST_INDEX, time): (history, target) for row, time, history, target in as_lists(baskets, timelines)
    }
    week = np.zeros(len(baskets.row), np.int32)
    (batch,) = make_training_dataset(HistoryTable(timelines, profiles), baskets, week=week, batch_size=9, seed=1)
    histories = batch["histories"]
    keys = list(zip(histories.customer_index.numpy().tolist(), batch["now"].numpy().tolist(), strict=True))
    assert sorted(keys) == sorted(expected)
    assert histories.article_index.to_list() == [expected[key][0] for key in keys]
    assert batch["target"].to_list() == [expected[key][1] for key in keys]
    for (_customer, now), times in zip(keys, histories.time.to_list(), strict=True):
        assert all(time < now for time in times)
    customers = [customer for customer, _now in keys]
    assert histories.profile.numpy().tolist() == profiles.categorical[customers].tolist()
    np.testing.assert_array_equal(histories.profile_numbers.numpy(), profiles.numbers[customers])


def test_profiles_are_encoded_by_customer() -> None:
    # Indices 0 and 1 are no customers.
    found = encode_profiles(make_timelines(HISTORIES), VOCABULARY)
    assert found.categorical.tolist() == [[0], [0], [FIRST_INDEX + 1], [0], [OUT_OF_VOCABULARY_INDEX], [FIRST_INDEX]]
    assert found.categorical.dtype == np.int32
    nan = np.nan
    np.testing.assert_array_equal(found.numbers, [[nan], [nan], [20.0], [nan], [nan], [80.5]])
    assert found.numbers.dtype == np.float32
    assert encode_profiles(make_timelines(HISTORIES), {}).categorical.shape == (6, 0)


# Two features: values of one are no values of the other; an `=` is a letter like any other.
TWO_FEATURES = {"size": ["m", "s"], "fit": ["0=m", "grön", "m"]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([["m", "m"], ["s", "grön"]], [[2, 4], [3, 3]]),
        ([["", ""], ["grön", "s"]], [[0, 0], [1, 1]]),
        ([["0=m", "0=m"], ["1=m", "=m"]], [[1, 2], [1, 1]]),
        ([["日本", "m "], ["x" * 10**5, "M"]], [[1, 1], [1, 1]]),
    ],
)
def test_a_profile_in_a_request_is_encoded_like_a_stored_one(
    values: list[list[str]], expected: list[list[int]]
) -> None:
    found = ProfileVocabulary(TWO_FEATURES)(tf.constant(values)).numpy()
    assert found.tolist() == expected
    assert found.dtype == np.int32
    columns = zip(*values, strict=True)
    stored = [look_up(column, known) for column, known in zip(columns, TWO_FEATURES.values(), strict=True)]
    assert np.stack(stored, axis=1).tolist() == expected


@pytest.mark.parametrize("vocabulary", [{}, {"size": []}])
@pytest.mark.parametrize("batch", [0, 2])
def test_profiles_of_nothing_are_encoded(vocabulary: dict[str, list[str]], batch: int) -> None:
    found = ProfileVocabulary(vocabulary)(tf.fill([batch, len(vocabulary)], "m"))
    assert found.numpy().tolist() == [[OUT_OF_VOCABULARY_INDEX] * len(vocabulary)] * batch


def test_known_customers_are_looked_up_and_unknown_ones_have_nothing() -> None:
    timelines = make_timelines(HISTORIES)
    profiles = encode_profiles(timelines, VOCABULARY)
    customers = [5, 1, 2, 0, 3, 1]
    found = HistoryTable(timelines, profiles)(tf.constant(customers, tf.int32))
    articles = [[article for article, _time in history] for history in HISTORIES]
    assert found.article_index.to_list() == [articles[3], [], articles[0], [], articles[1], []]
    assert found.time.to_list() == [[30, 40], [], [10, 10, 20, 20, 30, 30], [], [], []]
    assert found.price.to_list()[0] == [1.0, 3.5]
    assert found.quantity.to_list()[:2] == [[2, 7], []]
    assert found.discount.to_list()[0] == pytest.approx([0.02, 0.07])
    assert found.sales_channel_id.to_list()[0] == [0, 1]
    assert found.store_index.to_list()[0] == [4, 3]
    for name, dtype in EVENT_TYPES.items():
        assert getattr(found, name).dtype == dtype
    assert found.profile.numpy().tolist() == profiles.categorical[customers].tolist()
    np.testing.assert_array_equal(found.profile_numbers.numpy(), profiles.numbers[customers])
    assert found.customer_index.numpy().tolist() == customers


def test_empty_histories_are_those_of_unknown_customers() -> None:
    table = make_table()
    for batch in (0, 3):
        looked_up, empty = table(tf.fill([batch], OUT_OF_VOCABULARY_INDEX)), table.empty(tf.constant(batch))
        for name, found in empty._asdict().items():
            expected = getattr(looked_up, name)
            assert found.dtype == expected.dtype, name
            if isinstance(found, tf.RaggedTensor):
                assert found.to_list() == expected.to_list() == [[]] * batch
                assert found.row_splits.dtype == expected.row_splits.dtype
            else:
                np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_an_empty_batch_is_looked_up() -> None:
    table = make_table()
    assert table(tf.zeros([0], tf.int32)).article_index.to_list() == []


@pytest.mark.parametrize("num_events", [1, 2, 100])
def test_last_events_of_a_batch(num_events: int) -> None:
    table = make_table()
    found = table(tf.constant([2, 3, 5], tf.int32)).last(num_events)
    for row, history in enumerate([HISTORIES[0], HISTORIES[1], HISTORIES[3]]):
        latest = history[-num_events:]
        assert found.article_index.to_list()[row] == [article for article, _time in latest]
        assert found.time.to_list()[row] == [time for _article, time in latest]
        assert found.price.to_list()[row] == [article / 2 for article, _time in latest]


def test_the_type_of_a_look_up_fits_what_it_gives() -> None:
    table = make_table()
    lengths = tf.function(lambda found: found.article_index.row_lengths(), input_signature=(table.spec(),))
    for customers in ([2, 3], [5], [1, 1, 1]):
        found = lengths(table(tf.constant(customers, tf.int32))).numpy().tolist()
        assert found == [len([[], [], *HISTORIES][customer]) for customer in customers]


def test_a_profile_made_from_a_purchase_is_not_known_to_its_prediction() -> None:
    # As of derived customers: known from their first basket on, at 10, 30 and 30; customer 1 never bought.
    known_from = np.array([10, ALWAYS, 30, 30], dtype=np.int64)
    timelines = replace(make_timelines(HISTORIES), known_from=known_from)
    profiles = encode_profiles(timelines, {"size": ["m", "s", "xl"]})
    baskets = make_training_baskets(timelines, since=0, history_length=99)
    dataset = make_training_dataset(
        HistoryTable(timelines, profiles), baskets, week=np.zeros(len(baskets.row), int), batch_size=99, seed=1
    )
    (batch,) = list(dataset)
    found = {
        (int(customer), int(now)): (profile.tolist(), None if np.isnan(age).all() else age.tolist())
        for customer, now, profile, age in zip(
            batch["histories"].customer_index.numpy(),
            batch["now"].numpy(),
            batch["histories"].profile.numpy(),
            batch["histories"].profile_numbers.numpy(),
            strict=True,
        )
    }
    # "m" is index 2, "s" 3; customers 0 and 3 are those with an age.
    assert found == {
        (2, 10): ([0], None),
        (2, 20): ([3], [20.0]),
        (2, 30): ([3], [20.0]),
        (4, 30): ([0], None),
        (5, 30): ([0], None),
        (5, 40): ([2], [80.5]),
    }
