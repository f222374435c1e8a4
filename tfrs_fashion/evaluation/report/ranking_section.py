"""The section of the report on full rankings: every article in store ranked for some customers, by each recommender."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.drawing import STYLE
from tfrs_fashion.evaluation.metrics.bootstrap import bootstrap_interval
from tfrs_fashion.evaluation.metrics.target_ranks import find_rankable, measure_target_ranks
from tfrs_fashion.evaluation.report.measured_section import MeasuredSection
from tfrs_fashion.evaluation.report.roc_figure import draw_roc
from tfrs_fashion.evaluation.report.scorecard import Figures

MEANINGS = {
    "auc": "How often something bought stands above something not bought, mean over customers: 0.5 is chance, 1 the best.",
    "auc_pooled": "The same over all purchases, so that who buys more counts more.",
    "rank_q10, rank_q50, rank_q90": "Recommendations needed to reach 10%, 50% and 90% of purchases; lower is better.",
    "named": "Share of a customer's purchases that the recommender names at all. Those that it does not name stand after what "
    "it names, where chance would place them.",
    "auc_cold_start_articles, rank_q50_cold_start_articles": "The same of purchases of articles never sold before the "
    "cutoff, among everything in store.",
    "num_parameters": "Numbers that it holds: weights, and vectors or counts of customers and articles.",
}
_COLD_START = ("auc", "rank_q50")


def describe_ranking(
    ranks: Mapping[str, pd.DataFrame],
    *,
    targets: pd.DataFrame,
    in_store: np.ndarray,
    cold_start_articles: Sequence[int] | np.ndarray = (),
    num_parameters: Mapping[str, int] | None = None,
    at_first_purchase: bool = False,
    num_samples: int,
    seed: int,
) -> MeasuredSection:
    """Describes full rankings of the same targets.

    Args:
        ranks: TargetRanks by recommender, at least one; see `target_ranks.place_targets`.
        targets: All `customer_index, article_index` bought in the window.
        in_store: `[num_in_store]` article indices in store at the cutoff.
        cold_start_articles: `[any]` article indices never sold before it, whose purchases are measured apart too where any
            was in store.
        num_parameters: Numbers that each recommender holds.
        at_first_purchase: Whether each customer was asked for at the first purchase, and not at the cutoff.
        num_samples: Bootstrap samples of customers.
        seed: Fixes the samples.

    Raises:
        InputError: A recommender has no row.
    """
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    figures: dict[str, Figures] = {}
    for name, found in ranks.items():
        measured = measure_target_ranks(found, **options)
        measured["named"] = bootstrap_interval(
            (found["source"] != "").groupby(found["customer_index"]).mean(), **options
        )
        cold = found[found["article_index"].isin(cold_start_articles)]
        if len(cold):
            apart = measure_target_ranks(cold, **options)
            measured |= {f"{metric}_cold_start_articles": apart[metric] for metric in _COLD_START}
        figures[name] = {metric: interval._asdict() for metric, interval in measured.items()}
        if num_parameters is not None:
            figures[name]["num_parameters"] = dict.fromkeys(("value", "low", "high"), num_parameters[name])
    some = next(iter(ranks.values()))
    notes = _notes(some, targets, in_store, cold_start_articles, at_first_purchase=at_first_purchase)
    with matplotlib.rc_context(STYLE):
        return MeasuredSection("roc", "Every article in store ranked", figures, draw_roc(ranks), notes, MEANINGS)


def _notes(
    ranks: pd.DataFrame,
    targets: pd.DataFrame,
    in_store: np.ndarray,
    cold_start_articles: Sequence[int] | np.ndarray,
    *,
    at_first_purchase: bool,
) -> tuple[str, ...]:
    rankable = find_rankable(targets, in_store)
    left_out = len(targets) - len(rankable)
    when = "at the time of the first purchase of each" if at_first_purchase else "at the cutoff"
    num_new = int(ranks["article_index"].isin(cold_start_articles).sum())
    cold = f" {num_new:,} of their {len(ranks):,} purchases here are of articles never sold before." if num_new else ""
    return (
        f"Each recommender ranked all {len(in_store):,} articles in store at the cutoff for {_count_customers(ranks):,} of the "
        f"{_count_customers(rankable):,} customers who bought one of them in the window, drawn by chance, {when}, and not "
        f"filled up with what is popular.{cold}",
        f"{left_out:,} of the {len(targets):,} (customer, article) pairs bought in the window are not counted here: they are "
        "of articles not in store at the cutoff, or of customers who bought all that was.",
    )


def _count_customers(rows: pd.DataFrame) -> int:
    return int(rows["customer_index"].nunique())
