"""Features of pairs equal what pandas counts from the events of each customer."""

import math

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfrs_fashion.features.article_weeks import SEASONS
from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories, HistoryTable
from tfrs_fashion.features.pair_lookups import HALF_LIVES_DAYS, PairLookups, make_pair_lookups, usual_gap_days
from tfrs_fashion.features.pairs import PairFeatureLayer
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX, InputError

DAY = SECONDS_PER_DAY
GROUPS = ("product_code", "section")


def events_of(view: View) -> pd.DataFrame:
    timelines = view.timelines
    columns = {name: getattr(timelines, name) for name in ("article_index", "time", "price", "discount")}
    return pd.DataFrame({"customer_index": timelines.row + FIRST_INDEX, **columns})


def tell_key(time: np.ndarray, key: np.ndarray, wanted: int, now: int, usual: np.ndarray) -> dict[str, float]:
    """What is told of one customer's history about one key, from the definition."""
    baskets = np.unique(time[key >= FIRST_INDEX])
    times = np.unique(time[key == wanted]) if wanted >= FIRST_INDEX else np.zeros(0)
    gap = (times[-1] - times[0]) / DAY / (len(times) - 1) if len(times) > 1 else math.nan
    since = (now - times[-1]) / DAY if len(times) else math.nan
    expected = usual[wanted] if wanted < len(usual) else math.nan
    told = {
        "times": len(times),
        "share": len(times) / len(baskets) if len(times) else 0.0,
        "days_since": since,
        "days_since_first": (now - times[0]) / DAY if len(times) else math.nan,
        "mean_gap_days": gap,
        "gap_ratio": since / gap if gap > 0 else math.nan,
        "gap_to_usual": since / expected if expected > 0 else math.nan,
    }
    return told | {f"decayed_{days:.0f}d": float(sum(0.5 ** ((now - times) / DAY / days))) for days in HALF_LIVES_DAYS}


def tell_pair(view: View, lookups: PairLookups, history: pd.DataFrame, customer: int, article: int) -> dict[str, float]:
    now = int(view.now[customer])
    known = article if FIRST_INDEX <= article < len(lookups.article) else 1
    told = {}
    time, bought = history["time"].to_numpy(), history["article_index"].to_numpy()
    keys = {"article": np.arange(len(lookups.article)), **lookups.groups}
    for name, index in keys.items():
        usual = lookups.usual_gap_days[name]
        for feature, value in tell_key(time, index[bought], int(index[known]), now, usual).items():
            told[f"{name} {feature}"] = value
    baskets = np.unique(time)
    age = float(view.profiles.numbers[customer, lookups.age_column]) if lookups.age_column is not None else math.nan
    told |= {
        "customer num_baskets": len(baskets),
        "customer num_articles": len(history),
        "customer days_since_basket": (now - baskets[-1]) / DAY if len(baskets) else math.nan,
        "customer basket_gap_days": (baskets[-1] - baskets[0]) / DAY / (len(baskets) - 1)
        if len(baskets) > 1
        else math.nan,
        "customer articles_per_basket": len(history) / len(baskets) if len(baskets) else math.nan,
        "customer price_paid": history["price"].astype("float64").mean(),
        "customer discount_taken": history["discount"].astype("float64").mean(),
        "customer age": age,
    }
    week = dict(zip(lookups.article_names, lookups.article[known].tolist(), strict=True))
    season = SEASONS[pd.Timestamp(now, unit="s").month % 12 // 3]
    told |= {
        "price_to_paid": math.log(week["mean_price"] / told["customer price_paid"])
        if week["mean_price"] > 0
        else math.nan,
        "discount_gap": week["discount_rate"] - told["customer discount_taken"],
        "age_gap": week["age_preference"] + lookups.mean_age - age,
        "season_share_now": week[f"season_share_{season}"],
    }
    return told | week


def test_equals_pandas_for_ten_thousand_pairs(view: View) -> None:
    lookups = make_pair_lookups(view, GROUPS)
    layer, table = PairFeatureLayer(lookups), HistoryTable(view.timelines, view.profiles)
    random = np.random.default_rng(1)
    size = len(lookups.article)
    # Strangers, and articles that are padding, unknown or of later, are among them; half are of what was bought.
    customers = np.concatenate([[1], random.permutation(np.arange(FIRST_INDEX, len(view.now)))])[:200].astype(np.int32)
    row = np.sort(random.integers(0, len(customers), 10_000))
    article = random.integers(0, size + 3, len(row)).astype(np.int32)
    events = events_of(view)
    histories = dict(iter(events.groupby("customer_index")))
    nothing = events.iloc[:0]
    for place in range(0, len(row), 2):
        own = histories.get(int(customers[row[place]]), nothing)["article_index"].to_numpy()
        if len(own):
            article[place] = random.choice(own)
    now = np.where(customers < FIRST_INDEX, view.now.max(), view.now[customers])
    found = layer(table(tf.constant(customers)), tf.constant(now), tf.constant(row, tf.int64), tf.constant(article))
    assert found.shape == (len(row), len(lookups.names))
    names = list(lookups.names)
    assert len(set(names)) == len(names)
    frame = pd.DataFrame(found.numpy(), columns=names)
    expected = pd.DataFrame(
        [
            tell_pair(view, lookups, histories.get(int(customers[place]), nothing), int(customers[place]), int(wanted))
            for place, wanted in zip(row, article, strict=True)
            if customers[place] >= FIRST_INDEX
        ]
    )
    frame = frame[customers[row] >= FIRST_INDEX].reset_index(drop=True)
    assert len(expected) > 9_000
    assert (expected["article times"] > 1).sum() > 100
    for name in names:
        np.testing.assert_allclose(frame[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_cold_start_customer_and_unknown_article_have_no_features_of_their_own(view: View) -> None:
    lookups = make_pair_lookups(view, GROUPS)
    layer = PairFeatureLayer(lookups)
    stranger = Histories.empty(
        2, num_features=view.profiles.categorical.shape[1], num_numbers=view.profiles.numbers.shape[1]
    )
    now = tf.constant([10**9, 10**9], tf.int64)
    article = tf.constant([1, 0, 10**6, FIRST_INDEX], tf.int32)
    found = layer(stranger, now, tf.constant([0, 0, 1, 1], tf.int64), article).numpy()
    frame = pd.DataFrame(found, columns=lookups.names)
    assert frame["article times"].tolist() == [0, 0, 0, 0]
    assert frame["article days_since"].isna().all()
    assert frame["customer num_baskets"].tolist() == [0, 0, 0, 0]
    assert frame.loc[:2, "sales_4w"].isna().all()
    assert frame["sales_4w"].notna().tolist() == [False, False, False, True]
    assert np.isinf(found).sum() == 0


def test_empty_pairs_give_an_empty_matrix(view: View) -> None:
    lookups = make_pair_lookups(view, GROUPS)
    table = HistoryTable(view.timelines, view.profiles)
    empty = PairFeatureLayer(lookups)(
        table(tf.zeros([0], tf.int32)), tf.zeros([0], tf.int64), tf.zeros([0], tf.int64), tf.zeros([0], tf.int32)
    )
    assert empty.shape == (0, len(lookups.names))


def test_an_event_of_the_future_counts_as_just_now(view: View) -> None:
    lookups = make_pair_lookups(view, ())
    row = tf.RaggedTensor.from_row_lengths(tf.constant([2], tf.int32), tf.constant([1], tf.int64))
    stranger = Histories.empty(
        1, num_features=view.profiles.categorical.shape[1], num_numbers=view.profiles.numbers.shape[1]
    )
    later = stranger._replace(
        article_index=row,
        time=row.with_flat_values(tf.constant([10**9 + 5], tf.int64)),
        price=row.with_flat_values(tf.constant([3.0])),
        discount=row.with_flat_values(tf.constant([float("nan")])),
    )
    found = PairFeatureLayer(lookups)(
        later, tf.constant([10**9], tf.int64), tf.constant([0], tf.int64), tf.constant([2])
    )
    told = dict(zip(lookups.names, found.numpy()[0].tolist(), strict=True))
    assert told["article times"] == 1
    assert told["article days_since"] == 0
    assert told["customer price_paid"] == 3
    assert math.isnan(told["customer discount_taken"])


def test_usual_gaps_by_hand(make_view: object) -> None:
    # Five customers come back for article 2 after 2 days and once more after 8: the geometric mean is 4. Of article 3
    # there are too few gaps, and two lines of one basket are no gap.
    purchases = [(customer, 2, day) for customer in range(2, 7) for day in (0, 2, 10)]
    purchases += [(2, 3, 1), (2, 3, 1), (2, 3, 4)]
    view = make_view(purchases)
    found = usual_gap_days(view.timelines, np.arange(8, dtype=np.int32))
    assert found[2] == pytest.approx(4.0)
    assert np.isnan(found[[0, 1, 3, 4, 5, 6, 7]]).all()


def test_a_group_that_is_no_column_is_refused(view: View) -> None:
    with pytest.raises(InputError, match="sectoin"):
        make_pair_lookups(view, ["sectoin"])
