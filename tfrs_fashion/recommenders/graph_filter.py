"""Graph filter: purchases propagated through the graph of customers and articles, without its high frequencies.

LightGCN smooths embeddings by propagating them between customers and articles. Repeated without end and without learned
weights, that is a low-pass filter on the graph, and has a closed form: the leading singular vectors of the normalised
matrix. These need only sparse products, so memory grows with the purchases and not with customers times articles.

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
from tfrs_fashion.recommenders.recommender import FitContext, Recommendations, save_state, with_source
from tfrs_fashion.schema import PADDING_INDEX, InputError
from tfrs_fashion.settings.recommenders import GraphFilterConfig


class GraphFilter(tf.Module):
    """Smooths a history over the graph: an inner product of its articles with every candidate.

    Args:
        article_embedding: `[num_articles + 2, dim]` float32, embeddings of a history's articles; zero rows count for
            nothing.
        candidate_embedding: `[num_candidates, dim]` float32.
        article_index: `[num_candidates]` int32.
        half_life_days: Age in days at which a purchase weighs half.
        name: Name in reports.
    """

    kind = "graph_filter"
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
        save_state(folder, self._arrays, kind=self.kind, half_life_days=self._half_life_days, name=self.name)


def _largest_part(matrix: csr_matrix) -> csr_matrix:
    """Empties the rows of customers outside the connected component that holds most purchases.

    Each connected component has a direction of its own among the smoothest, with singular value 1. In a few days of
    purchases hundreds of customers share no article with anybody: their directions would displace all others, carry no
    information, and keep Lanczos's method, which converges by the gaps between singular values, from converging.
    """
    num_customers = matrix.shape[0]
    graph = bmat([[None, matrix], [matrix.T, None]], format="csr")
    part = connected_components(graph, directed=False)[1][:num_customers]
    weight = np.bincount(part, weights=np.diff(matrix.indptr))
    kept = csr_matrix(diags((part == weight.argmax()).astype(matrix.dtype)) @ matrix)
    kept.eliminate_zeros()
    return kept


def fit(view: View, settings: GraphFilterConfig, context: FitContext) -> GraphFilter:
    """Finds the smoothest directions of the graph of customers and articles, in the largest of its connected parts.

    See `recommenders.kinds.Kind`. The seed is that of the vector from which the directions are searched.

    Raises:
        InputError: There are too few customers or articles with a purchase.
    """
    name = context.name
    matrix = _largest_part(customer_matrix(view, half_life_days=settings.matrix_half_life_days or None))
    by_customer, by_article = (np.asarray(matrix.sum(axis=axis)).ravel() for axis in (1, 0))
    num_customers, num_articles = int((by_customer > 0).sum()), int((by_article > 0).sum())
    dim = min(settings.dim, num_customers - 1, num_articles - 1)
    if dim < 1:
        raise InputError(
            f"{name}: {num_customers:,} customer(s) bought {num_articles:,} article(s) "
            f"before the cutoff, and a graph needs two of each. Leave {name} out of `recommenders`."
        )
    # Customers and articles without purchases have empty rows and columns, so any divisor but 0 will do.
    customer_scale = diags(1.0 / np.sqrt(np.where(by_customer > 0, by_customer, 1.0)))
    article_scale = np.sqrt(np.where(by_article > 0, by_article, 1.0))
    normalised = csr_matrix(customer_scale @ matrix @ diags(1.0 / article_scale), dtype=np.float64)
    start = np.random.default_rng(context.seed).normal(size=min(normalised.shape))
    with threadpool_limits(2, "blas"):
        _left, _values, vectors = svds(normalised, k=dim, v0=start)
    # The signs of singular vectors are arbitrary; the inner products below do not depend on them.
    candidates = view.articles.in_store
    embedding = vectors.T
    return GraphFilter(
        (embedding / article_scale[:, np.newaxis]).astype(np.float32),
        (embedding * article_scale[:, np.newaxis])[candidates].astype(np.float32),
        candidates.astype(np.int32),
        half_life_days=settings.half_life_days,
        name=name,
    )
