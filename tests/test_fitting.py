"""Choices made on validation, from recommenders whose answers are known."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.view import View
from tfrs_fashion.fitting import beats_popularity_for_strangers, embed_customers, rank_customers
from tfrs_fashion.recommenders.recommender import Recommendations, with_source
from tfrs_fashion.schema import FIRST_INDEX


class Same:
    """Recommends one article to everybody."""

    name = "same"
    history_length: int | None = None
    needs_history = False

    def __init__(self, article: int) -> None:
        self._article = article

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        first = tf.range(k)[tf.newaxis, :] == tf.zeros_like(now, tf.int32)[:, tf.newaxis]
        article = tf.where(first, self._article, 0)
        return with_source(article, tf.cast(article, tf.float32), self.name)


@pytest.fixture
def unpopular(view: View) -> int:
    """An article that is not among the twelve most popular."""
    recent = view.transactions.group_by("article_index").agg(rows=view.transactions.count()).order_by("rows").limit(1)
    return int(recent.execute()["article_index"][0])


def strangers(view: View, article: int, num: int) -> pd.DataFrame:
    """Customers that the view does not know, who all bought one article."""
    first = view.timelines.num_customers + FIRST_INDEX
    return pd.DataFrame({"customer_index": np.arange(first, first + num), "article_index": article})


def test_who_finds_what_strangers_buy_beats_popularity(view: View, unpopular: int) -> None:
    bought = strangers(view, unpopular, 5)
    judge = {"k": 12, "min_strangers": 5}
    assert beats_popularity_for_strangers(Same(unpopular), view, bought, **judge) is True
    assert beats_popularity_for_strangers(Same(unpopular + 1), view, bought, **judge) is False


def test_too_few_strangers_tell_nothing(view: View, unpopular: int) -> None:
    assert beats_popularity_for_strangers(Same(unpopular), view, strangers(view, unpopular, 99), k=12) is None


def test_customers_with_a_history_are_no_strangers(view: View, unpopular: int) -> None:
    known = np.flatnonzero(np.diff(view.timelines.row_splits)) + FIRST_INDEX
    bought = pd.DataFrame({"customer_index": known, "article_index": unpopular})
    assert len(known) > 100
    assert beats_popularity_for_strangers(Same(unpopular), view, bought, k=12) is None


def test_ranks_begin_at_one_and_unknown_customers_are_strangers(view: View, unpopular: int) -> None:
    customers = np.array([FIRST_INDEX, 10**6], np.int32)
    found = rank_customers(Same(unpopular), view, customers, k=3)
    assert found.to_numpy().tolist() == [[FIRST_INDEX, unpopular, 1], [10**6, unpopular, 1]]


class Counting:
    """Embeds a history as its number of events and the cutoff."""

    def embed(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.stack([histories.article_index.row_lengths(), now], axis=1), tf.float32)


@pytest.mark.parametrize("batch_size", [7, 256])
def test_customers_are_embedded_at_their_cutoffs_whatever_the_batch(view: View, batch_size: int) -> None:
    lengths = np.diff(view.timelines.row_splits)
    customers = np.flatnonzero(lengths)[::-1].astype(np.int32) + FIRST_INDEX
    found = embed_customers(Counting(), view, customers, batch_size=batch_size)  # type: ignore[arg-type]
    expected = np.stack([lengths[customers - FIRST_INDEX], view.now[customers]], axis=1).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
