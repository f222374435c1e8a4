"""Choices made on validation, from recommenders whose answers are known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.kinds import fit_recommender
from tfrs_fashion.recommenders.recommender import Recommendations, Recommender, with_source
from tfrs_fashion.recommenders.restricted import Restricted
from tfrs_fashion.run.inference import embed_customers, rank_customers, rank_targets
from tfrs_fashion.run.objective import beats_fallback_for_strangers
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.pipeline import load_config
from tfrs_fashion.settings.recommenders import RestrictedConfig


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
    """An article that hardly anybody bought."""
    recent = view.transactions.group_by("article_index").agg(rows=view.transactions.count()).order_by("rows").limit(1)
    return int(recent.execute()["article_index"][0])


def strangers(view: View, article: int, num: int) -> pd.DataFrame:
    """Customers that the view does not know, who all bought one article."""
    first = view.timelines.num_customers + FIRST_INDEX
    return pd.DataFrame({"customer_index": np.arange(first, first + num), "article_index": article})


def test_who_finds_what_strangers_buy_beats_the_fallback(view: View, unpopular: int) -> None:
    bought = strangers(view, unpopular, 5)
    judge = {"k": 12, "min_strangers": 5}
    right, wrong = Same(unpopular), Same(unpopular + 1)
    assert beats_fallback_for_strangers(right, wrong, view, bought, **judge) is True
    assert beats_fallback_for_strangers(wrong, right, view, bought, **judge) is False
    # As good is not better.
    assert beats_fallback_for_strangers(right, right, view, bought, **judge) is False


def test_too_few_strangers_tell_nothing(view: View, unpopular: int) -> None:
    right, wrong = Same(unpopular), Same(unpopular + 1)
    assert beats_fallback_for_strangers(right, wrong, view, strangers(view, unpopular, 99), k=12) is None


def test_customers_with_a_history_are_no_strangers(view: View, unpopular: int) -> None:
    known = np.flatnonzero(np.diff(view.timelines.row_splits)) + FIRST_INDEX
    bought = pd.DataFrame({"customer_index": known, "article_index": unpopular})
    assert len(known) > 100
    assert beats_fallback_for_strangers(Same(unpopular), Same(unpopular + 1), view, bought, k=12) is None


def test_ranks_begin_at_one_and_unknown_customers_are_strangers(view: View, unpopular: int) -> None:
    customers = np.array([FIRST_INDEX, 10**6], np.int32)
    found = rank_customers(Same(unpopular), view, customers, k=3)
    assert found.to_numpy().tolist() == [[FIRST_INDEX, unpopular, 1], [10**6, unpopular, 1]]


class Sparing:
    """Recommends the first articles that are not excluded, and remembers what was."""

    name = "sparing"
    history_length: int | None = None
    needs_history = False

    def __init__(self) -> None:
        self.excluded: list[list[int]] = []

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        self.excluded += [[int(article) for article in row if article] for row in exclude.numpy()]
        articles = [[article for article in range(2, 99) if article not in row][: int(k)] for row in exclude.numpy()]
        article = tf.constant(articles, tf.int32)
        return with_source(article, tf.cast(-article, tf.float32), self.name)


@pytest.mark.parametrize("batch_size", [1, 256])
def test_each_customer_is_spared_what_is_excluded_for_them(view: View, batch_size: int) -> None:
    customers = np.array([9, 3, 5], np.int32)
    exclude = pd.DataFrame({"customer_index": [3, 5, 3, 4], "article_index": [2, 3, 4, 2]})
    sparing = Sparing()
    found = rank_customers(sparing, view, customers, k=2, exclude=exclude, batch_size=batch_size)
    assert sparing.excluded == [[], [2, 4], [3]]
    shown = found.groupby("customer_index")["article_index"].agg(list).to_dict()
    assert shown == {9: [2, 3], 3: [3, 5], 5: [2, 4]}


def test_a_restriction_is_of_the_recommender_that_is_there(view: View, root: Path) -> None:
    config = load_config(root / "pipelines" / "tiny.toml")
    asked = []

    def fitted(name: str) -> Recommender:
        asked.append(name)
        return inner

    inner = fit_recommender("als", view, config, choice={})
    settings = config.model_copy(update={"generators": {"als_7d": RestrictedConfig(of="als", days=7)}})
    found = fit_recommender("als_7d", view, settings, choice={}, fitted=fitted)
    assert asked == ["als"]
    assert isinstance(found, Restricted)
    assert found._inner is inner


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


class Listing:
    """Recommends the same list to everybody, and remembers what it saw and was asked for."""

    name = "listing"
    history_length: int | None = None

    def __init__(self, articles: np.ndarray, *, needs_history: bool = False) -> None:
        self._articles = articles
        self.needs_history = needs_history
        self.asked: list[tuple[int, int]] = []

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        self.asked.append((int(tf.shape(now)[0]), int(k)))
        # What is bought at the cutoff or later is a target, and no part of a history.
        latest = tf.reduce_max(tf.concat([histories.time, now[:, tf.newaxis] - 1], axis=1), axis=1)
        assert bool(tf.reduce_all(latest < now))
        row = np.zeros(int(k), np.int32)
        row[: len(self._articles)] = self._articles[: int(k)]
        article = tf.tile(row[tf.newaxis, :], [tf.shape(now)[0], 1])
        return with_source(article, tf.cast(article, tf.float32), self.name)


def test_every_article_in_store_is_ranked_whatever_the_batch(view: View) -> None:
    in_store, num_articles = view.articles.in_store, view.articles.num_articles
    elsewhere = np.setdiff1d(np.arange(FIRST_INDEX, num_articles + FIRST_INDEX), in_store).astype(np.int32)
    assert len(elsewhere)
    # First what is not in store any more, then the store from its last article to its first.
    everything = np.concatenate([elsewhere, in_store[::-1]])
    stranger = view.timelines.num_customers + FIRST_INDEX
    targets = pd.DataFrame(
        {"customer_index": [2, 2, 3, 5, stranger], "article_index": in_store[[-1, 4, -3, 0, 7]]}
    ).sort_values(["customer_index", "article_index"])
    for num_customers in (1, 3, 100):
        recommender = Listing(everything)
        found = rank_targets(recommender, view, targets, seed=1, max_places=num_customers * num_articles)
        assert found["rank"].tolist() == [len(in_store) - 4, 1, 3, len(in_store), len(in_store) - 7]
        assert set(found["num_ranked"]) == {len(in_store)}
        assert set(found["source"]) == {"listing"}
        # No list is longer than what is known, and no more lists are held than there is room for.
        assert [batch for batch, _k in recommender.asked] == {1: [1] * 4, 3: [3, 1], 100: [4]}[num_customers]
        assert {k for _batch, k in recommender.asked} == {num_articles}


def test_what_is_not_named_stands_where_it_stands_whatever_the_batch(view: View) -> None:
    in_store = view.articles.in_store
    targets = pd.DataFrame({"customer_index": np.arange(2, 12), "article_index": in_store[:10]})
    first, *others = (
        rank_targets(Listing(in_store[-2:]), view, targets, seed=1, max_places=batch * view.articles.num_articles)
        for batch in (1, 3, 100)
    )
    for other in others:
        pd.testing.assert_frame_equal(first, other)
    assert set(first["source"]) == {""}
    # Two are named; ten customers' targets are spread over the rest, one in each tenth.
    tenth = (first["rank"].to_numpy() - 3) * 10 // (len(in_store) - 2)
    assert np.unique(np.clip(tenth, 0, 9)).size >= 9


def test_who_has_no_history_hears_nothing_from_what_needs_one(view: View) -> None:
    known = int(np.flatnonzero(np.diff(view.timelines.row_splits))[0]) + FIRST_INDEX
    stranger = view.timelines.num_customers + FIRST_INDEX
    article = int(view.articles.in_store[0])
    targets = pd.DataFrame({"customer_index": [known, stranger], "article_index": article})
    for needs_history, sources in ((False, ["listing", "listing"]), (True, ["listing", ""])):
        listing = Listing(view.articles.in_store, needs_history=needs_history)
        assert rank_targets(listing, view, targets, seed=1)["source"].tolist() == sources


def test_without_targets_there_are_no_ranks(view: View) -> None:
    listing = Listing(view.articles.in_store)
    assert rank_targets(listing, view, strangers(view, 2, 0), seed=1).empty
    assert listing.asked == []
