"""Popularity: the same list for everyone, or for everyone in a group, by baskets in the last days."""

import datetime
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import tensorflow as tf
from ibis import _

from tfrs_fashion.data.split import days_before
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.view import View
from tfrs_fashion.index.exclusion import take_allowed
from tfrs_fashion.recommenders.group_popularity import CategoryPopularity, GroupPopularity, fit_group_popularity
from tfrs_fashion.recommenders.recommender import (
    FitContext,
    Recommendations,
    load_as,
    load_state,
    save_state,
    with_source,
)
from tfrs_fashion.settings.recommenders import PopularityConfig


class Popularity(tf.Module):
    """A constant list, without the articles that a customer excludes.

    Args:
        article_index: `[num_candidates]` int32, best first.
        score: `[num_candidates]` float32.
        kind: `popularity`, or `siblings`.
        name: Name in reports.
    """

    history_length: int | None = 0
    needs_history = False

    def __init__(self, article_index: np.ndarray, score: np.ndarray, *, kind: str = "popularity", name: str) -> None:
        super().__init__(name=name)
        self.kind = kind
        self.article_index = tf.Variable(article_index, trainable=False, dtype=tf.int32)
        self.score = tf.Variable(score, trainable=False, dtype=tf.float32)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k most popular articles that are not excluded; see `Recommender`."""
        width = tf.minimum(k + tf.shape(exclude)[1], tf.shape(self.article_index)[0])
        batch = tf.shape(exclude)[0]
        article_index = tf.tile(self.article_index[tf.newaxis, :width], [batch, 1])
        score = tf.tile(self.score[tf.newaxis, :width], [batch, 1])
        return with_source(*take_allowed(article_index, score, exclude, k), self.name)

    def save(self, folder: Path) -> None:
        """Writes the list."""
        arrays = {"article_index": self.article_index.numpy(), "score": self.score.numpy()}
        save_state(folder, arrays, kind=self.kind, name=self.name)


def fit(
    view: View, settings: PopularityConfig, context: FitContext
) -> Popularity | GroupPopularity | CategoryPopularity:
    """Ranks articles by the baskets of the last days, for everyone or by group; see `recommenders.kinds.Kind`.

    Raises:
        InputError: `by` names no group.
    """
    if settings.by:
        return fit_group_popularity(view, days=settings.days, by=settings.by, name=context.name)
    if settings.trend:
        return _fit_trend(view, days=settings.days, name=context.name)
    return fit_popularity(view.transactions, as_of=view.split.as_of, days=settings.days, name=context.name)


def load(folder: Path) -> Popularity | GroupPopularity | CategoryPopularity:
    """Reads what the `save` of any of these classes wrote."""
    arrays, settings = load_state(folder)
    if "sales" in arrays:
        return load_as(CategoryPopularity)(folder)
    if "event" in settings:
        return load_as(GroupPopularity)(folder)
    return load_as(Popularity)(folder)


def fit_popularity(transactions: ibis.Table, *, as_of: datetime.datetime, days: int, name: str) -> Popularity:
    """Ranks the articles by the number of baskets that held them in the last days.

    Articles not sold in that time follow, the last sold first, so that a list never ends early.

    Args:
        transactions: Only the visible transactions.
        as_of: The cutoff.
        days: Length in days of the window before the cutoff.
        name: Name in reports.
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
        transactions: Only the visible transactions.
        as_of: The cutoff.
        days: Length in days of each of the two windows.

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


def _fit_trend(view: View, *, days: int, name: str) -> Popularity:
    """Ranks what is in store by the baskets of the last days, times their growth over as many days before.

    Counts are smoothed by their mean over the articles sold, so that a new article, which has no past, is treated as an
    average one: growth neither favours nor punishes it, and an article never sold still has a rank.
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


def no_recommendations() -> Popularity:
    """Makes the fallback of recommenders whose lists must not be filled up: it recommends nothing."""
    return Popularity(np.zeros(1, np.int32), np.zeros(1, np.float32), name="no_recommendations")
