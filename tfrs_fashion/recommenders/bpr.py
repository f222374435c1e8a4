"""BPR: factors that rank what a customer bought above what they did not.

Source: Rendle et al. 2009, BPR: Bayesian Personalized Ranking from Implicit Feedback.
"""

from tfrs_fashion.features.purchase_matrices import customer_matrix
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.factorization import Factorization, fit_implicit
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.settings.recommenders import BprConfig


def fit(view: View, settings: BprConfig, context: FitContext) -> Factorization:
    """Learns the factors; see `recommenders.kinds.Kind`.

    Raises:
        InputError: The extra `baselines` is not installed.
    """
    # Its threads write into each other's factors, so that two fits of one seed would differ.
    return fit_implicit(
        "bpr.BayesianPersonalizedRanking", customer_matrix(view), view, settings, context, num_threads=1
    )
