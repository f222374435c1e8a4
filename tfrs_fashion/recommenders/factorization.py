"""Factors of customers and articles, answered by the exact index; and their fit by the library `implicit`.

Every kind that gives a customer the same factors whenever they ask is answered so: ALS, BPR, the base two towers.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.view import View
from tfrs_fashion.index.exact import Exact
from tfrs_fashion.recommenders.recommender import (
    FitContext,
    Recommendations,
    save_state,
    with_source,
)
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.recommenders import AlsConfig, BprConfig


class Factorization(tf.Module):
    """Inner products of customer factors with article factors; customers without factors get nothing.

    Args:
        customer_factors: `[num_customers + 2, factors]` float32 by `customer_index`; zero rows have no answer.
        article_factors: `[num_candidates, factors]` float32.
        article_index: `[num_candidates]` int32.
        kind: What the factors come from, e.g. `als`.
        name: Name in reports.
    """

    # It reads none of the history, but answers only those who have one.
    history_length: int | None = 1
    needs_history = True

    def __init__(
        self,
        customer_factors: np.ndarray,
        article_factors: np.ndarray,
        article_index: np.ndarray,
        *,
        kind: str,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.kind = kind
        self._arrays = {
            "customer_factors": customer_factors,
            "article_factors": article_factors,
            "article_index": article_index,
        }
        self._customer_factors = tf.Variable(customer_factors, trainable=False, dtype=tf.float32)
        self._index = Exact(article_factors, article_index)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k articles with the largest inner product; see `Recommender`."""
        query, answered = self._look_up(histories)
        article_index, score = self._index(query, k=k, exclude=exclude)
        return with_source(tf.where(answered, article_index, 0), tf.where(answered, score, 0.0), self.name)

    def score(self, histories: Histories, now: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
        """Scores `[batch, width]` int32 articles as `__call__` does; -inf where an article is no candidate."""
        query, answered = self._look_up(histories)
        return tf.where(answered, self._index.score(query, article_index), -np.inf)

    def _look_up(self, histories: Histories) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns each customer's factors, and `[batch, 1]` whether there are any."""
        known = histories.customer_index < tf.shape(self._customer_factors)[0]
        query = tf.gather(self._customer_factors, tf.where(known, histories.customer_index, 0))
        return query, tf.reduce_any(query != 0, axis=1, keepdims=True)

    def save(self, folder: Path) -> None:
        """Writes the factors."""
        save_state(folder, self._arrays, kind=self.kind, name=self.name)


def fit_implicit(
    model_name: str,
    matrix: csr_matrix,
    view: View,
    settings: AlsConfig | BprConfig,
    context: FitContext,
    **options: Any,
) -> Factorization:
    """Fits a model of the library `implicit` and takes its factors.

    Args:
        model_name: Dotted name of the model's class below `implicit.cpu`.
        matrix: `[num_customers + 2, num_articles + 2]`.
        view: The view.
        settings: Settings of the model; those that it has under the same name are passed on.
        context: Context of the fit.
        options: Further arguments of the model.

    Raises:
        InputError: The extra `baselines` is not installed.
    """
    module, _dot, class_name = model_name.partition(".")
    try:
        model_class = getattr(importlib.import_module(f"implicit.cpu.{module}"), class_name)
    except ImportError as error:
        raise InputError(
            f"recommenders: `{context.name}` needs the package implicit: pip install 'tfrs-fashion[baselines]'."
        ) from error
    passed = settings.model_dump(include={"factors", "iterations", "regularization", "alpha", "learning_rate"})
    # `implicit` runs its own threads, and asks that those of BLAS stay out of their way.
    with threadpool_limits(1, "blas"):
        model = model_class(**passed, random_state=context.seed, **options)
        model.fit(matrix, show_progress=False)
    customer_factors = np.array(model.user_factors, dtype=np.float32)
    customer_factors[np.diff(matrix.indptr) == 0] = 0.0
    candidates = view.articles.in_store
    return Factorization(
        customer_factors, np.array(model.item_factors)[candidates], candidates, kind=settings.kind, name=context.name
    )
