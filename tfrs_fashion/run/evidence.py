"""Evidence: what a run shows its doctor of the purchases on both sides of the cutoffs, and of each artifact's answers."""

import ibis
import numpy as np
import pandas as pd
from ibis import _

from tfrs_fashion.data.split import target_rows
from tfrs_fashion.evaluation.checks.doctor import Answers, Purchases
from tfrs_fashion.evaluation.report.scorecard import Metrics
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX


def latest_visible(view: View) -> dict[str, pd.DataFrame]:
    """Returns the latest instant that a view shows of each customer beside the cutoff: `customer_index, latest, cutoff`.

    Args:
        view: Both of its transactions, whose instants are timestamps, and of its timelines, in whole seconds.
    """
    split, timelines = view.split, view.timelines
    latest = view.transactions.group_by("customer_index").agg(latest=_.t_dat.max().cast("timestamp")).execute()
    cutoff = pd.Series(pd.Timestamp(split.as_of), index=latest.index)
    if split.cutoffs is not None:
        own = split.cutoffs.select("customer_index", cutoff=_.cutoff.cast("timestamp")).execute()
        cutoff = latest["customer_index"].map(own.set_index("customer_index")["cutoff"]).fillna(cutoff)
    rows = np.flatnonzero(np.diff(timelines.row_splits))
    events = pd.DataFrame(
        {
            "customer_index": rows + FIRST_INDEX,
            # Events are in time order within a customer.
            "latest": timelines.time[timelines.row_splits[rows + 1] - 1],
            "cutoff": view.now[rows + FIRST_INDEX],
        }
    )
    return {"transactions": latest.assign(cutoff=cutoff), "timelines": events}


def gather_purchases(view: View, transactions: ibis.Table, judged: pd.DataFrame) -> Purchases:
    """Gathers what the doctor looks at of the purchases of the customers judged.

    Args:
        view: What was fitted from.
        transactions: All rows, of which the split's targets are judged.
        judged: The targets.
    """
    customers = ibis.memtable(judged[["customer_index"]].drop_duplicates())

    def rows(table: ibis.Table) -> pd.DataFrame:
        kept = table.semi_join(customers, "customer_index")
        return kept.select("customer_index", "article_index", time=_.t_dat, basket=_.basket_id).execute()

    targets = rows(target_rows(view.split, transactions)).merge(judged[["customer_index", "article_index"]])
    return Purchases(visible=rows(view.transactions), targets=targets, latest=latest_visible(view))


def make_answers(
    name: str,
    candidates: pd.DataFrame,
    candidates_new: pd.DataFrame,
    *,
    view: View,
    figures: Metrics,
    k: int,
    fallback: str,
    is_arrivals: bool = False,
    is_constant: bool = False,
    embedding: np.ndarray | None = None,
) -> Answers:
    """Puts the lists that are judged before the doctor.

    Candidates further down are left out: those of all artifacts at once would fill the memory, and `check_candidates` has
    seen them.

    Args:
        name: Of the artifact.
        candidates: Its answers.
        candidates_new: Its answers without what each customer had bought.
        view: What it was fitted from.
        figures: See `evaluate_recommender`.
        k: Length of the lists.
        fallback: What fills the lists of artifacts, but for those of articles never sold.
        is_arrivals: Whether it recommends articles never sold alone.
        is_constant: Whether it recommends the same to everyone, or to everyone of a group, by design.
        embedding: `[num_articles, dim]` of the articles that it ranks.
    """
    return Answers(
        name,
        candidates[candidates["rank"] <= k],
        rankable=view.articles.never_sold if is_arrivals else view.articles.in_store,
        candidates_new=candidates_new[candidates_new["rank"] <= k],
        # What arrivals find is a slice of its own, too small to say that nothing is found.
        metrics={} if is_arrivals else figures,
        is_constant=is_constant,
        fallback=None if is_arrivals else fallback,
        embedding=embedding,
    )
