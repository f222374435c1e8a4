"""Item-kNN: articles that the same customers bought, by cosine or BM25.

Sources: Sarwar et al. 2001, Item-Based Collaborative Filtering Recommendation Algorithms; Robertson, Zaragoza 2009, The
Probabilistic Relevance Framework: BM25 and Beyond.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags

from tfrs_fashion.features.purchase_matrices import customer_matrix
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.neighbours import Neighbours, keep_columns, make_neighbours, nearest
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.settings.recommenders import ItemKnnConfig

_BM25_SATURATION = 1.2
_BM25_LENGTH = 0.75


def fit(view: View, settings: ItemKnnConfig, context: FitContext) -> Neighbours:
    """Counts which articles the same customers bought; see `recommenders.kinds.Kind`."""
    matrix = customer_matrix(view, half_life_days=settings.matrix_half_life_days or None)
    weighted = _normalise(matrix) if settings.similarity == "cosine" else _bm25(matrix)
    table = nearest(
        weighted.T.tocsr(), keep_columns(weighted, view.articles.in_store), num_neighbours=settings.num_neighbours
    )
    return make_neighbours(table, settings, context)


def _normalise(matrix: csr_matrix) -> csr_matrix:
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel())
    return csr_matrix(matrix @ diags(1.0 / np.maximum(length, 1e-12)))


def _bm25(matrix: csr_matrix) -> csr_matrix:
    """Weighs a matrix of customers by articles, with customers as the terms of articles."""
    matrix = matrix.astype(np.float64)
    num_articles = np.count_nonzero(np.asarray(matrix.sum(axis=0)).ravel())
    num_bought = np.diff(matrix.indptr)
    rarity = np.log(np.maximum(num_articles, 1)) - np.log1p(num_bought)
    length = np.asarray(matrix.sum(axis=0)).ravel()
    average = length.sum() / max(num_articles, 1)
    entries = matrix.tocoo()
    norm = 1.0 - _BM25_LENGTH + _BM25_LENGTH * length[entries.col] / max(average, 1e-12)
    saturated = entries.data * (_BM25_SATURATION + 1.0) / (_BM25_SATURATION * norm + entries.data)
    weighted = saturated * np.maximum(rarity[entries.row], 0.0)
    return csr_matrix((weighted.astype(np.float32), (entries.row, entries.col)), shape=matrix.shape)
