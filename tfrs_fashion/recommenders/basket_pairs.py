"""Basket pairs: articles of one basket, by lift.

Source: Brin, Motwani, Ullman, Tsur 1997, Dynamic Itemset Counting.
"""

import numpy as np

from tfrs_fashion.features.purchase_matrices import basket_matrix
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.neighbours import Neighbours, keep_columns, make_neighbours, nearest
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.settings.recommenders import BasketPairsConfig


def fit(view: View, settings: BasketPairsConfig, context: FitContext) -> Neighbours:
    """Counts which articles were in one basket more often than by chance; see `recommenders.kinds.Kind`.

    The weight of a pair is its lift, the ratio of baskets that held both to the number expected if articles fell into
    baskets independently; a pair whose lift is not above 1 is left out.
    """
    baskets = basket_matrix(view, days=settings.days)
    num_held = np.asarray(baskets.sum(axis=0)).ravel()
    num_baskets = max(np.count_nonzero(np.diff(baskets.indptr)), 1)

    def lift(row: np.ndarray, column: np.ndarray, together: np.ndarray) -> np.ndarray:
        ratio = together * num_baskets / (num_held[row] * num_held[column])
        return np.where((together >= settings.min_baskets) & (row != column) & (ratio > 1.0), ratio, 0.0)

    table = nearest(
        baskets.T.tocsr(),
        keep_columns(baskets, view.articles.in_store),
        num_neighbours=settings.num_neighbours,
        weigh=lift,
    )
    return make_neighbours(table, settings, context)
