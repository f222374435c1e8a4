import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_fashion.features.bought_articles import BoughtArticles, bought_articles, keep_strongest
from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.schema import FIRST_INDEX

NOW = 100 * SECONDS_PER_DAY
History = list[tuple[int, int]]  # (article, second), in time order


def make_histories(rows: list[History]) -> Histories:
    def ragged(values: list[list[int]], dtype: tf.DType) -> tf.RaggedTensor:
        flat = [value for row in values for value in row]
        lengths = [len(row) for row in values]
        return tf.RaggedTensor.from_row_lengths(tf.constant(flat, dtype), tf.constant(lengths, tf.int64))

    unknown = Histories.empty(len(rows), num_features=0, num_numbers=0)
    return unknown._replace(
        article_index=ragged([[article for article, _time in row] for row in rows], tf.int32),
        time=ragged([[time for _article, time in row] for row in rows], tf.int64),
        price=ragged([[1 for _event in row] for row in rows], tf.float32),
    )


def slow_bought(rows: list[History], now: list[int], scales: list[float]) -> list[tuple]:
    """Row, article, baskets, first and latest basket, share, decayed counts, from the definition, an event at a time."""
    found = []
    for row, history in enumerate(rows):
        baskets: dict[int, set[int]] = {}
        for article, time in history:
            if article >= FIRST_INDEX:
                baskets.setdefault(article, set()).add(time)
        for article in sorted(baskets):
            times = baskets[article]
            ages = [max(now[row] - time, 0) / SECONDS_PER_DAY for time in sorted(times)]
            decayed = tuple(sum(math.exp(-age / scale) for age in ages) for scale in scales)
            share = len(times) / len(set().union(*baskets.values()))
            found.append((row, article, len(times), min(times), max(times), share, decayed))
    return found


def as_rows(bought: BoughtArticles) -> list[tuple]:
    columns = [values.numpy().tolist() for values in bought]
    return [(*row[:6], tuple(row[6])) for row in zip(*columns, strict=True)]


# Few articles and few times, so that duplicates in a basket, returns to an article and ties all come up;
# article 1 is unknown.
events = st.tuples(st.integers(1, 5), st.integers(0, 6).map(lambda day: NOW - day * SECONDS_PER_DAY // 2))
histories = st.lists(st.lists(events, max_size=12).map(lambda row: sorted(row, key=lambda event: event[1])), max_size=5)


@settings(max_examples=60)
@given(histories, st.integers(0, 10))
def test_bought_articles_equal_a_slow_count(rows: list[History], later: int) -> None:
    now = [NOW + later + row for row in range(len(rows))]
    scales = [0.5, 30.0]
    found = as_rows(bought_articles(make_histories(rows), tf.constant(now, tf.int64), time_scales_days=scales))
    expected = slow_bought(rows, now, scales)
    assert [row[:5] for row in found] == [row[:5] for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row[5] == pytest.approx(other[5])
        assert row[6] == pytest.approx(other[6], rel=1e-5)


def test_decayed_counts_by_hand() -> None:
    # Article 2 was bought 30 and 10 days ago (two lines in the last basket), article 3 now; row 1 bought nothing.
    day = SECONDS_PER_DAY
    rows = [[(2, NOW - 30 * day), (2, NOW - 10 * day), (2, NOW - 10 * day), (3, NOW)], []]
    bought = bought_articles(make_histories(rows), tf.constant([NOW, NOW], tf.int64), time_scales_days=(10.0, 30.0))
    assert bought.row.numpy().tolist() == [0, 0]
    assert bought.article_index.numpy().tolist() == [2, 3]
    assert bought.num_baskets.numpy().tolist() == [2, 1]
    assert bought.first_time.numpy().tolist() == [NOW - 30 * day, NOW]
    assert bought.last_time.numpy().tolist() == [NOW - 10 * day, NOW]
    assert bought.share.numpy().tolist() == pytest.approx([2 / 3, 1 / 3])
    expected = [[math.exp(-3) + math.exp(-1), math.exp(-1) + math.exp(-1 / 3)], [1.0, 1.0]]
    assert bought.decayed.numpy().tolist() == pytest.approx(np.array(expected))


def test_nothing_bought_at_all() -> None:
    for rows in ([], [[]], [[], []], [[(1, NOW)], []]):
        now = tf.fill([len(rows)], tf.constant(NOW, tf.int64))
        bought = bought_articles(make_histories(rows), now, time_scales_days=(1.0, 2.0))  # type: ignore[arg-type]
        assert as_rows(bought) == []
        assert bought.decayed.shape == (0, 2)


def test_the_largest_indices_and_rows_do_not_overflow() -> None:
    largest = 2**31 - 1
    rows: list[History] = [[] for _row in range(500)] + [[(largest, NOW), (2, NOW)]]
    bought = bought_articles(make_histories(rows), tf.fill([501], tf.constant(NOW, tf.int64)))
    assert [row[:3] for row in as_rows(bought)] == [(500, 2, 1), (500, largest, 1)]


def test_a_graph_answers_the_same() -> None:
    rows = [[(2, NOW - 5), (3, NOW - 5), (2, NOW)], [(4, NOW)]]
    now = tf.constant([NOW, NOW], tf.int64)
    compiled = tf.function(lambda batch, at: bought_articles(batch, at, time_scales_days=(3.0,)))
    assert as_rows(compiled(make_histories(rows), now)) == as_rows(
        bought_articles(make_histories(rows), now, time_scales_days=(3.0,))
    )


strengths = st.one_of(st.sampled_from([0.0, 1.0, 2.5]), st.floats(0, 999_999, width=32))
pairs = st.lists(st.tuples(st.integers(0, 3), strengths), max_size=20).map(
    lambda rows: sorted(rows, key=lambda r: r[0])
)


@settings(max_examples=60)
@given(pairs, st.integers(0, 5))
def test_keep_strongest_equals_numpy(rows: list[tuple[int, float]], limit: int) -> None:
    row = np.array([row for row, _strength in rows], np.int64)
    strength = np.array([strength for _row, strength in rows], np.float32)
    position = np.arange(len(rows))
    bought = BoughtArticles(
        tf.constant(row, tf.int64),
        tf.constant(position + FIRST_INDEX, tf.int32),
        tf.constant(position, tf.int32),
        tf.constant(position, tf.int64),
        tf.constant(position, tf.int64),
        tf.constant(strength, tf.float32),
        tf.constant(strength[:, np.newaxis], tf.float32),
    )
    kept = keep_strongest(bought, tf.constant(strength, tf.float32), limit=limit)
    # Articles ascend, so a stable sort by falling strength leaves the lower article first among ties.
    expected = np.concatenate(
        [np.zeros(0, np.int64)]
        + [
            position[row == wanted][np.argsort(-strength[row == wanted], kind="stable")][:limit]
            for wanted in np.unique(row)
        ]
    )
    assert kept.article_index.numpy().tolist() == (expected + FIRST_INDEX).tolist()
    assert kept.row.numpy().tolist() == row[expected].tolist()
    assert kept.last_time.numpy().tolist() == expected.tolist()
    assert kept.decayed.numpy()[:, 0].tolist() == strength[expected].tolist()
