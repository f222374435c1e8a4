"""The report's section on full rankings: every article in store ranked for a sample of customers, by each recommender."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.bootstrap import bootstrap_interval
from tfrs_fashion.evaluation.metrics.target_ranks import find_rankable, measure_target_ranks
from tfrs_fashion.evaluation.report.curve_figures import draw_roc
from tfrs_fashion.evaluation.report.scorecard import Metrics, MetricSection

MEANINGS = {
    "auc": "How often a purchased article ranks above one not bought, mean over customers: 0.5 is chance, 1 is best.",
    "auc_pooled": "The same over all purchases, which weights customers by how much they bought.",
    "rank_q10, rank_q50, rank_q90": "Recommendations needed to reach 10%, 50% and 90% of purchases; lower is better.",
    "named": "Share of a customer's purchases that the recommender lists at all. The others are placed after its list, "
    "where chance would put them.",
    "auc_cold_start_articles, rank_q50_cold_start_articles": "The same for purchases of articles never sold before the "
    "cutoff, ranked among everything in store.",
    "num_parameters": "Numbers stored in the model: weights, and vectors or counts of customers and articles.",
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
) -> MetricSection:
    """Evaluates full rankings of the same targets by several recommenders.

    Args:
        ranks: TargetRanks by recommender, at least one; see `target_ranks.place_targets`.
        targets: All `customer_index, article_index` pairs bought in the window.
        in_store: `[num_in_store]` article_index of what is in store at the cutoff.
        cold_start_articles: `[any]` article_index of articles never sold before the cutoff; their purchases are also
            measured separately, if any was in store.
        num_parameters: Number of parameters by recommender.
        at_first_purchase: Whether each customer was scored at the first purchase instead of the cutoff.
        num_samples: Number of bootstrap samples of customers.
        seed: Seed of the samples.

    Raises:
        InputError: A recommender has no row.
    """
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    metrics: dict[str, Metrics] = {}
    for name, rows in ranks.items():
        intervals = measure_target_ranks(rows, **options)
        listed = (rows["source"] != "").groupby(rows["customer_index"]).mean()
        intervals["named"] = bootstrap_interval(listed, **options)
        cold = rows[rows["article_index"].isin(cold_start_articles)]
        if len(cold):
            apart = measure_target_ranks(cold, **options)
            intervals |= {f"{metric}_cold_start_articles": apart[metric] for metric in _COLD_START}
        metrics[name] = {metric: interval._asdict() for metric, interval in intervals.items()}
        if num_parameters is not None:
            metrics[name]["num_parameters"] = dict.fromkeys(("value", "low", "high"), num_parameters[name])
    some = next(iter(ranks.values()))
    notes = _notes(some, targets, in_store, cold_start_articles, at_first_purchase=at_first_purchase)
    return MetricSection("roc", "Every article in store ranked", metrics, draw_roc(ranks), notes, MEANINGS)


def _notes(
    ranks: pd.DataFrame,
    targets: pd.DataFrame,
    in_store: np.ndarray,
    cold_start_articles: Sequence[int] | np.ndarray,
    *,
    at_first_purchase: bool,
) -> tuple[str, ...]:
    rankable = find_rankable(targets, in_store)
    num_drawn, num_rankable = (rows["customer_index"].nunique() for rows in (ranks, rankable))
    when = "at the time of each customer's first purchase" if at_first_purchase else "at the cutoff"
    num_new = int(ranks["article_index"].isin(cold_start_articles).sum())
    cold = f" {num_new:,} of their {len(ranks):,} purchases here are of articles never sold before." if num_new else ""
    return (
        f"Each recommender ranked all {len(in_store):,} articles in store at the cutoff for {num_drawn:,} of the "
        f"{num_rankable:,} customers who bought one of them in the window, drawn at random, {when}, without filling the "
        f"ranking with popular articles.{cold}",
        f"{len(targets) - len(rankable):,} of the {len(targets):,} (customer, article) pairs bought in the window are not "
        "counted here: their articles were not in store at the cutoff, or their customers bought everything in store.",
    )
