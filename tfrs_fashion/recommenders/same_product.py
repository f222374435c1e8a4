"""Same product: the other colours and sizes of what a customer bought."""

import numpy as np
from ibis import _
from scipy.sparse import csr_matrix

from tfrs_fashion.features.articles import check_product_codes
from tfrs_fashion.features.purchase_matrices import age_days, num_article_indices, number_baskets
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.neighbours import Neighbours, keep_columns, make_neighbours, nearest
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.recommenders import SameProductConfig


def fit(view: View, settings: SameProductConfig, context: FitContext) -> Neighbours:
    """Lists for each article the others of its `product_code` in store, by their recent sales; see `recommenders.kinds.Kind`.

    Raises:
        InputError: The articles have no `product_code`.
    """
    articles, num_articles = view.tables.articles, num_article_indices(view)
    check_product_codes(articles, recommender=context.name)
    known = articles.filter((_.article_index >= FIRST_INDEX) & (_.article_index < num_articles))
    codes = known.filter(_.product_code.notnull()).select("article_index", "product_code").execute()
    article, design = codes["article_index"].to_numpy(), codes["product_code"].astype("category").cat.codes.to_numpy()
    member = csr_matrix(
        (np.ones(len(article), np.float32), (design, article)), shape=(int(design.max()) + 1, num_articles)
    )
    recent = age_days(view) <= settings.days
    pairs = np.unique(np.stack([number_baskets(view)[recent], view.timelines.article_index[recent]]), axis=1)
    num_baskets = np.bincount(pairs[1], minlength=num_articles)

    def by_sales(row: np.ndarray, column: np.ndarray, _together: np.ndarray) -> np.ndarray:
        return np.where(row != column, (1.0 + num_baskets[column]) / (1.0 + num_baskets.max(initial=0)), 0.0)

    table = nearest(
        member.T.tocsr(),
        keep_columns(member, view.articles.in_store),
        num_neighbours=settings.num_neighbours,
        weigh=by_sales,
    )
    return make_neighbours(table, settings, context)
