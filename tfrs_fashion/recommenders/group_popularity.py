"""Popularity by group: what sells to customers of the same age band, store or channel, or in the categories one buys."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.bought_articles import bought_articles, time_scale
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.purchase_matrices import age_days, num_article_indices, number_baskets
from tfrs_fashion.features.view import View
from tfrs_fashion.index.exclusion import take_allowed, take_best
from tfrs_fashion.recommenders.recommender import Recommendations, save_state, with_source
from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX, InputError
from tfrs_fashion.settings.recommenders import EVENT_GROUPS

Event = Literal["store_index", "sales_channel_id"]
_HALF_LIFE_DAYS = 60.0
# Length of a group's list: more than a blend takes from any generator.
_WIDTH = 1000


class GroupPopularity(tf.Module):
    """A list for each group of customers; customers without a group get everyone's.

    A group's list continues with what sells to everyone, so that a small group's list is as long as any other.

    Args:
        article_index: `[num_groups, width]` int32, best first; row 0 is everyone's.
        score: `[num_groups, width]` float32.
        profile_column: Position of the profile feature whose value is the group; None if it follows from the history.
        event: The column of events whose most frequent value, ties to the lowest, is the group; None for a profile
            feature.
        name: Name in reports.
    """

    kind = "popularity"

    def __init__(
        self,
        article_index: np.ndarray,
        score: np.ndarray,
        *,
        profile_column: int | None = None,
        event: Event | None = None,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.history_length: int | None = 0 if event is None else None
        self.needs_history = False
        self._profile_column = profile_column
        self._event = event
        self._article_index = tf.Variable(article_index, trainable=False, dtype=tf.int32)
        self._score = tf.Variable(score, trainable=False, dtype=tf.float32)

    def _group(self, histories: Histories) -> tf.Tensor:
        """Returns `[batch]` int32, the group of each customer, 0 where it is unknown."""
        num_groups = self._article_index.shape[0]
        if self._event is None:
            group = histories.profile[:, self._profile_column]
        else:
            values = getattr(histories, self._event)
            row, value = values.value_rowids(), values.flat_values
            # Unknown values, and values newer than the lists, are ignored.
            is_known = (value > 0) & (value < num_groups)
            num_rows = values.nrows()
            cell = row * num_groups + tf.cast(tf.where(is_known, value, 0), tf.int64)
            counts = tf.math.unsorted_segment_sum(tf.cast(is_known, tf.int32), cell, num_rows * num_groups)
            counts = tf.reshape(counts, tf.stack([num_rows, tf.constant(num_groups, tf.int64)]))
            group = tf.argmax(counts, axis=1, output_type=tf.int32)
        return tf.where((group >= 0) & (group < num_groups), group, 0)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k most popular articles of the customer's group; see `Recommender`."""
        group = self._group(histories)
        width = tf.minimum(k + tf.shape(exclude)[1], tf.shape(self._article_index)[1])
        article_index, score = (tf.gather(values[:, :width], group) for values in (self._article_index, self._score))
        return with_source(*take_allowed(article_index, score, exclude, k), self.name)

    def save(self, folder: Path) -> None:
        """Writes the lists."""
        arrays = {"article_index": self._article_index.numpy(), "score": self._score.numpy()}
        save_state(
            folder, arrays, kind=self.kind, profile_column=self._profile_column, event=self._event, name=self.name
        )


class CategorySales(tf.Module):
    """Ranks articles by their sales times each customer's share of their category.

    Args:
        article_index: `[num_candidates]` int32.
        sales: `[num_candidates]` float32, above 0.
        category: `[num_articles + 2]` int32, 0 where unknown.
    """

    def __init__(self, article_index: np.ndarray, sales: np.ndarray, category: np.ndarray) -> None:
        super().__init__(name="category_sales")
        self.num_categories = int(category.max(initial=0)) + 1
        self.category = tf.Variable(category, trainable=False, dtype=tf.int32)
        self._article_index = tf.Variable(article_index, trainable=False, dtype=tf.int32)
        self._sales = tf.Variable(sales, trainable=False, dtype=tf.float32)
        column = np.full(len(category), -1, np.int32)
        column[article_index] = np.arange(len(article_index), dtype=np.int32)
        self._column = tf.Variable(column, trainable=False, dtype=tf.int32)

    def __call__(self, share: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds the articles with the largest products of sales and share.

        Args:
            share: `[batch, num_categories]` float32, share of each category by customer; column 0 is none.
            k: Scalar int32.
            exclude: `[batch, num_excluded]` int32 article indices.

        Returns:
            `[batch, k]` int32 articles and float32 scores, best first.
        """
        num_articles = self.category.shape[0]
        score = tf.gather(share, tf.gather(self.category, self._article_index), axis=1) * self._sales
        known = tf.where(exclude < num_articles, exclude, PADDING_INDEX)
        column, score = take_best(tf.where(score > 0, score, -np.inf), tf.gather(self._column, known), k)
        listed = tf.pad(self._article_index, [[1, 0]], constant_values=PADDING_INDEX)
        return tf.gather(listed, column + 1), score

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays of the constructor by parameter."""
        variables = {"article_index": self._article_index, "sales": self._sales, "category": self.category}
        return {name: values.numpy() for name, values in variables.items()}


class CategoryPopularity(tf.Module):
    """What sells in the categories that a customer buys: sales times the category's share of the history.

    Args:
        article_index: `[num_candidates]` int32.
        sales: `[num_candidates]` float32, above 0.
        category: `[num_articles + 2]` int32, 0 where unknown.
        name: Name in reports.
    """

    kind = "popularity"
    history_length: int | None = None
    needs_history = True

    def __init__(self, article_index: np.ndarray, sales: np.ndarray, category: np.ndarray, *, name: str) -> None:
        super().__init__(name=name)
        self._sales = CategorySales(article_index, sales, category)

    def _share(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Returns `[batch, num_categories]` float32, the decayed share of each category in the history."""
        category, num_categories = self._sales.category, self._sales.num_categories
        bought = bought_articles(histories, now, time_scales_days=(time_scale(_HALF_LIFE_DAYS),))
        article = tf.where(bought.article_index < category.shape[0], bought.article_index, PADDING_INDEX)
        bought_category = tf.cast(tf.gather(category, article), tf.int64)
        num_rows = histories.article_index.nrows()
        weight = tf.where(bought_category > 0, bought.decayed[:, 0], 0.0)
        share = tf.math.unsorted_segment_sum(
            weight, bought.row * num_categories + bought_category, num_rows * num_categories
        )
        share = tf.reshape(share, tf.stack([num_rows, tf.constant(num_categories, tf.int64)]))
        return tf.math.divide_no_nan(share, tf.reduce_sum(share, axis=1, keepdims=True))

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k articles with the largest product; see `Recommender`."""
        return with_source(*self._sales(self._share(histories, now), k, exclude), self.name)

    def save(self, folder: Path) -> None:
        """Writes sales and categories."""
        save_state(folder, self._sales.arrays(), kind=self.kind, name=self.name)


def count_baskets(view: View, *, days: int, group: np.ndarray, num_groups: int) -> np.ndarray:
    """Counts the baskets of the last days that hold each article, by group: `[num_groups, num_articles + 2]` float32."""
    num_articles = num_article_indices(view)
    recent = age_days(view) <= days
    triples = np.stack([group, number_baskets(view), view.timelines.article_index])[:, recent]
    triples = np.unique(triples, axis=1)
    cell = triples[0].astype(np.int64) * num_articles + triples[2]
    counts = np.bincount(cell, minlength=num_groups * num_articles)
    return counts.reshape(num_groups, num_articles).astype(np.float32)


def fit_group_popularity(view: View, *, days: int, by: str, name: str) -> GroupPopularity | CategoryPopularity:
    """Counts the baskets of the last days by group.

    Within a group its own sales come first; ties, and articles that do not sell there, are ordered by the sales to
    everyone. A profile value that is missing, too rare for its vocabulary or never seen is no group.

    Args:
        view: The view.
        days: Number of days before the cutoff.
        by: A profile feature, `store_id`, `sales_channel_id` or a categorical feature of articles.
        name: Name in reports.

    Raises:
        InputError: There is no feature or column of that name.
    """
    timelines, candidates = view.timelines, view.articles.in_store
    everyone_group = np.zeros(len(timelines.time), np.int32)
    everyone = count_baskets(view, days=days, group=everyone_group, num_groups=1)[0]
    if by in view.articles.categorical and by not in view.profile_vocabulary:
        sold = candidates[everyone[candidates] > 0]
        index = view.articles.categorical[by]
        category = np.where(index >= FIRST_INDEX, index, PADDING_INDEX)
        return CategoryPopularity(sold.astype(np.int32), everyone[sold], category, name=name)
    settings: dict[str, Any]
    if by in view.profile_vocabulary:
        column = list(view.profile_vocabulary).index(by)
        settings = {"profile_column": column}
        group = view.profiles.categorical[:, column][timelines.row + FIRST_INDEX]
        num_groups, num_unknown = len(view.profile_vocabulary[by]) + FIRST_INDEX, FIRST_INDEX
    elif by in EVENT_GROUPS:
        settings = {"event": EVENT_GROUPS[by]}
        group = getattr(timelines, EVENT_GROUPS[by])
        # Channels are numbered as the source does, from 1.
        num_groups, num_unknown = int(group.max(initial=0)) + 1, 1
    else:
        known = [*view.profile_vocabulary, *EVENT_GROUPS, *view.articles.categorical]
        raise InputError(
            f"recommender.{name}.by: `{by}` is no profile feature, no column of transactions that groups, and no categorical "
            f"feature of articles; known are {', '.join(known)}."
        )
    counts = count_baskets(view, days=days, group=np.where(group >= 0, group, 0), num_groups=num_groups)
    # Customers without a group get everyone's list.
    counts[:num_unknown] = 0
    score = counts[:, candidates] + everyone[candidates] / (everyone.max(initial=0) + 1.0)
    order = np.argsort(-score, axis=1, kind="stable")[:, :_WIDTH]
    return GroupPopularity(
        candidates[order].astype(np.int32), np.take_along_axis(score, order, axis=1), **settings, name=name
    )
