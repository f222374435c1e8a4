"""Popularity: the same list for everyone, by baskets in the last days."""

import datetime
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import tensorflow as tf
from ibis import _

from tfrs_fashion.data.split import days_before
from tfrs_fashion.features.articles import check_product_codes
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.view import View
from tfrs_fashion.index.exclusion import take_allowed
from tfrs_fashion.recommenders.recommender import Recommendations, load_state, save_state, with_source


class Popularity(tf.Module):
    """A constant list, less what a customer excludes.

    Args:
        article_index: `[num_candidates]` int32, best first.
        score: `[num_candidates]` float32.
        name: As used in reports.
    """

    history_length: int | None = 0
    needs_history = False

    def __init__(self, article_index: np.ndarray, score: np.ndarray, *, name: str) -> None:
        super().__init__(name=name)
        self._article_index = tf.Variable(article_index, trainable=False, dtype=tf.int32)
        self._score = tf.Variable(score, trainable=False, dtype=tf.float32)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k most popular articles that are not excluded; see `Recommender`."""
        width = tf.minimum(k + tf.shape(exclude)[1], tf.shape(self._article_index)[0])
        batch = tf.shape(exclude)[0]
        article_index = tf.tile(self._article_index[tf.newaxis, :width], [batch, 1])
        score = tf.tile(self._score[tf.newaxis, :width], [batch, 1])
        return with_source(*take_allowed(article_index, score, exclude, k), self.name)

    def save(self, folder: Path) -> None:
        """Writes the list."""
        arrays = {"article_index": self._article_index.numpy(), "score": self._score.numpy()}
        save_state(folder, arrays, name=self.name)

    @classmethod
    def load(cls, folder: Path) -> "Popularity":
        """Reads what `save` wrote."""
        arrays, settings = load_state(folder)
        return cls(**arrays, **settings)


def fit_popularity(
    transactions: ibis.Table, *, as_of: datetime.datetime, days: int, name: str = "popularity_7d"
) -> Popularity:
    """Ranks the articles by the baskets that held them in the last days.

    Articles not sold in that time follow, the last sold first, so that a list never ends early.

    Args:
        transactions: The visible transactions only.
        as_of: The cutoff.
        days: Length of the window that ends there.
        name: As used in reports.
    """
    start = ibis.literal(days_before(as_of, days))
    basket = ibis.struct({"customer": _.customer_index, "basket": _.basket_id})
    counts = (
        transactions.group_by("article_index")
        .agg(
            score=basket.nunique(where=_.t_dat >= start).cast("float32"),
            last_sold=_.t_dat.max(),
        )
        .order_by([ibis.desc("score"), ibis.desc("last_sold"), "article_index"])
        .execute()
    )
    return Popularity(
        counts["article_index"].to_numpy(dtype=np.int32),
        counts["score"].to_numpy(dtype=np.float32),
        name=name,
    )


def count_windows(transactions: ibis.Table, *, as_of: datetime.datetime, days: int) -> pd.DataFrame:
    """Counts the baskets that held each article in the last days, and in as many days before.

    Args:
        transactions: The visible transactions only.
        as_of: The cutoff.
        days: Length of each of the two windows.

    Returns:
        `article_index, recent, former` of the articles sold in either, ordered by the index.
    """
    middle, start = ibis.literal(days_before(as_of, days)), ibis.literal(days_before(as_of, 2 * days))
    basket = ibis.struct({"customer": _.customer_index, "basket": _.basket_id})
    return (
        transactions.filter(_.t_dat >= start)
        .group_by("article_index")
        .agg(recent=basket.nunique(where=_.t_dat >= middle), former=basket.nunique(where=_.t_dat < middle))
        .order_by("article_index")
        .execute()
    )


def fit_trend(view: View, *, days: int, name: str) -> Popularity:
    """Ranks what is in store by the baskets of the last days, times their growth over as many days before.

    Counts are smoothed by their mean over the articles sold, so that a new article, which has no past, is taken for an
    average one: growth neither favours nor punishes it, and never sold it still has a place.

    Args:
        view: What may be seen.
        days: Length of each of the two windows.
        name: As used in reports.
    """
    candidates = view.articles.in_store
    counts = count_windows(view.transactions, as_of=view.split.as_of, days=days)
    counts = counts.set_index("article_index").reindex(candidates)
    recent, former = (counts[column].to_numpy(dtype=np.float64) for column in ("recent", "former"))
    sold = np.isfinite(recent)
    average = float(recent[sold].mean()) if sold.any() else 0.0
    known = (view.articles.num_baskets[candidates] > 0) | sold
    recent = np.where(sold, recent, np.where(known, 0.0, average))
    former = np.where(sold & (former > 0), former, average)
    score = (recent * (recent + average + 1.0) / (former + average + 1.0)).astype(np.float32)
    order = np.lexsort([candidates, -score])
    return Popularity(candidates[order].astype(np.int32), score[order], name=name)


def nobody() -> Popularity:
    """Makes the fallback of recommenders that may not be filled up: it recommends nothing."""
    return Popularity(np.zeros(1, np.int32), np.zeros(1, np.float32), name="nobody")


def fit_siblings(
    articles: ibis.Table,
    transactions: ibis.Table,
    *,
    as_of: datetime.datetime,
    days: int,
    candidate_articles: np.ndarray,
    name: str = "popularity_siblings",
) -> Popularity:
    """Ranks articles by the baskets that held another article of their design in the last days.

    It is what can be counted about articles that were never sold.

    Args:
        articles: Indexed articles.
        transactions: The visible transactions only.
        as_of: The cutoff.
        days: Length of the window that ends there.
        candidate_articles: `[num_candidates]` int32, the articles to rank.
        name: As used in reports.

    Raises:
        InputError: The articles have no `product_code`.
    """
    check_product_codes(articles, recommender=name)
    recent = transactions.filter(_.t_dat >= ibis.literal(days_before(as_of, days)))
    baskets = recent.select("article_index", "customer_index", "basket_id").distinct()
    sold = baskets.group_by("article_index").agg(baskets=_.count())
    listed = articles.select("article_index", "product_code").left_join(sold, "article_index")
    listed = listed.mutate(baskets=_.baskets.fill_null(0)).drop("article_index_right")
    designs = listed.group_by("product_code").agg(design_baskets=_.baskets.sum())
    scores = (
        listed.left_join(designs, "product_code")
        .select("article_index", score=(_.design_baskets.fill_null(0) - _.baskets).cast("float32"))
        .execute()
        .set_index("article_index")["score"]
        .reindex(candidate_articles)
    )
    order = np.argsort(-scores.to_numpy(), kind="stable")
    return Popularity(candidate_articles[order], scores.to_numpy()[order], name=name)
