"""Customer-kNN: the recent purchases of the customers who bought the same articles.

The neighbours of a customer are found when serving, from the request's history and a table of the latest buyers of each
article; so customers unknown to the fit who bring a history have neighbours too, and no matrix of customers is ever
made.

Source: Jannach, Ludewig 2017, When Recurrent Neural Networks meet the Neighborhood for Session-Based Recommendation.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.bought_articles import bought_articles, keep_strongest, strongest_first, time_scale
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.purchase_matrices import num_article_indices
from tfrs_fashion.features.view import View
from tfrs_fashion.index.pooled import rank_sums
from tfrs_fashion.recommenders.recommender import FitContext, Recommendations, save_state, with_source
from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX
from tfrs_fashion.settings.recommenders import CustomerKnnConfig


class CustomerKnn(tf.Module):
    """Sums the recent articles of the customers with the most similar purchases.

    Args:
        buyers: `[num_articles + 2, num_buyers]` int32 customer indices, the latest buyers of each article.
        rarity: `[num_articles + 2]` float32, how much an article in common counts: less, the more customers bought it.
        recent: `[num_customers + 2, num_recent]` int32, the latest articles of each customer that may be recommended.
        length: `[num_customers + 2]` float32, divisor of a customer's similarities: the root of the number of distinct
            articles.
        num_neighbours: Number of customers whose articles are summed.
        history_articles: Number of strongest articles of a history that are read.
        half_life_days: Age in days at which a purchase weighs half.
        name: Name in reports.
    """

    kind = "customer_knn"
    history_length: int | None = None
    needs_history = True

    def __init__(
        self,
        buyers: np.ndarray,
        rarity: np.ndarray,
        recent: np.ndarray,
        length: np.ndarray,
        *,
        num_neighbours: int,
        history_articles: int,
        half_life_days: float,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self._arrays = {"buyers": buyers, "rarity": rarity, "recent": recent, "length": length}
        self._settings = {
            "num_neighbours": num_neighbours,
            "history_articles": history_articles,
            "half_life_days": half_life_days,
        }
        self._buyers = tf.Variable(buyers, trainable=False, dtype=tf.int32)
        self._rarity = tf.Variable(rarity, trainable=False, dtype=tf.float32)
        self._recent = tf.Variable(recent, trainable=False, dtype=tf.int32)
        self._length = tf.Variable(length, trainable=False, dtype=tf.float32)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k articles with the largest sums; see `Recommender`."""
        num_articles, num_buyers = self._buyers.shape
        scale = time_scale(self._settings["half_life_days"])
        bought = bought_articles(histories, now, time_scales_days=(scale,))
        bought = keep_strongest(bought, bought.decayed[:, 0], limit=int(self._settings["history_articles"]))
        article = tf.where(bought.article_index < num_articles, bought.article_index, PADDING_INDEX)
        buyer = tf.reshape(tf.gather(self._buyers, article), [-1])
        row = tf.repeat(bought.row, num_buyers)
        common = tf.repeat(tf.gather(self._rarity, article) * bought.decayed[:, 0], num_buyers)
        # Neither padding nor the customer, whose own purchases are for other recommenders.
        is_other = tf.where((buyer >= FIRST_INDEX) & (buyer != tf.gather(histories.customer_index, row)))[:, 0]
        row, buyer, common = (tf.gather(values, is_other) for values in (row, buyer, common))
        row, buyer, similarity = self._nearest(row, buyer, common)
        article_index, score = rank_sums(
            tf.repeat(row, self._recent.shape[1]),
            tf.reshape(tf.gather(self._recent, buyer), [-1]),
            tf.repeat(similarity, self._recent.shape[1]),
            num_rows=histories.article_index.nrows(),
            num_articles=num_articles,
            k=k,
            exclude=exclude,
        )
        return with_source(article_index, score, self.name)

    def _nearest(self, row: tf.Tensor, buyer: tf.Tensor, common: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Sums what each row and each buyer have in common, and keeps the nearest buyers of each row."""
        num_customers = self._length.shape[0]
        pair, segment = tf.unique(row * num_customers + tf.cast(buyer, tf.int64), out_idx=tf.int64)
        total = tf.math.unsorted_segment_sum(common, segment, tf.size(pair, out_type=tf.int64))
        row, buyer = pair // num_customers, pair % num_customers
        similarity = total / tf.gather(self._length, buyer)
        nearest = strongest_first(row, similarity, limit=int(self._settings["num_neighbours"]))
        return tf.gather(row, nearest), tf.gather(buyer, nearest), tf.gather(similarity, nearest)

    def save(self, folder: Path) -> None:
        """Writes the tables of buyers and of their articles."""
        save_state(folder, self._arrays, kind=self.kind, **self._settings, name=self.name)


def list_latest(row: np.ndarray, value: np.ndarray, time: np.ndarray, *, num_rows: int, limit: int) -> np.ndarray:
    """Lists the distinct values of each row, the latest first: `[num_rows, limit]` int32, 0 where there are fewer."""
    order = np.lexsort([value, -time, row])
    row, value = row[order], value[order]
    _pair, first = np.unique(row.astype(np.int64) * (int(value.max(initial=0)) + 1) + value, return_index=True)
    first.sort()
    row, value = row[first], value[first]
    position = np.arange(len(row)) - np.searchsorted(row, row, side="left")
    latest = np.zeros((num_rows, limit), np.int32)
    kept = position < limit
    latest[row[kept], position[kept]] = value[kept]
    return latest


def fit(view: View, settings: CustomerKnnConfig, context: FitContext) -> CustomerKnn:
    """Lists who bought each article last, and what each customer bought last; see `recommenders.kinds.Kind`."""
    timelines, num_articles = view.timelines, num_article_indices(view)
    customer, article = timelines.row + FIRST_INDEX, timelines.article_index
    num_customers = timelines.num_customers + FIRST_INDEX
    buyers = list_latest(article, customer, timelines.time, num_rows=num_articles, limit=settings.num_buyers)
    in_store = np.isin(article, view.articles.in_store)
    recent = list_latest(
        customer[in_store],
        article[in_store],
        timelines.time[in_store],
        num_rows=num_customers,
        limit=settings.num_recent,
    )
    pairs = np.unique(customer * num_articles + article)
    num_distinct = np.bincount(pairs // num_articles, minlength=num_customers)
    num_buyers_of = np.bincount(pairs % num_articles, minlength=num_articles)
    rarity = np.log1p(num_customers / (1.0 + num_buyers_of))
    return CustomerKnn(
        buyers,
        rarity.astype(np.float32),
        recent,
        np.sqrt(np.maximum(num_distinct, 1)).astype(np.float32),
        num_neighbours=settings.num_neighbours,
        history_articles=settings.history_articles,
        half_life_days=settings.half_life_days,
        name=context.name,
    )
