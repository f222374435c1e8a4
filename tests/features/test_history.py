import datetime
import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_fashion.features.history import HistoryFeatureLayer, HistoryFeatures, make_history_features
from tfrs_fashion.features.history_lookups import (
    MAX_SALES_CHANNEL_ID,
    HistoryLookups,
    categorical_names,
    categorical_sizes,
    make_history_lookups,
    number_names,
)
from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories, HistoryTable
from tfrs_fashion.features.timelines import EVENT_TYPES
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX
from tfrs_fashion.settings.base import RolesConfig

NAN = float("nan")


class Event(NamedTuple):
    """A line of a history; the fields of `EVENT_TYPES` in another order."""

    time: int
    article_index: int
    price: float = NAN
    quantity: int = 1
    discount: float = NAN
    sales_channel_id: int = 0
    store_index: int = 0


def second(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp())


NOW = second("2020-07-15T12:00")
# Articles 2 to 7; nothing is known of 0 and 1. Article 6 has no colour; all that article 7 is, is out of vocabulary.
LOOKUPS = HistoryLookups(
    index={
        "colour": np.array([0, 0, 3, 2, 3, 2, 0, 1], np.int32),
        "garment_group": np.array([0, 0, 2, 2, 3, 4, 4, 1], np.int32),
        "section": np.array([0, 0, 4, 4, 5, 3, 2, 1], np.int32),
        # Stores 2 to 5, of which store 4 is rare.
        "store": np.array([0, 0, 3, 2, 1, 4], np.int32),
    },
    vocabulary={
        "colour": ["blue", "red"],
        "garment_group": ["Dresses", "Shirts", "Shoes"],
        "section": ["Home", "Kids", "Ladies", "Men"],
        "store": ["Graz", "Linz", "Wien"],
    },
    section_shares=("Ladies", "Kids", "Home"),
    women=("Ladies",),
    men=("Men",),
    kids=("Kids",),
)
BLUE, RED = 2, 3
DRESSES = 2
# Ten rows: customer 0 has six baskets, A to F, customer 1 one of one line; customer 2 bought nothing.
A, B, C, D, E, F = (
    second(day) for day in ("2018-07-01", "2019-01-10", "2019-06-30", "2019-08-20", "2020-07-01", "2020-07-10")
)
TEN_ROWS = [
    [
        Event(A, 3, price=10, discount=0, sales_channel_id=2, store_index=3),
        Event(A, 3, sales_channel_id=2, store_index=3),
        Event(B, 4, price=20, quantity=2, discount=0.5, sales_channel_id=2, store_index=2),
        Event(B, 2, price=30, discount=0.25, sales_channel_id=1),
        Event(C, 3, price=40, sales_channel_id=1, store_index=2),
        Event(D, 5, price=5, quantity=3, discount=0, sales_channel_id=2, store_index=3),
        Event(E, OUT_OF_VOCABULARY_INDEX, price=60, sales_channel_id=MAX_SALES_CHANNEL_ID + 1, store_index=4),
        Event(E, 2, price=30, discount=0.1, store_index=4),
        Event(F, 6, sales_channel_id=1, store_index=4),
    ],
    [Event(NOW - 60, 4, price=8, discount=0, sales_channel_id=MAX_SALES_CHANNEL_ID + 7, store_index=5)],
    [],
]


def make_histories(rows: list[list[Event]]) -> Histories:
    def ragged(name: str, dtype: Any) -> tf.RaggedTensor:
        flat = np.array([getattr(event, name) for row in rows for event in row], dtype)
        lengths = tf.constant([len(row) for row in rows], tf.int64)
        return tf.RaggedTensor.from_row_lengths(tf.constant(flat), lengths)

    events = {name: ragged(name, dtype) for name, dtype in EVENT_TYPES.items()}
    return Histories.empty(len(rows), num_features=0, num_numbers=0)._replace(**events)


# One graph for all tests, as in a SavedModel: eagerly each of the hundred operations would cost a call.
RAGGED = {name: tf.RaggedTensorSpec([None, None], dtype, 1, tf.int64) for name, dtype in EVENT_TYPES.items()}
GRAPH = tf.function(
    HistoryFeatureLayer(LOOKUPS).__call__,
    input_signature=(
        Histories(
            customer_index=tf.TensorSpec([None], tf.int32),
            profile=tf.TensorSpec([None, 0], tf.int32),
            profile_numbers=tf.TensorSpec([None, 0], tf.float32),
            **RAGGED,
        ),
        tf.TensorSpec([None], tf.int64),
    ),
)


def features_of(
    rows: list[list[Event]], *, now: list[int] | None = None, lookups: HistoryLookups = LOOKUPS
) -> list[dict[str, float]]:
    """Every feature by name, for each row."""
    moments = tf.constant([NOW] * len(rows) if now is None else now, tf.int64)
    compute = GRAPH if lookups is LOOKUPS else HistoryFeatureLayer(lookups)
    found = compute(make_histories(rows), moments)
    assert found.numbers.dtype == tf.float32
    assert found.categorical.dtype == tf.int32
    assert np.isfinite(found.numbers).all()
    assert (found.categorical.numpy() < np.array(categorical_sizes(lookups))).all()
    assert (found.categorical.numpy() >= 0).all()
    names = number_names(lookups) + categorical_names(lookups)
    columns = np.concatenate([found.numbers, found.categorical], axis=1)
    return [dict(zip(names, row, strict=True)) for row in columns.tolist()]


def days(later: int, earlier: int) -> float:
    return (later - earlier) / SECONDS_PER_DAY


# Each feature of customers 0, 1 and 2, worked out from the rows above.
BY_HAND = {
    "has_history": (1, 1, 0),
    "has_gap": (1, 0, 0),
    "has_price": (1, 1, 0),
    "has_discount": (1, 1, 0),
    "recency_days": (math.log1p(5.5), math.log1p(60 / SECONDS_PER_DAY), 0),
    "frequency": (math.log1p(6), math.log1p(1), 0),
    # 745.5 days since A; a customer of less than a month counts as one of a month.
    "baskets_per_month": (math.log1p(6 * 30 / 745.5), math.log1p(1), 0),
    "days_between_baskets": (math.log1p(740 / 5), 0, 0),
    # E's two lines and F's.
    "recent_purchases": (math.log1p(3), math.log1p(1), 0),
    # 365 days before now is 2019-07-16: C is 16.5 days earlier, D 34.5 days later.
    "same_season_last_year": (math.log1p(2), 0, 0),
    # One in A, two in B, one in C and in D, two in E (one of them unknown), one in F.
    "basket_size": (math.log1p(8 / 6), math.log1p(1), 0),
    # Of seven known ones, C repeats A's article 3, and E repeats B's article 2.
    "repeat_share": (2 / 7, 0, 0),
    "mean_price": (math.log1p((10 + 20 + 30 + 40 + 5 + 60 + 30) / 7), math.log1p(8), 0),
    "spend": (math.log1p(10 + 2 * 20 + 30 + 40 + 3 * 5 + 60 + 30), math.log1p(8), 0),
    "discount_share": (3 / 5, 0, 0),
    "mean_discount": ((0 + 0.5 + 0.25 + 0 + 0.1) / 5, 0, 0),
    # Ladies: articles 2 and 3, five lines; Men: 4, one line; Kids: 5, one line; Home: 6, one line.
    "predicted_sex": ((5 - 1) / (5 + 1), -1, 0),
    "predicted_kids": (1 / 8, 0, 0),
    "section_share/Ladies": (5 / 8, 0, 0),
    "section_share/Kids": (1 / 8, 0, 0),
    "section_share/Home": (1 / 8, 0, 0),
    "section_share_of_others": (1 / 8, 1, 0),
    # Channel 1 in the baskets B (its lowest), C and F; channel 2 in A and D, though on as many lines as channel 1.
    "preferred_sales_channel": (1 - 1 + FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, 0),
    # In June to August of any year: blue in A twice, C, D; red in E.
    "favourite_colour_this_season": (BLUE, RED, 0),
    # Dresses: articles 2 and 3.
    "favourite_garment_group": (DRESSES, 3, 0),
    # Store 3 in A and D, store 2 in B and C; D is the latest of these, and E and F were in a rare one.
    "usual_store": (2, 4, 0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_ten_rows_by_hand(name: str) -> None:
    assert days(NOW, A) == 745.5
    assert days(F, A) == 740
    found = features_of(TEN_ROWS)
    assert [row[name] for row in found] == pytest.approx(BY_HAND[name], rel=1e-6)


def test_every_feature_is_worked_out_by_hand_and_documented(root: Path) -> None:
    names = number_names(LOOKUPS) + categorical_names(LOOKUPS)
    assert set(names) == set(BY_HAND)
    page = (root / "docs" / "reference" / "history_features.md").read_text(encoding="utf-8")
    for name in names:
        assert f"| `{name.replace('/Ladies', '/…').replace('/Kids', '/…').replace('/Home', '/…')}` |" in page


def test_the_favourite_colour_is_that_of_the_season() -> None:
    # The same purchases are judged by the season of the moment at which they are asked about.
    winter, spring = second("2021-01-05"), second("2021-03-01")
    found = features_of([TEN_ROWS[0]] * 2, now=[winter, spring])
    # In winter B's red articles 4 and 2; nothing was bought in spring.
    assert [row["favourite_colour_this_season"] for row in found] == [RED, 0]


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ([3, 5], 3 - 1 + FIRST_INDEX),
        ([5, 3], 3 - 1 + FIRST_INDEX),
        ([0, 0, 5], 5 - 1 + FIRST_INDEX),
        ([0], 0),
        ([MAX_SALES_CHANNEL_ID], MAX_SALES_CHANNEL_ID - 1 + FIRST_INDEX),
        ([99, 50, MAX_SALES_CHANNEL_ID], OUT_OF_VOCABULARY_INDEX),
        ([99, MAX_SALES_CHANNEL_ID], MAX_SALES_CHANNEL_ID - 1 + FIRST_INDEX),
        ([-4, 2**31 - 1], OUT_OF_VOCABULARY_INDEX),
    ],
)
def test_ties_of_channels_go_to_the_lowest(channels: list[int], expected: int) -> None:
    # One basket a channel.
    row = [Event(A + number, 2, sales_channel_id=channel) for number, channel in enumerate(channels)]
    assert features_of([row])[0]["preferred_sales_channel"] == expected


def test_ties_of_favourites_go_to_the_lowest() -> None:
    (found,) = features_of([[Event(A, 2), Event(A, 3), Event(A, 4), Event(A, 5)]])
    # Two of each colour; two dresses against a shirt and a shoe.
    assert found["favourite_colour_this_season"] == min(BLUE, RED)
    (found,) = features_of([[Event(A, 5), Event(A, 4)]])
    assert found["favourite_garment_group"] == 3


@pytest.mark.parametrize(
    ("name", "seconds", "inside"),
    [
        ("recent_purchases", 30 * SECONDS_PER_DAY, 1),
        ("recent_purchases", 30 * SECONDS_PER_DAY + 1, 0),
        ("same_season_last_year", 320 * SECONDS_PER_DAY, 1),
        ("same_season_last_year", 320 * SECONDS_PER_DAY - 1, 0),
        ("same_season_last_year", 410 * SECONDS_PER_DAY, 1),
        ("same_season_last_year", 410 * SECONDS_PER_DAY + 1, 0),
    ],
)
def test_the_edges_of_windows(name: str, seconds: int, inside: int) -> None:
    assert features_of([[Event(NOW - seconds, 2)]])[0][name] == pytest.approx(math.log1p(inside))


def most_frequent(values: list[int]) -> int:
    count = Counter(values)
    return min(count, key=lambda value: (-count[value], value), default=0)


def season(time: int) -> int:
    return datetime.datetime.fromtimestamp(time, datetime.UTC).month % 12 // 3


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def store_of(event: Event, lookups: HistoryLookups) -> int:
    index = lookups.index["store"]
    return int(index[event.store_index]) if event.store_index < len(index) else 0


def slow_features(row: list[Event], now: int, lookups: HistoryLookups) -> dict[str, float]:
    """Every feature of one history, from the definitions, one at a time."""

    def value(role: str, event: Event) -> int:
        index = lookups.index[role]
        return int(index[event.article_index]) if event.article_index < len(index) else 0

    baskets: dict[int, list[Event]] = {}
    for event in row:
        baskets.setdefault(event.time, []).append(event)
    times = sorted(baskets)
    pairs = sorted({(event.time, event.article_index) for event in row})
    known_pairs = [(time, article) for time, article in pairs if article >= FIRST_INDEX]
    repeats = [any(other < time and same == article for other, same in known_pairs) for time, article in known_pairs]
    distinct = {(time, article if article >= FIRST_INDEX else "unknown") for time, article in pairs}
    prices = [event.price for event in row if not math.isnan(event.price)]
    discounts = [event.discount for event in row if not math.isnan(event.discount)]
    channels = []
    for lines in baskets.values():
        ids = [event.sales_channel_id for event in lines if event.sales_channel_id != 0]
        slots = [channel if 1 <= channel <= MAX_SALES_CHANNEL_ID else MAX_SALES_CHANNEL_ID + 1 for channel in ids]
        channels += [min(slots)] if slots else []
    channel = most_frequent(channels)
    names = ["", "rare", *lookups.vocabulary["section"]]
    sections = [names[value("section", event)] for event in row if value("section", event)]
    # Only values of the vocabulary can be favourites.
    colours = [value("colour", event) for event in row if season(event.time) == season(now)]
    garment_groups = [value("garment_group", event) for event in row]
    stores = [max(store_of(event, lookups) for event in baskets[time]) for time in times]
    known = [store for store in stores if store >= FIRST_INDEX]
    usual = max(known, key=lambda store: (known.count(store), -known[::-1].index(store)), default=0)
    women, men = (sum(section in part for section in sections) for part in (lookups.women, lookups.men))
    found = {
        "usual_store": usual,
        "has_history": int(bool(row)),
        "has_gap": int(len(times) > 1),
        "has_price": int(bool(prices)),
        "has_discount": int(bool(discounts)),
        "recency_days": math.log1p((now - times[-1]) / 86400) if row else 0,
        "frequency": math.log1p(len(times)),
        "baskets_per_month": math.log1p(len(times) * 30 / max((now - times[0]) / 86400, 30)) if row else 0,
        "days_between_baskets": math.log1p(mean([(b - a) / 86400 for a, b in itertools.pairwise(times)])),
        "recent_purchases": math.log1p(sum(now - event.time <= 30 * 86400 for event in row)),
        "same_season_last_year": math.log1p(sum(320 * 86400 <= now - time <= 410 * 86400 for time in times)),
        "basket_size": math.log1p(len(distinct) / len(times)) if row else 0,
        "repeat_share": mean(repeats),
        "mean_price": math.log1p(mean(prices)),
        "spend": math.log1p(math.fsum(event.price * event.quantity for event in row if not math.isnan(event.price))),
        "discount_share": mean([discount > 0 for discount in discounts]),
        "mean_discount": mean(discounts),
        "predicted_sex": (women - men) / (women + men) if women + men else 0,
        "predicted_kids": mean([section in lookups.kids for section in sections]),
        "section_share_of_others": mean([section not in lookups.section_shares for section in sections]),
        "preferred_sales_channel": {0: 0, MAX_SALES_CHANNEL_ID + 1: 1}.get(channel, channel + 1),
        "favourite_colour_this_season": most_frequent([colour for colour in colours if colour >= FIRST_INDEX]),
        "favourite_garment_group": most_frequent([group for group in garment_groups if group >= FIRST_INDEX]),
    }
    return found | {
        f"section_share/{name}": mean([section == name for section in sections]) for name in lookups.section_shares
    }


# Few values of each kind, so that duplicates in a basket, repeats and ties all come up, and the edges of windows do.
# Article 8 is one that the lookups lack.
AGES = [0, 1, 30 * SECONDS_PER_DAY, 30 * SECONDS_PER_DAY + 1, 100 * SECONDS_PER_DAY, 320 * SECONDS_PER_DAY - 1]
AGES += [320 * SECONDS_PER_DAY, 410 * SECONDS_PER_DAY, 410 * SECONDS_PER_DAY + 1, 5000 * SECONDS_PER_DAY]
events = st.builds(
    Event,
    time=st.sampled_from([NOW - age for age in AGES]),
    article_index=st.integers(1, 8),
    price=st.sampled_from([NAN, 0.0, 0.5, 20.0, 1e9]),
    quantity=st.sampled_from([1, 2, 1_000_000]),
    discount=st.sampled_from([NAN, 0.0, 0.25, 1.0]),
    sales_channel_id=st.sampled_from([0, 1, 2, 16, 17, 99, -3]),
    store_index=st.integers(0, 6),
)
histories = st.lists(
    st.lists(events, max_size=15).map(lambda row: sorted(row, key=lambda event: event.time)), max_size=5
)


@settings(max_examples=100)
@given(histories, st.integers(0, 400 * SECONDS_PER_DAY))
def test_equals_a_slow_reference(rows: list[list[Event]], later: int) -> None:
    now = [NOW + later * (number % 2) for number in range(len(rows))]
    for found, row, moment in zip(features_of(rows, now=now), rows, now, strict=True):
        assert found == pytest.approx(slow_features(row, moment, LOOKUPS), rel=1e-5, abs=1e-6)


@settings(max_examples=25)
@given(histories, st.randoms(use_true_random=False))
def test_rows_stand_alone_and_the_order_within_a_basket_does_not_matter(rows: list[list[Event]], random: Any) -> None:
    expected = [features_of([row])[0] for row in rows]
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = [sorted(random.sample(rows[row], len(rows[row])), key=lambda event: event.time) for row in order]
    # Sums of prices in another order may differ in their last bits.
    for found, row in zip(features_of(shuffled), order, strict=True):
        assert found == pytest.approx(expected[row], rel=1e-6)
    assert features_of(rows) == expected


@pytest.mark.parametrize("rows", [[], [[]], [[], [], []]])
def test_nothing_bought_at_all(rows: list[list[Event]]) -> None:
    expected = dict.fromkeys(number_names(LOOKUPS) + categorical_names(LOOKUPS), 0.0)
    assert features_of(rows) == [expected] * len(rows)


def test_an_empty_batch_has_columns() -> None:
    found = make_history_features(make_histories([]), tf.zeros([0], tf.int64), LOOKUPS)
    assert found.numbers.shape == (0, len(number_names(LOOKUPS)))
    assert found.categorical.shape == (0, len(categorical_names(LOOKUPS)))


def test_empty_rows_before_between_and_after() -> None:
    nothing, one, many = features_of([[], TEN_ROWS[1], TEN_ROWS[0]])
    assert features_of([[], [], TEN_ROWS[0], [], TEN_ROWS[1], []]) == [nothing, nothing, many, nothing, one, nothing]


def test_ten_thousand_events_at_huge_prices() -> None:
    # Cents beside prices of a billion survive the sum; 5,000 baskets of two.
    row = [Event(NOW - SECONDS_PER_DAY * (5_000 - number // 2), 2, price=1e9, quantity=3) for number in range(10_000)]
    small = [Event(NOW - SECONDS_PER_DAY, 3, price=0.01)]
    found, beside = features_of([row, small])
    assert found["spend"] == pytest.approx(math.log1p(10_000 * 3e9), rel=1e-6)
    assert found["mean_price"] == pytest.approx(math.log1p(1e9), rel=1e-6)
    assert found["frequency"] == pytest.approx(math.log1p(5_000), rel=1e-6)
    assert found["days_between_baskets"] == pytest.approx(math.log1p(1), rel=1e-6)
    assert found["repeat_share"] == pytest.approx(4_999 / 5_000, rel=1e-6)
    assert beside["spend"] == pytest.approx(math.log1p(0.01), rel=1e-5)


def test_what_cannot_come_makes_no_nan() -> None:
    largest = float(np.finfo(np.float32).max)
    rows = [
        [Event(NOW + 1, 2, price=5), Event(NOW + SECONDS_PER_DAY * 900, 3, price=5)],
        [Event(A, 2, price=-5, discount=-1), Event(A, 2, price=float("inf"), quantity=-3, discount=float("inf"))],
        [Event(A, 2, price=largest, quantity=2**31 - 1, discount=largest)] * 3,
        [Event(-(10**11), 0, price=0), Event(0, 2**31 - 1)],
    ]
    future, refused, _largest, _odd = features_of(rows)
    # What lies ahead counts as bought just now; negative and infinite amounts count as unknown.
    assert future["recency_days"] == 0
    assert future["recent_purchases"] == pytest.approx(math.log1p(2))
    assert [refused[name] for name in ("has_price", "has_discount", "spend", "mean_price", "mean_discount")] == [0] * 5


NO_SECTIONS: dict[str, Any] = dict.fromkeys(("section_shares", "women", "men", "kids"), ())


def test_roles_of_columns_without_values() -> None:
    index = {role: np.zeros_like(index) for role, index in LOOKUPS.index.items()}
    lookups = HistoryLookups(index=index, vocabulary={role: [] for role in index}, **NO_SECTIONS)
    for found in features_of(TEN_ROWS, lookups=lookups):
        assert found["favourite_colour_this_season"] == found["favourite_garment_group"] == 0


def test_without_roles_the_other_features_are_the_same() -> None:
    lookups = HistoryLookups(index={}, vocabulary={}, **NO_SECTIONS)
    for found, expected in zip(features_of(TEN_ROWS, lookups=lookups), features_of(TEN_ROWS), strict=True):
        assert found == {name: expected[name] for name in found}


class Served(tf.Module):
    """The layer as an artifact holds it: customers are looked up, features come out."""

    def __init__(self, table: HistoryTable, layer: HistoryFeatureLayer) -> None:
        super().__init__()
        self._layer = layer
        now = tf.TensorSpec([None], tf.int64)
        self.features = tf.function(layer.__call__, input_signature=(table.spec(), now))
        self._table = table

        def of_customers(customer_index: tf.Tensor, now: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.features(self._table(customer_index), now)._asdict()

        self.of_customers = tf.function(of_customers, input_signature=(tf.TensorSpec([None], tf.int32), now))


def test_saved_and_loaded_equals(view: View, tmp_path: Path) -> None:
    roles = RolesConfig(colour="colour", garment_group="garment_group", section="section")
    layer = HistoryFeatureLayer(make_history_lookups(view.articles, roles))
    table = HistoryTable(view.timelines, view.profiles)
    served = Served(table, layer)
    assert len(layer.variables) == 3
    tf.saved_model.save(served, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    for customers in ([], [1], list(range(view.timelines.num_customers + FIRST_INDEX))):
        customer_index = tf.constant(customers, tf.int32)
        now = tf.gather(tf.constant(view.now), customer_index)
        expected = make_history_features(table(customer_index), now, make_history_lookups(view.articles, roles))
        for answer in (
            HistoryFeatures(**loaded.of_customers(customer_index, now)),
            loaded.features(table(customer_index), now),
            served.features(table(customer_index), now),
        ):
            np.testing.assert_array_equal(answer.categorical, expected.categorical)
            np.testing.assert_allclose(answer.numbers, expected.numbers, rtol=1e-6, atol=1e-7)
    assert np.std(expected.numbers, axis=0).max() > 0.5
    assert expected.categorical.numpy().max(axis=0).min() >= FIRST_INDEX
