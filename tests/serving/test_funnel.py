"""What reaches a recommender through the funnel: requests and stored histories say the same in the same words."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories, HistoryTable, ProfileVocabulary, encode_profiles
from tfrs_fashion.features.timelines import ALWAYS, Timelines
from tfrs_fashion.recommenders.popularity import Popularity
from tfrs_fashion.recommenders.recommender import Recommendations, with_source
from tfrs_fashion.schema import OLDEST, YOUNGEST
from tfrs_fashion.serving.funnel import Funnel, IdTable, clean_profile_numbers

NAN, INF = float("nan"), float("inf")
STORES = ["Wien", "Graz", "Linz"]


class Echo(tf.Module):
    """Answers with the articles whose index is that of the stores in the history."""

    history_length = None
    needs_history = False

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Gives the store of each event, in time order."""
        stores = histories.store_index.to_tensor()[:, :k]
        return with_source(stores, -tf.cast(tf.zeros_like(stores) + tf.range(tf.shape(stores)[1]), tf.float32), "echo")


@pytest.fixture
def funnel(tmp_path: Path) -> Funnel:
    """Customer c bought in Graz, in Linz and in a place untold, at seconds 10, 20 and 30."""
    timelines = Timelines(
        customer_id=np.array(["c"], dtype=object),
        row_splits=np.array([0, 3]),
        article_index=np.array([2, 2, 2], np.int32),
        time=np.array([10, 20, 30]),
        price=np.ones(3, np.float32),
        quantity=np.ones(3, np.int32),
        discount=np.zeros(3, np.float32),
        sales_channel_id=np.zeros(3, np.int32),
        store_index=np.array([3, 4, 0], np.int32),
        store_id=np.array(STORES, dtype=object),
        known_from=np.array([ALWAYS]),
        profile={},
        profile_numbers={},
    )
    return Funnel(
        Echo(),  # type: ignore[arg-type]
        Popularity(np.zeros(0, np.int32), np.zeros(0, np.float32), name="popularity_7d"),
        customers=IdTable(["c"], tmp_path / "customer_ids.txt"),
        articles=IdTable(["first", "second", "third", "fourth"], tmp_path / "article_ids.txt"),
        histories=HistoryTable(timelines, encode_profiles(timelines, {})),
        profile_vocabulary=ProfileVocabulary({}),
        profile_numbers=(),
        stores=STORES,
        now=np.array([40, 40, 40]),
        k=3,
    )


def test_stores_of_requests_have_the_numbers_of_stored_ones(funnel: Funnel) -> None:
    none = tf.zeros([1, 0], tf.string)
    stored = funnel.by_customer(tf.constant(["c"]), none, tf.constant([3]))
    # Wien would be the first article, Graz is the second, Linz the third; nowhere is nothing.
    assert stored["article_ids"].numpy().tolist() == [[b"second", b"third", b""]]
    given = funnel.by_history(
        article_ids=tf.constant([["first"] * 3]),
        times=tf.constant([[20, 10, 30]], tf.int64),
        prices=tf.ones([1, 3]),
        quantities=tf.ones([1, 3], tf.int32),
        discounts=tf.zeros([1, 3]),
        sales_channel_ids=tf.zeros([1, 3], tf.int32),
        store_ids=tf.constant([["Linz", "Graz", ""]]),
        profile=tf.zeros([1, 0], tf.string),
        profile_numbers=tf.zeros([1, 0]),
        now=tf.constant([40], tf.int64),
        exclude=none,
        k=tf.constant([3]),
    )
    assert given["article_ids"].numpy().tolist() == stored["article_ids"].numpy().tolist()


def test_ages_have_bounds_and_other_numbers_are_finite() -> None:
    asked = [[YOUNGEST, 5], [OLDEST, 1e30], [YOUNGEST - 0.1, -7], [OLDEST + 0.1, INF], [-1, NAN], [NAN, -INF], [INF, 0]]
    expected = [[YOUNGEST, 5], [OLDEST, 1e30], [NAN, -7], [NAN, NAN], [NAN, NAN], [NAN, NAN], [NAN, 0]]
    found = clean_profile_numbers(tf.constant(asked, tf.float32), ("age", "income")).numpy()
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    assert clean_profile_numbers(tf.zeros([2, 0]), ()).shape == (2, 0)
