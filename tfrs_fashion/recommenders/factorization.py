"""Matrix factorisation: ALS fitted by the library `implicit`, answered by the exact index.

Source: Hu, Koren, Volinsky 2008, Collaborative Filtering for Implicit Feedback Datasets.
"""

import datetime
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import tensorflow as tf
from ibis import _

from tfrs_fashion.data.split import epoch_seconds, seconds_since_1970
from tfrs_fashion.features.inputs import SECONDS_A_DAY, Histories
from tfrs_fashion.index.exact import Exact
from tfrs_fashion.recommenders.recommender import Recommendations, load_state, save_state, with_source
from tfrs_fashion.schema import FIRST_INDEX, InputError


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
        size = tf.shape(self._customer_factors)[0]
        known = histories.customer_index < size
        query = tf.gather(self._customer_factors, tf.where(known, histories.customer_index, 0))
        article_index, score = self._index(query, k=k, exclude=exclude)
        answered = tf.reduce_any(query != 0, axis=1, keepdims=True)
        return with_source(tf.where(answered, article_index, 0), tf.where(answered, score, 0.0), self.name)

    def save(self, folder: Path) -> None:
        """Writes the factors."""
        save_state(folder, self._arrays, name=self.name)

    @classmethod
    def load(cls, folder: Path) -> "Factorization":
        """Reads what `save` wrote."""
        arrays, settings = load_state(folder)
        return cls(**arrays, **settings)


def weigh_pairs(transactions: ibis.Table, *, as_of: datetime.datetime, half_life_days: float) -> pd.DataFrame:
    """Weighs each customer and article by their baskets, which lose half their weight in a half-life.

    Returns:
        `customer_index, article_index, weight`, ordered by both indices.
    """
    # Anonymous customers share one index: together they are nobody whose taste could be told.
    named = transactions.filter(_.customer_index >= FIRST_INDEX)
    baskets = named.select("customer_index", "article_index", "t_dat").distinct()
    age_days = (epoch_seconds(_.t_dat) - seconds_since_1970(as_of)) / -float(SECONDS_A_DAY)
    return (
        baskets.mutate(weight=(-age_days / half_life_days * float(np.log(2))).exp())
        .group_by(["customer_index", "article_index"])
        .agg(weight=_.weight.sum())
        .order_by(["customer_index", "article_index"])
        .execute()
    )


def fit_als(
    transactions: ibis.Table,
    *,
    as_of: datetime.datetime,
    candidate_articles: np.ndarray,
    factors: int = 128,
    iterations: int = 15,
    regularization: float = 0.05,
    alpha: float = 1.0,
    half_life_days: float = 30.0,
    seed: int = 1,
) -> Factorization:
    """Factorises the matrix of customers and articles, weighted by baskets that lose half their weight in a half-life.

    Args:
        transactions: The visible transactions only.
        as_of: The cutoff.
        candidate_articles: `[num_candidates]` int32 article indices that may be recommended.
        factors: Width of the factors.
        iterations: Alternations.
        regularization: Of both sides.
        alpha: Confidence of a fresh basket.
        half_life_days: Age in days at which a basket weighs half.
        seed: Of the initial factors.

    Raises:
        InputError: The extra `baselines` is not installed.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from scipy.sparse import csr_matrix
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise InputError(
            "recommenders: `als` needs the package implicit: pip install 'tfrs-fashion[baselines]'."
        ) from error
    pairs = weigh_pairs(transactions, as_of=as_of, half_life_days=half_life_days)
    customer, article = pairs["customer_index"].to_numpy(), pairs["article_index"].to_numpy()
    matrix = csr_matrix((pairs["weight"].to_numpy(dtype=np.float32), (customer, article)))
    # `implicit` runs its own threads, and asks that those of BLAS stay out of their way.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=factors, iterations=iterations, regularization=regularization, alpha=alpha, random_state=seed
        )
        model.fit(matrix, show_progress=False)
    customer_factors = np.array(model.user_factors, dtype=np.float32)
    customer_factors[np.bincount(customer, minlength=len(customer_factors)) == 0] = 0.0
    candidates = candidate_articles[candidate_articles < matrix.shape[1]]
    candidates = candidates[candidates >= FIRST_INDEX]
    return Factorization(customer_factors, np.array(model.item_factors)[candidates], candidates)
