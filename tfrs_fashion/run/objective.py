"""Validation metrics: what settings and epochs are chosen by, measured on the validation window."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.customer_metrics import CUSTOMER_METRICS, customer_metrics
from tfrs_fashion.evaluation.metrics.target_ranks import draw_rankable, measure_target_ranks
from tfrs_fashion.evaluation.report.page import METRIC_NAME
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.inference import rank_customers, rank_targets
from tfrs_fashion.run.scoring import Scoring
from tfrs_fashion.schema import FIRST_INDEX, InputError, Tables, find_nearest
from tfrs_fashion.settings.pipeline import PipelineConfig

# Only the value is read here; intervals are for reports, so few bootstrap samples do.
_NUM_SAMPLES = 10


@dataclass(frozen=True)
class Objective:
    """The metric that settings are chosen by.

    Attributes:
        figure: The metric as reports name it, e.g. `map@12`.
        direction: `max` or `min`.
    """

    figure: str
    direction: str = "max"

    @property
    def metric(self) -> str:
        """The metric without its length."""
        return self.figure.partition("@")[0]

    @property
    def k(self) -> int:
        """The length of the lists that it is computed from; 0 for metrics of full rankings."""
        match = METRIC_NAME.fullmatch(self.figure)
        return int(match["k"]) if match is not None else 0

    @property
    def is_of_customers(self) -> bool:
        """Whether it is a plain mean over customers of a metric of their lists."""
        return re.fullmatch(r"[a-z_]+@\d+", self.figure) is not None and self.metric in CUSTOMER_METRICS

    def read(self, metrics: Mapping[str, float]) -> float:
        """Reads its value from the metrics of an epoch."""
        return metrics[f"val_{self.figure}"]

    def order(self, value: float, metrics: Mapping[str, float]) -> dict[str, float]:
        """Puts a value that rises with the objective before an epoch's other metrics: early stopping goes by the first."""
        first = {f"val_{self.figure}": value} if self.direction == "max" else {f"val_minus_{self.figure}": -value}
        return {**first, f"val_{self.figure}": value, **metrics}


def make_validator(
    view: View,
    targets: pd.DataFrame,
    *,
    k: int,
    metrics: Sequence[str] = ("map", "recall"),
    batch_size: int = 256,
) -> Callable[[Recommender], dict[str, float]]:
    """Makes the function that evaluates a recommender during its fit.

    Every in-store article is ranked for every customer who bought in the window, whether known or not.

    Args:
        view: What the recommender is fitted from.
        targets: `customer_index, article_index` bought in the validation window.
        k: Length of the lists.
        metrics: Names in `CUSTOMER_METRICS`; early stopping goes by the first.
        batch_size: Customers per call.

    Returns:
        A function from a recommender to `val_<metric>@k`.
    """
    customers = np.unique(targets["customer_index"].to_numpy(dtype=np.int32))

    def validate(recommender: Recommender) -> dict[str, float]:
        candidates = rank_customers(recommender, view, customers, k=k, batch_size=batch_size)
        means = customer_metrics(candidates, targets, k=k).mean()
        return {f"val_{name}@{k}": float(means[name]) for name in metrics}

    return validate


def beats_fallback_on_cold_start(
    recommender: Recommender,
    fallback: Recommender,
    view: View,
    targets: pd.DataFrame,
    *,
    k: int,
    min_customers: int = 100,
) -> bool | None:
    """Compares a recommender with its fallback on customers without a history, by map@k.

    Args:
        recommender: A recommender fitted from the view.
        fallback: Its fallback, fitted from the same view.
        view: The view of the validation split.
        targets: `customer_index, article_index` bought in the validation window.
        k: Length of the lists.
        min_customers: The smallest number of such customers for a comparison.

    Returns:
        Whether it is better; None with too few such customers.
    """
    has_history = np.flatnonzero(np.diff(view.timelines.row_splits)) + FIRST_INDEX
    cold_start = targets[~targets["customer_index"].isin(has_history)]
    customers = np.unique(cold_start["customer_index"].to_numpy(dtype=np.int32))
    if len(customers) < min_customers:
        return None
    own, of_fallback = (
        float(customer_metrics(rank_customers(each, view, customers, k=k), cold_start, k=k)["map"].mean())
        for each in (recommender, fallback)
    )
    return own > of_fallback


def make_measure(
    objective: Objective, *, view: View, tables: Tables, targets: pd.DataFrame, config: PipelineConfig
) -> Callable[[Recommender], dict[str, float]]:
    """Makes the function that computes a recommender's objective, with `val_map@k` and `val_recall@k` beside it.

    Args:
        objective: The metric that settings are chosen by.
        view: What recommenders are fitted from.
        tables: Indexed tables.
        targets: `customer_index, article_index` bought in the validation window.
        config: The pipeline.

    Returns:
        A function that raises InputError if reports have no such metric.
    """
    k = config.evaluation.k
    validate = make_validator(view, targets, k=k)
    if objective.is_of_customers:
        measure_objective = make_validator(view, targets, k=objective.k, metrics=(objective.metric,))

        def measure(recommender: Recommender) -> dict[str, float]:
            metrics = validate(recommender)
            if f"val_{objective.figure}" in metrics:
                return objective.order(objective.read(metrics), metrics)
            return objective.order(objective.read(measure_objective(recommender)), metrics)

        return measure
    if not objective.k:
        seed = config.seed
        number = config.evaluation.full_ranking_customers
        drawn = draw_rankable(targets, view.articles.in_store, num_customers=number, seed=seed)

        def measure_ranks(recommender: Recommender) -> dict[str, float]:
            ranks = rank_targets(recommender, view, drawn, seed=seed)
            metrics = measure_target_ranks(ranks, num_samples=_NUM_SAMPLES, seed=seed)
            _check_known(objective, metrics, *(f"{metric}@{k}" for metric in CUSTOMER_METRICS))
            return objective.order(float(metrics[objective.figure].value), validate(recommender))

        return measure_ranks
    scoring = Scoring(view, tables, targets, config)
    customers = np.unique(targets["customer_index"].to_numpy(dtype=np.int32))
    bought = scoring.bought[scoring.bought["customer_index"].isin(customers)]
    length = max(k, config.evaluation.num_candidates)

    def measure_lists(recommender: Recommender) -> dict[str, float]:
        lists, new_lists = (
            rank_customers(recommender, view, customers, k=length, exclude=exclude).assign(source=recommender.name)
            for exclude in (None, bought)
        )
        metrics = scoring.evaluate(lists, new_lists, num_samples=_NUM_SAMPLES).figures
        _check_known(objective, metrics)
        plain = {f"val_{name}": metrics[name]["value"] for name in (f"map@{k}", f"recall@{k}")}
        return objective.order(metrics[objective.figure]["value"], plain)

    return measure_lists


def _check_known(objective: Objective, metrics: Mapping[str, Any], *others: str) -> None:
    if objective.figure not in metrics:
        near = find_nearest(objective.figure, [*metrics, *others])
        hint = f"did you mean `{near}`?" if near else f"known are {', '.join([*others, *sorted(metrics)])}."
        raise InputError(f"tune.objective: reports have no metric `{objective.figure}`; {hint}")
