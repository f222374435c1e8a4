"""Item-kNN: articles that the same customers bought, by cosine or BM25; and articles of one basket, by lift.

Sources: Sarwar et al. 2001, Item-Based Collaborative Filtering Recommendation Algorithms; Robertson, Zaragoza 2009, The
Probabilistic Relevance Framework: BM25 and Beyond; Brin, Motwani, Ullman, Tsur 1997, Dynamic Itemset Counting.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags

from tfrs_fashion.features.purchase_matrices import basket_matrix, customer_matrix
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.neighbours import Neighbours, keep_columns, nearest
from tfrs_fashion.settings.recommenders import Similarity

_BM25_SATURATION = 1.2
_BM25_LENGTH = 0.75


def fit_item_knn(
    view: View,
    *,
    similarity: Similarity,
    num_neighbours: int,
    matrix_half_life_days: float,
    history_articles: int,
    half_life_days: float,
    name: str,
) -> Neighbours:
    """Counts which articles the same customers bought.

    Args:
        view: What may be seen.
        similarity: `cosine`, or `bm25`, under which further purchases of one article say less and less, and customers who
            buy everything say little.
        num_neighbours: Neighbours of an article.
        matrix_half_life_days: Age in days at which a purchase counts half in the similarity; 0 for no decay.
        history_articles: See `Neighbours`.
        half_life_days: See `Neighbours`.
        name: As used in reports.
    """
    matrix = customer_matrix(view, half_life_days=matrix_half_life_days or None)
    weighted = _normalise(matrix) if similarity == "cosine" else _bm25(matrix)
    neighbour, weight = nearest(
        weighted.T.tocsr(), keep_columns(weighted, view.articles.in_store), num_neighbours=num_neighbours
    )
    return Neighbours(neighbour, weight, history_articles=history_articles, half_life_days=half_life_days, name=name)


def fit_basket_pairs(
    view: View,
    *,
    days: int,
    min_baskets: int,
    num_neighbours: int,
    history_articles: int,
    half_life_days: float,
    name: str,
) -> Neighbours:
    """Counts which articles were in one basket more often than chance has it.

    The weight of a pair is its lift, the ratio of baskets that held both to those that would if articles fell into
    baskets independently; what is not above 1 is no pair.

    Args:
        view: What may be seen.
        days: Days before the cutoff that count.
        min_baskets: Pairs in fewer baskets are left out: lift is largest, and worth least, where counts are small.
        num_neighbours: Neighbours of an article.
        history_articles: See `Neighbours`.
        half_life_days: See `Neighbours`.
        name: As used in reports.
    """
    baskets = basket_matrix(view, days=days)
    num_held = np.asarray(baskets.sum(axis=0)).ravel()
    num_baskets = max(np.count_nonzero(np.diff(baskets.indptr)), 1)

    def lift(row: np.ndarray, column: np.ndarray, together: np.ndarray) -> np.ndarray:
        found = together * num_baskets / (num_held[row] * num_held[column])
        return np.where((together >= min_baskets) & (row != column) & (found > 1.0), found, 0.0)

    neighbour, weight = nearest(
        baskets.T.tocsr(),
        keep_columns(baskets, view.articles.in_store),
        num_neighbours=num_neighbours,
        weigh=lift,
    )
    return Neighbours(neighbour, weight, history_articles=history_articles, half_life_days=half_life_days, name=name)


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
