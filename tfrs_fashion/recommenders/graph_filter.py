"""Graph filter: purchases propagated through the graph of customers and articles, with its noise left out.

LightGCN smooths embeddings by walking between customers and articles. Walked on and on without learned weights, that is
a low-pass filter on the graph, and has a closed form: the leading singular vectors of the normalised matrix. They are
found by sparse products alone, so memory grows with the purchases and not with customers times articles.

Source: Shen et al. 2021, How Powerful is Graph Convolution for Recommendation? (GF-CF's ideal low-pass filter).
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.sparse import bmat, csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from tfrs_fashion.features.bought_articles import bought_articles, time_scale
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.purchase_matrices import customer_matrix
from tfrs_fashion.features.view import View
from tfrs_fashion.index.exact import Exact
from tfrs_fashion.recommenders.recommender import Recommendations, load_state, save_state, with_source
from tfrs_fashion.schema import PADDING_INDEX, InputError


class GraphFilter(tf.Module):
    """Smooths a history over the graph: an inner product of what it holds with every candidate.

    Args:
        article_embedding: `[num_articles + 2, dim]` float32, what a history is made of; zero rows say nothing.
        candidate_embedding: `[num_candidates, dim]` float32.
        article_index: `[num_candidates]` int32.
        half_life_days: Age in days at which a purchase weighs half.
        name: As used in reports.
    """

    history_length: int | None = None
    needs_history = True

    def __init__(
        self,
        article_embedding: np.ndarray,
        candidate_embedding: np.ndarray,
        article_index: np.ndarray,
        *,
        half_life_days: float,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self._arrays = {
            "article_embedding": article_embedding,
            "candidate_embedding": candidate_embedding,
            "article_index": article_index,
        }
        self._half_life_days = half_life_days
        self._article_embedding = tf.Variable(article_embedding, trainable=False, dtype=tf.float32)
        self._index = Exact(candidate_embedding, article_index)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k articles with the largest inner product; see `Recommender`."""
        scale = time_scale(self._half_life_days)
        bought = bought_articles(histories, now, time_scales_days=(scale,))
        size = tf.shape(self._article_embedding)[0]
        article = tf.where(bought.article_index < size, bought.article_index, PADDING_INDEX)
        weighted = tf.gather(self._article_embedding, article) * bought.decayed
        query = tf.math.unsorted_segment_sum(weighted, bought.row, histories.article_index.nrows())
        article_index, score = self._index(query, k=k, exclude=exclude)
        answered = tf.reduce_any(query != 0, axis=1, keepdims=True)
        return with_source(tf.where(answered, article_index, 0), tf.where(answered, score, 0.0), self.name)

    def save(self, folder: Path) -> None:
        """Writes the embeddings."""
        save_state(folder, self._arrays, half_life_days=self._half_life_days, name=self.name)

    @classmethod
    def load(cls, folder: Path) -> "GraphFilter":
        """Reads what `save` wrote."""
        arrays, settings = load_state(folder)
        return cls(**arrays, **settings)


def _largest_part(matrix: csr_matrix) -> csr_matrix:
    """Empties the rows of customers who are not joined to most purchases by any walk.

    Each part of a graph that falls apart has a direction of its own among the smoothest, whose singular value is 1. In a few
    days of purchases hundreds of customers share no article with anybody: their directions would leave no room for
    others, say nothing that was not known, and keep Lanczos's method from ever telling them apart.
    """
    num_customers = matrix.shape[0]
    graph = bmat([[None, matrix], [matrix.T, None]], format="csr")
    part = connected_components(graph, directed=False)[1][:num_customers]
    weight = np.bincount(part, weights=np.diff(matrix.indptr))
    kept = csr_matrix(diags((part == weight.argmax()).astype(matrix.dtype)) @ matrix)
    kept.eliminate_zeros()
    return kept


def fit_graph_filter(
    view: View, *, dim: int, matrix_half_life_days: float, half_life_days: float, seed: int, name: str
) -> GraphFilter:
    """Finds the smoothest directions of the graph of customers and articles, in the largest of its connected parts.

    Args:
        view: What may be seen.
        dim: How many; fewer where there are fewer customers or articles.
        matrix_half_life_days: Age in days at which a purchase counts half in the graph; 0 for no decay.
        half_life_days: See `GraphFilter`.
        seed: Of the vector from which the directions are looked for.
        name: As used in reports.

    Raises:
        InputError: There are too few customers or articles with a purchase.
    """
    matrix = _largest_part(customer_matrix(view, half_life_days=matrix_half_life_days or None))
    by_customer, by_article = (np.asarray(matrix.sum(axis=axis)).ravel() for axis in (1, 0))
    num_customers, num_articles = int((by_customer > 0).sum()), int((by_article > 0).sum())
    dim = min(dim, num_customers - 1, num_articles - 1)
    if dim < 1:
        raise InputError(
            f"{name}: {num_customers:,} customer(s) bought {num_articles:,} article(s) "
            f"before the cutoff, and a graph needs two of each. Leave {name} out of `recommenders`."
        )
    # What nobody bought has an empty row or column, whatever that is divided by.
    customer_scale = diags(1.0 / np.sqrt(np.where(by_customer > 0, by_customer, 1.0)))
    article_scale = np.sqrt(np.where(by_article > 0, by_article, 1.0))
    normalised = csr_matrix(customer_scale @ matrix @ diags(1.0 / article_scale), dtype=np.float64)
    start = np.random.default_rng(seed).normal(size=min(normalised.shape))
    with threadpool_limits(2, "blas"):
        _left, _values, vectors = svds(normalised, k=dim, v0=start)
    # The signs of singular vectors are anyone's choice; the inner products below are the same for both.
    candidates = view.articles.in_store
    embedding = vectors.T
    return GraphFilter(
        (embedding / article_scale[:, np.newaxis]).astype(np.float32),
        (embedding * article_scale[:, np.newaxis])[candidates].astype(np.float32),
        candidates.astype(np.int32),
        half_life_days=half_life_days,
        name=name,
    )
