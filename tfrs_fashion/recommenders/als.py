"""ALS: matrix factorisation by alternating least squares.

Source: Hu, Koren, Volinsky 2008, Collaborative Filtering for Implicit Feedback Datasets.
"""

from tfrs_fashion.features.purchase_matrices import customer_matrix
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.factorization import Factorization, fit_implicit
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.settings.recommenders import AlsConfig


def fit(view: View, settings: AlsConfig, context: FitContext) -> Factorization:
    """Factorises the matrix of customers and articles, weighted by baskets that lose half their weight in a half-life.

    See `recommenders.kinds.Kind`.

    Raises:
        InputError: The extra `baselines` is not installed.
    """
    matrix = customer_matrix(view, half_life_days=settings.half_life_days)
    return fit_implicit("als.AlternatingLeastSquares", matrix, view, settings, context)
