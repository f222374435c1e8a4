"""Co-visitation: what customers bought after an article, in the direction of time."""

import numpy as np
from scipy.sparse import diags

from tfrs_fashion.features.purchase_matrices import age_days, basket_matrix, previous_baskets
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.neighbours import Neighbours, keep_columns, make_neighbours, nearest
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.settings.recommenders import CoVisitationConfig


def fit(view: View, settings: CoVisitationConfig, context: FitContext) -> Neighbours:
    """Counts the pairs of an article and one bought in a later basket of the same customer; see `recommenders.kinds.Kind`.

    A pair weighs less the longer the time between the two baskets and the longer ago the later one. Divided by how
    often the former was followed by anything, the weights of an article are shares of what followed it. Divided also by
    the latter's own count to `popularity_power`: 0 leaves what sells well at the top, 1 prefers what follows more often
    than it sells.
    """
    former = previous_baskets(view, num_baskets=settings.num_baskets, half_life_days=settings.gap_half_life_days)
    first = view.timelines.starts_basket
    fresh = diags((0.5 ** (age_days(view)[first] / settings.matrix_half_life_days)).astype(np.float32))
    latter = (fresh @ basket_matrix(view)).tocsr()
    followed = np.asarray(former.sum(axis=0)).ravel()
    sold = np.asarray(latter.sum(axis=0)).ravel()

    def share(row: np.ndarray, column: np.ndarray, counted: np.ndarray) -> np.ndarray:
        popularity = np.maximum(sold[column], 1e-12) ** settings.popularity_power
        return counted / (np.maximum(followed[row], 1.0) * popularity)

    table = nearest(
        former.T.tocsr(),
        keep_columns(latter, view.articles.in_store),
        num_neighbours=settings.num_neighbours,
        weigh=share,
    )
    return make_neighbours(table, settings, context)
