"""The section of the report on full rankings: every article in store ranked for some customers, by each recommender."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.compare import bootstrap_interval
from tfrs_fashion.evaluation.drawing import STYLE
from tfrs_fashion.evaluation.figure import Figure
from tfrs_fashion.evaluation.roc_figure import draw_roc
from tfrs_fashion.evaluation.scorecard import Figures
from tfrs_fashion.evaluation.target_ranks import find_rankable, measure_target_ranks

MEANINGS = {
    "auc": "How often something bought stands above something not bought, mean over customers: 0.5 is chance, 1 the best.",
    "auc_pooled": "The same over all purchases, so that who buys more counts more.",
    "rank_q10, rank_q50, rank_q90": "Recommendations needed to reach 10%, 50% and 90% of purchases; lower is better.",
    "named": "Share of a customer's purchases that the recommender names at all. Those that it does not name stand after what "
    "it names, where chance would place them.",
}


@dataclass(frozen=True)
class RankingSection:
    """What full rankings say.

    Attributes:
        figures: By recommender and name, with intervals; see `MEANINGS`.
        figure: The ROC of rank.
        notes: How it came about, a sentence each.
    """

    figures: dict[str, Figures]
    figure: Figure
    notes: tuple[str, ...]


def describe_ranking(
    ranks: Mapping[str, pd.DataFrame], *, targets: pd.DataFrame, in_store: np.ndarray, num_samples: int, seed: int
) -> RankingSection:
    """Describes full rankings of the same targets.

    Args:
        ranks: TargetRanks by recommender, at least one; see `target_ranks.place_targets`.
        targets: All `customer_index, article_index` bought in the window.
        in_store: `[num_in_store]` article indices in store at the cutoff.
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
        figures[name] = {metric: interval._asdict() for metric, interval in measured.items()}
    with matplotlib.rc_context(STYLE):
        return RankingSection(figures, draw_roc(ranks), _notes(next(iter(ranks.values())), targets, in_store))


def _notes(ranks: pd.DataFrame, targets: pd.DataFrame, in_store: np.ndarray) -> tuple[str, ...]:
    rankable = find_rankable(targets, in_store)
    left_out = len(targets) - len(rankable)
    return (
        f"Each recommender ranked all {len(in_store):,} articles in store at the cutoff for {_count_customers(ranks):,} of the "
        f"{_count_customers(rankable):,} customers who bought one of them in the window, drawn by chance, and not filled up "
        "with what is popular.",
        f"{left_out:,} of the {len(targets):,} (customer, article) pairs bought in the window are not counted here: they are "
        "of articles not in store at the cutoff, or of customers who bought all that was.",
    )


def _count_customers(rows: pd.DataFrame) -> int:
    return int(rows["customer_index"].nunique())
