"""Matrix factorisation: ALS and BPR fitted by the library `implicit`, answered by the exact index.

Whatever gives a customer the same factors whenever they ask is answered so too; see `base_two_tower`.

Source: Hu, Koren, Volinsky 2008, Collaborative Filtering for Implicit Feedback Datasets.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.purchase_matrices import customer_matrix
from tfrs_fashion.features.view import View
from tfrs_fashion.index.exact import Exact
from tfrs_fashion.recommenders.recommender import Recommendations, load_state, save_state, with_source
from tfrs_fashion.schema import InputError


class Factorization(tf.Module):
    """Inner products of customer factors with article factors; customers without factors get nothing.

    Args:
        customer_factors: `[num_customers + 2, factors]` float32 by `customer_index`; zero rows have no answer.
        article_factors: `[num_candidates, factors]` float32.
        article_index: `[num_candidates]` int32.
        name: As used in reports.
    """

    # It reads none of the history, but answers only those who have one.
    history_length: int | None = 1
    needs_history = True

    def __init__(
        self, customer_factors: np.ndarray, article_factors: np.ndarray, article_index: np.ndarray, *, name: str = "als"
    ) -> None:
        super().__init__(name=name)
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
        save_state(folder, self._arrays, name=self.name)

    @classmethod
    def load(cls, folder: Path) -> "Factorization":
        """Reads what `save` wrote."""
        arrays, settings = load_state(folder)
        return cls(**arrays, **settings)


def _fit(make_model: Callable[[], Any], matrix: csr_matrix, view: View, *, name: str) -> Factorization:
    """Fits a model of the library `implicit` and takes its factors."""
    # `implicit` runs its own threads, and asks that those of BLAS stay out of their way.
    with threadpool_limits(1, "blas"):
        model = make_model()
        model.fit(matrix, show_progress=False)
    customer_factors = np.array(model.user_factors, dtype=np.float32)
    customer_factors[np.diff(matrix.indptr) == 0] = 0.0
    candidates = view.articles.in_store
    return Factorization(customer_factors, np.array(model.item_factors)[candidates], candidates, name=name)


def _missing(name: str) -> InputError:
    return InputError(f"recommenders: `{name}` needs the package implicit: pip install 'tfrs-fashion[baselines]'.")


def fit_als(
    view: View,
    *,
    factors: int = 128,
    iterations: int = 15,
    regularization: float = 0.05,
    alpha: float = 1.0,
    half_life_days: float = 30.0,
    seed: int = 1,
    name: str = "als",
) -> Factorization:
    """Factorises the matrix of customers and articles, weighted by baskets that lose half their weight in a half-life.

    Args:
        view: What may be seen.
        factors: Width of the factors.
        iterations: Alternations.
        regularization: Of both sides.
        alpha: Confidence of a fresh basket.
        half_life_days: Age in days at which a basket weighs half.
        seed: Of the initial factors.
        name: As used in reports.

    Raises:
        InputError: The extra `baselines` is not installed.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError as error:
        raise _missing(name) from error
    make_model = partial(
        AlternatingLeastSquares,
        factors=factors,
        iterations=iterations,
        regularization=regularization,
        alpha=alpha,
        random_state=seed,
    )
    return _fit(make_model, customer_matrix(view, half_life_days=half_life_days), view, name=name)


def fit_bpr(
    view: View,
    *,
    factors: int,
    iterations: int,
    learning_rate: float,
    regularization: float,
    seed: int = 1,
    name: str = "bpr",
) -> Factorization:
    """Learns factors that put what a customer bought above what they did not.

    Source: Rendle et al. 2009, BPR: Bayesian Personalized Ranking from Implicit Feedback.

    Args:
        view: What may be seen.
        factors: Width of the factors.
        iterations: Passes over the purchases.
        learning_rate: Of stochastic gradient descent.
        regularization: Of both sides.
        seed: Of the initial factors and of the samples.
        name: As used in reports.

    Raises:
        InputError: The extra `baselines` is not installed.
    """
    try:
        from implicit.cpu.bpr import BayesianPersonalizedRanking
    except ImportError as error:
        raise _missing(name) from error
    make_model = partial(
        BayesianPersonalizedRanking,
        factors=factors,
        iterations=iterations,
        learning_rate=learning_rate,
        regularization=regularization,
        random_state=seed,
        # Its threads write into each other's factors, so that two fits of one seed would differ.
        num_threads=1,
    )
    return _fit(make_model, customer_matrix(view), view, name=name)
