"""Co-visitation: what customers bought after an article, in the direction of time."""

import numpy as np
from scipy.sparse import diags

from tfrs_fashion.features.purchase_matrices import age_days, basket_matrix, previous_baskets
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.neighbours import Neighbours, keep_columns, nearest


def fit_co_visitation(
    view: View,
    *,
    num_baskets: int,
    gap_half_life_days: float,
    matrix_half_life_days: float,
    popularity_power: float,
    num_neighbours: int,
    history_articles: int,
    half_life_days: float,
    name: str,
) -> Neighbours:
    """Counts the pairs of an article and one bought in a later basket of the same customer.

    A pair weighs less the longer the time between the two baskets and the longer ago the later one. Divided by how
    often the former was followed by anything, the weights of an article are shares of what followed it.

    Args:
        view: What may be seen.
        num_baskets: How many baskets later still count.
        gap_half_life_days: Days between the two baskets at which a pair counts half.
        matrix_half_life_days: Age in days of the later basket at which a pair counts half.
        popularity_power: The weight is divided by the latter article's own count to this power: 0 leaves what sells well
            at the top, 1 asks for what follows more often than it sells.
        num_neighbours: Neighbours of an article.
        history_articles: See `Neighbours`.
        half_life_days: See `Neighbours`.
        name: As used in reports.
    """
    former = previous_baskets(view, num_baskets=num_baskets, half_life_days=gap_half_life_days)
    first = view.timelines.starts_basket
    fresh = diags((0.5 ** (age_days(view)[first] / matrix_half_life_days)).astype(np.float32))
    latter = (fresh @ basket_matrix(view)).tocsr()
    followed = np.asarray(former.sum(axis=0)).ravel()
    sold = np.asarray(latter.sum(axis=0)).ravel()

    def share(row: np.ndarray, column: np.ndarray, counted: np.ndarray) -> np.ndarray:
        return counted / (np.maximum(followed[row], 1.0) * np.maximum(sold[column], 1e-12) ** popularity_power)

    neighbour, weight = nearest(
        former.T.tocsr(), keep_columns(latter, view.articles.in_store), num_neighbours=num_neighbours, weigh=share
    )
    return Neighbours(neighbour, weight, history_articles=history_articles, half_life_days=half_life_days, name=name)
