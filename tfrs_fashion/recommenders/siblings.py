"""Siblings: articles that were never sold, by the sales of other articles of their design."""

import datetime

import ibis
import numpy as np
from ibis import _

from tfrs_fashion.data.split import days_before
from tfrs_fashion.features.articles import check_product_codes
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.popularity import Popularity
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.settings.recommenders import SiblingsConfig


def fit(view: View, settings: SiblingsConfig, context: FitContext) -> Popularity:
    """Ranks the articles never sold by the recent baskets of their siblings; see `recommenders.kinds.Kind`.

    Raises:
        InputError: The articles have no `product_code`.
    """
    return fit_siblings(
        view.tables.articles,
        view.transactions,
        as_of=view.split.as_of,
        days=view.in_store_days,
        candidate_articles=view.articles.never_sold,
        name=context.name,
    )


def fit_siblings(
    articles: ibis.Table,
    transactions: ibis.Table,
    *,
    as_of: datetime.datetime,
    days: int,
    candidate_articles: np.ndarray,
    name: str,
) -> Popularity:
    """Ranks articles by the number of baskets that held another article of their design in the last days.

    Nothing else can be counted about articles that were never sold.

    Args:
        articles: Indexed articles.
        transactions: Only the visible transactions.
        as_of: The cutoff.
        days: Length in days of the window before the cutoff.
        candidate_articles: `[num_candidates]` int32, the articles to rank.
        name: Name in reports.

    Raises:
        InputError: The articles have no `product_code`.
    """
    check_product_codes(articles, recommender=name)
    recent = transactions.filter(_.t_dat >= ibis.literal(days_before(as_of, days)))
    baskets = recent.select("article_index", "customer_index", "basket_id").distinct()
    sold = baskets.group_by("article_index").agg(baskets=_.count())
    listed = articles.select("article_index", "product_code").left_join(sold, "article_index")
    listed = listed.mutate(baskets=_.baskets.fill_null(0)).drop("article_index_right")
    designs = listed.group_by("product_code").agg(design_baskets=_.baskets.sum())
    scores = (
        listed.left_join(designs, "product_code")
        .select("article_index", score=(_.design_baskets.fill_null(0) - _.baskets).cast("float32"))
        .execute()
        .set_index("article_index")["score"]
        .reindex(candidate_articles)
    )
    order = np.argsort(-scores.to_numpy(), kind="stable")
    return Popularity(candidate_articles[order], scores.to_numpy()[order], kind="siblings", name=name)
