"""What scorecards are computed from: the targets, what was bought before, the catalogue, and groups of customers."""

from dataclasses import dataclass
from functools import cached_property

import ibis
import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.beyond_accuracy import ArticleStatistics
from tfrs_fashion.evaluation.metrics.near_misses import index_groups
from tfrs_fashion.evaluation.report.scorecard import Scorecard, evaluate_recommender
from tfrs_fashion.features.articles import content_embedding, sales_by_article
from tfrs_fashion.features.customer_slices import make_slices
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX, Tables
from tfrs_fashion.settings.pipeline import PipelineConfig


def bought_pairs(view: View) -> pd.DataFrame:
    """Returns the distinct visible `customer_index, article_index`."""
    return view.transactions.select("customer_index", "article_index").distinct().execute()


def article_groups(articles: ibis.Table, *, category: str) -> dict[str, np.ndarray]:
    """Numbers the groups within which a near miss lies: `product` and `category`, those that the articles have.

    Args:
        articles: Indexed articles.
        category: The column that plays this role; empty where none does.
    """
    columns = {"product": "product_code", "category": category}
    wanted = {name: column for name, column in columns.items() if column in articles.columns}
    named = {name: articles[column].cast("string") for name, column in wanted.items()}
    values = articles.select("article_index", **named).order_by("article_index").execute()
    return {name: index_groups(values[name]) for name in wanted if values[name].notna().any()}


def customer_slices(view: View, tables: Tables, judged: pd.DataFrame) -> dict[str, np.ndarray]:
    """Groups the customers judged by what was known of them before the cutoff; see `features.customer_slices`."""
    customers = np.unique(judged["customer_index"].to_numpy())
    age = None
    if "age" in tables.customers.columns:
        known = tables.customers.select("customer_index", age=tables.customers.age.cast("float64")).execute()
        age = known.set_index("customer_index")["age"].reindex(customers).to_numpy(dtype=np.float64)
    return make_slices(view.timelines, customers, age=age)


def article_statistics(
    view: View, articles: ibis.Table, *, categorical: tuple[str, ...], category: str = ""
) -> ArticleStatistics:
    """Collects what the report needs to know of all articles of the catalogue, from the visible sales."""
    num_articles = int(articles.count().execute())
    sales = sales_by_article(view.transactions)
    sold = sales["article_index"].to_numpy()
    num_buyers = np.zeros(num_articles + FIRST_INDEX, dtype=np.int64)
    num_buyers[sold] = sales["num_buyers"].to_numpy()
    price = np.full(num_articles + FIRST_INDEX, np.nan)
    price[sold] = sales["mean_price"].to_numpy(dtype=np.float64)
    return ArticleStatistics(
        in_store=view.articles.in_store,
        num_buyers=num_buyers,
        num_train_customers=int(np.count_nonzero(np.diff(view.timelines.row_splits))),
        price=price,
        content_embedding=content_embedding(articles, categorical=categorical) if categorical else None,
        groups=article_groups(articles, category=category),
    )


@dataclass(frozen=True)
class Scoring:
    """What all scorecards of one window share.

    Attributes:
        view: What is known before the window.
        tables: Indexed tables.
        judged: The targets, `customer_index, article_index`.
        config: The pipeline.
    """

    view: View
    tables: Tables
    judged: pd.DataFrame
    config: PipelineConfig

    @cached_property
    def bought(self) -> pd.DataFrame:
        """See `bought_pairs`."""
        return bought_pairs(self.view)

    @cached_property
    def statistics(self) -> ArticleStatistics:
        """See `article_statistics`."""
        features = self.config.features
        return article_statistics(
            self.view, self.tables.articles, categorical=features.categorical, category=features.roles.category
        )

    @cached_property
    def never_sold(self) -> np.ndarray:
        """The targets' articles without a visible sale; those that were not listed either can be recommended by nobody."""
        return np.setdiff1d(self.judged["article_index"].unique(), self.bought["article_index"].unique())

    @cached_property
    def slices(self) -> dict[str, np.ndarray]:
        """The customers of each group; see `customer_slices`."""
        cold_start = np.setdiff1d(self.judged["customer_index"].unique(), self.bought["customer_index"].unique())
        return {"cold_start_customers": cold_start, **customer_slices(self.view, self.tables, self.judged)}

    def judge(self, found: pd.DataFrame, found_new: pd.DataFrame, *, num_samples: int) -> Scorecard:
        """Computes a recommender's scorecard; see `evaluation.report.scorecard.evaluate_recommender`.

        Args:
            found: Its candidates.
            found_new: Its candidates without what each customer had bought.
            num_samples: Bootstrap samples of the intervals.
        """
        evaluation = self.config.evaluation
        return evaluate_recommender(
            found,
            found_new,
            self.judged,
            self.bought,
            self.statistics,
            ks=(evaluation.k,),
            recall_at=evaluation.num_candidates,
            slices=self.slices,
            cold_start_articles=self.never_sold,
            num_new_arrivals=min(evaluation.num_new_arrivals, evaluation.num_candidates),
            num_samples=num_samples,
            seed=self.config.seed,
        )
