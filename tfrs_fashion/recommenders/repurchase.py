"""Repurchase: what the customer bought before, most often or most recently. A strong baseline where customers return."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.bought_articles import bought_articles, time_scale
from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.features.view import View
from tfrs_fashion.index.exclusion import take_allowed
from tfrs_fashion.recommenders.recommender import FitContext, Recommendations, save_state, with_source
from tfrs_fashion.schema import PADDING_INDEX
from tfrs_fashion.settings.recommenders import RepurchaseConfig


class Repurchase(tf.Module):
    """Ranks the articles of the history itself, as far as they are in store.

    Args:
        in_store: `[num_in_store]` int32, the articles that it may recommend; None for all that were bought.
        days: Number of days before now that count; 0 for all.
        last_basket: Whether only the last basket counts.
        half_life_days: Age in days at which a basket counts half; 0 for a plain count.
        name: Name in reports.
    """

    kind = "repurchase"
    history_length: int | None = None
    needs_history = True

    def __init__(
        self,
        in_store: np.ndarray | None = None,
        *,
        days: int = 0,
        last_basket: bool = False,
        half_life_days: float = 0.0,
        name: str = "repurchase",
    ) -> None:
        super().__init__(name=name)
        self._in_store = in_store
        # By article index; the last element stands for all articles beyond the table.
        is_in_store = np.zeros(0 if in_store is None else int(in_store.max(initial=0)) + 2, bool)
        is_in_store[[] if in_store is None else in_store] = True
        self._is_in_store = tf.Variable(is_in_store, trainable=False)
        self._settings = {"days": days, "last_basket": last_basket, "half_life_days": half_life_days}

    def _since(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Returns `[batch]` int64, the first second that counts."""
        if self._settings["last_basket"]:
            return tf.reduce_max(histories.time, axis=1)
        return now - int(self._settings["days"]) * SECONDS_PER_DAY

    def _allowed(self, article_index: tf.Tensor) -> tf.Tensor:
        """Returns the articles, with `PADDING_INDEX` for those that may not be recommended."""
        if self._in_store is None:
            return article_index
        place = tf.minimum(article_index, self._is_in_store.shape[0] - 1)
        return tf.where(tf.gather(self._is_in_store, place), article_index, PADDING_INDEX)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k articles bought in most baskets, older baskets counting less; see `Recommender`.

        Ties go to the article bought last, then to the lower index.
        """
        if self._settings["days"] or self._settings["last_basket"]:
            histories = histories.since(self._since(histories, now))
        half_life_days = self._settings["half_life_days"]
        scales = (time_scale(half_life_days),) if half_life_days else ()
        bought = bought_articles(histories, now, time_scales_days=scales)
        strength = bought.decayed[:, 0] if half_life_days else tf.cast(bought.num_baskets, tf.float32)
        order = tf.argsort(-bought.last_time, stable=True)
        for key in (-strength, bought.row):
            order = tf.gather(order, tf.argsort(tf.gather(key, order), stable=True))
        row = tf.gather(bought.row, order)

        def dense(values: tf.Tensor) -> tf.Tensor:
            ragged = tf.RaggedTensor.from_value_rowids(tf.gather(values, order), row, histories.article_index.nrows())
            return ragged.to_tensor()

        return with_source(
            *take_allowed(dense(self._allowed(bought.article_index)), dense(strength), exclude, k), self.name
        )

    def save(self, folder: Path) -> None:
        """Writes the settings and the articles in store."""
        arrays = {} if self._in_store is None else {"in_store": self._in_store}
        save_state(folder, arrays, kind=self.kind, **self._settings, name=self.name)


def fit(view: View, settings: RepurchaseConfig, context: FitContext) -> Repurchase:
    """Makes the recommender, for which only the articles in store are read from the view; see `recommenders.kinds.Kind`."""
    return Repurchase(
        view.articles.in_store if settings.in_store_only else None,
        **settings.model_dump(include={"days", "last_basket", "half_life_days"}),
        name=context.name,
    )
