"""What is chosen by on the validation window: figures of a recommender, after each epoch where it has any."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.accuracy import ACCURACY_METRICS, measure_accuracy
from tfrs_fashion.evaluation.metrics.target_ranks import draw_rankable, measure_target_ranks
from tfrs_fashion.evaluation.report.metric_tables import METRIC_NAME
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.inference import rank_customers, rank_targets
from tfrs_fashion.run.scoring import Scoring
from tfrs_fashion.schema import FIRST_INDEX, InputError, Tables, find_nearest
from tfrs_fashion.settings.pipeline import PipelineConfig

# Intervals are for reports: of what is chosen by, the value alone is read.
_FEW_SAMPLES = 10


@dataclass(frozen=True)
class Objective:
    """What settings are chosen by.

    Attributes:
        figure: As reports name it, e.g. `map@12`.
        direction: `max` or `min`.
    """

    figure: str
    direction: str = "max"

    @property
    def metric(self) -> str:
        """The metric, without its length."""
        return self.figure.partition("@")[0]

    @property
    def k(self) -> int:
        """The length of the lists that it is read from."""
        found = METRIC_NAME.fullmatch(self.figure)
        return int(found["k"]) if found is not None else 0

    @property
    def is_of_customers(self) -> bool:
        """Whether it is a plain mean over customers of how well lists foretell what they bought."""
        return re.fullmatch(r"[a-z_]+@\d+", self.figure) is not None and self.metric in ACCURACY_METRICS

    def read(self, figures: Mapping[str, float]) -> float:
        """Reads the figure from those of an epoch."""
        return figures[f"val_{self.figure}"]

    def order(self, value: float, figures: Mapping[str, float]) -> dict[str, float]:
        """Puts what rises with the objective before the other figures of an epoch, since early stopping goes by the first."""
        first = {f"val_{self.figure}": value} if self.direction == "max" else {f"val_minus_{self.figure}": -value}
        return {**first, f"val_{self.figure}": value, **figures}


def make_validator(
    view: View,
    targets: pd.DataFrame,
    *,
    k: int,
    metrics: Sequence[str] = ("map", "recall"),
    batch_size: int = 256,
) -> Callable[[Recommender], dict[str, float]]:
    """Makes the function that judges a recommender during its fit.

    Every in-store article is ranked for every customer who bought in the window, known or not.

    Args:
        view: What the recommender is fitted from.
        targets: `customer_index, article_index` bought in the validation window.
        k: Length of the lists.
        metrics: Some of `ACCURACY_METRICS`; the first is what early stopping goes by.
        batch_size: Customers ranked together.

    Returns:
        A function of a recommender that gives `val_map@k` and `val_recall@k`, or what else is asked for.
    """
    customers = np.unique(targets["customer_index"].to_numpy(dtype=np.int32))

    def validate(recommender: Recommender) -> dict[str, float]:
        candidates = rank_customers(recommender, view, customers, k=k, batch_size=batch_size)
        means = measure_accuracy(candidates, targets, k=k).mean()
        return {f"val_{name}@{k}": float(means[name]) for name in metrics}

    return validate


def beats_fallback_for_strangers(
    recommender: Recommender,
    fallback: Recommender,
    view: View,
    targets: pd.DataFrame,
    *,
    k: int,
    min_strangers: int = 100,
) -> bool | None:
    """Tells whether a recommender serves customers without a history better than its fallback does, by map@k.

    Args:
        recommender: Fitted from the view.
        fallback: Likewise.
        view: Of the validation split.
        targets: `customer_index, article_index` bought in the validation window.
        k: Length of the lists.
        min_strangers: With fewer of them nothing can be told.

    Returns:
        None where nothing can be told.
    """
    has_history = np.flatnonzero(np.diff(view.timelines.row_splits)) + FIRST_INDEX
    of_strangers = targets[~targets["customer_index"].isin(has_history)]
    strangers = np.unique(of_strangers["customer_index"].to_numpy(dtype=np.int32))
    if len(strangers) < min_strangers:
        return None
    own, filled = (
        float(measure_accuracy(rank_customers(asked, view, strangers, k=k), of_strangers, k=k)["map"].mean())
        for asked in (recommender, fallback)
    )
    return own > filled


def make_measure(
    objective: Objective, *, view: View, tables: Tables, targets: pd.DataFrame, config: PipelineConfig
) -> Callable[[Recommender], dict[str, float]]:
    """Makes the function that gives a recommender's objective, and `val_map@k` and `val_recall@k` beside it.

    Args:
        objective: What is chosen by.
        view: What recommenders are fitted from.
        tables: Indexed tables.
        targets: `customer_index, article_index` bought in the validation window.
        config: The pipeline.

    Returns:
        A function that raises InputError where the report has no such figure.
    """
    k = config.evaluation.k
    if objective.is_of_customers:
        plain = make_validator(view, targets, k=k)
        asked = make_validator(view, targets, k=objective.k, metrics=(objective.metric,))

        def measure(recommender: Recommender) -> dict[str, float]:
            figures = plain(recommender)
            found = figures.get(f"val_{objective.figure}")
            value = asked(recommender)[f"val_{objective.figure}"] if found is None else found
            return objective.order(value, figures)

        return measure
    if not objective.k:
        return _measure_ranks(objective, view=view, targets=targets, config=config)
    scoring = Scoring(view, tables, targets, config)
    customers = np.unique(targets["customer_index"].to_numpy(dtype=np.int32))
    bought = scoring.bought[scoring.bought["customer_index"].isin(customers)]
    length = max(k, config.evaluation.num_candidates)

    def measure_all(recommender: Recommender) -> dict[str, float]:
        lists, new_lists = (
            rank_customers(recommender, view, customers, k=length, exclude=left_out).assign(source=recommender.name)
            for left_out in (None, bought)
        )
        figures = scoring.judge(lists, new_lists, num_samples=_FEW_SAMPLES).metrics
        _check_known(objective, figures)
        plain = {f"val_{name}": figures[name]["value"] for name in (f"map@{k}", f"recall@{k}")}
        return objective.order(figures[objective.figure]["value"], plain)

    return measure_all


def _check_known(objective: Objective, figures: Mapping[str, Any], *others: str) -> None:
    if objective.figure not in figures:
        near = find_nearest(objective.figure, [*figures, *others])
        hint = f"did you mean `{near}`?" if near else f"known are {', '.join([*others, *sorted(figures)])}."
        raise InputError(f"tune.objective: reports have no figure `{objective.figure}`; {hint}")


def _measure_ranks(
    objective: Objective, *, view: View, targets: pd.DataFrame, config: PipelineConfig
) -> Callable[[Recommender], dict[str, float]]:
    """Makes the function for figures of full rankings, such as `auc`; see `make_measure`."""
    number, seed = config.evaluation.full_ranking_customers, config.seed
    asked = draw_rankable(targets, view.articles.in_store, num_customers=number, seed=seed)
    plain = make_validator(view, targets, k=config.evaluation.k)

    def measure(recommender: Recommender) -> dict[str, float]:
        ranks = rank_targets(recommender, view, asked, seed=seed)
        figures = measure_target_ranks(ranks, num_samples=_FEW_SAMPLES, seed=seed)
        _check_known(objective, figures, *(f"{metric}@{config.evaluation.k}" for metric in ACCURACY_METRICS))
        return objective.order(float(figures[objective.figure].value), plain(recommender))

    return measure
