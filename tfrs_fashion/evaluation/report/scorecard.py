"""A recommender's scorecard: every metric with its interval, the accuracy curve, and the sources of its candidates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.figure import Figure
from tfrs_fashion.evaluation.metrics.accuracy import (
    ACCURACY_METRICS,
    AccuracyCurve,
    contains,
    find_hits,
    first_places,
    measure_accuracy,
    measure_hits,
    pair_keys,
    trace_accuracy,
)
from tfrs_fashion.evaluation.metrics.beyond_accuracy import ArticleStatistics, measure_exposure, measure_lists
from tfrs_fashion.evaluation.metrics.bootstrap import bootstrap_interval
from tfrs_fashion.evaluation.metrics.near_misses import GROUP_COLUMN, add_groups
from tfrs_fashion.schema import FIRST_INDEX, InputError

# `value`, `low` and `high` of one metric, and metrics by name.
MetricValue = dict[str, float]
Metrics = dict[str, MetricValue]


@dataclass(frozen=True)
class SourceShare:
    """The share of list places that come from one source.

    Attributes:
        source: Name of the source, as in Candidates.
        share: Share of all places.
        precision: Share of the source's places that were bought.
    """

    source: str
    share: float
    precision: float


@dataclass(frozen=True)
class Scorecard:
    """The evaluation of one recommender on a window.

    Attributes:
        metrics: Every metric with its interval, by name.
        curve: Recall and precision by list length.
        sources: Sources of the first k places, the most frequent first.
        by_customer: `map` at the first of the evaluated list lengths, by customer_index of the targets.
    """

    metrics: Metrics
    curve: AccuracyCurve | None = None
    sources: tuple[SourceShare, ...] = ()
    by_customer: pd.Series = field(default_factory=lambda: pd.Series(dtype=np.float64))


@dataclass(frozen=True)
class MetricSection:
    """A section of the report with metrics that do not describe lists, and a figure.

    Attributes:
        name: Key of the figure's data in `metrics.json`.
        heading: Heading of the section.
        metrics: Metrics with intervals by recommender; see `meanings`.
        figure: Figure of the section.
        notes: How the metrics were computed, one sentence each.
        meanings: Explanation of each metric, by name.
    """

    name: str
    heading: str
    metrics: dict[str, Metrics]
    figure: Figure
    notes: tuple[str, ...]
    meanings: Mapping[str, str]


def _exact(value: float) -> MetricValue:
    """Makes a metric without an interval: a count, or a property of the very lists that were shown, is not a sample."""
    return {"value": float(value), "low": float(value), "high": float(value)}


def _intervals(values: pd.DataFrame, **options: Any) -> Metrics:
    interval = bootstrap_interval(values, **options)
    return {
        str(name): {"value": float(value), "low": float(low), "high": float(high)}
        for name, value, low, high in zip(values.columns, *interval, strict=True)
    }


def _new_targets(
    targets: pd.DataFrame, history_pairs: pd.DataFrame, candidates_new: pd.DataFrame, *, k: int
) -> pd.DataFrame:
    bought = np.unique(pair_keys(history_pairs))
    shown = first_places(candidates_new, k=k)
    is_masked = ~contains(bought, pair_keys(shown))
    if not is_masked.all():
        rows = shown.loc[~is_masked].head(5)
        pairs = ", ".join(str(pair) for pair in zip(rows["customer_index"], rows["article_index"], strict=True))
        raise InputError(
            f"candidates_new: {int((~is_masked).sum()):,} row(s) within rank {k} that the customer had bought before "
            f"the cutoff; (customer_index, article_index) e.g. {pairs}. Exclude the history before the top k are taken."
        )
    # Out-of-vocabulary articles share one index, so a match is meaningless: they count as new.
    is_known = targets["article_index"].to_numpy() >= FIRST_INDEX
    return targets.loc[~(is_known & contains(bought, pair_keys(targets)))]


def count_sources(candidates: pd.DataFrame, targets: pd.DataFrame, *, k: int) -> tuple[SourceShare, ...]:
    """Computes each source's share of the places of all lists, and the share of its places that was bought.

    Args:
        candidates: Rows of Candidates in any order; ranks up to `k` are read.
        targets: (`customer_index`, `article_index`) pairs bought in the window.
        k: Length of the lists.

    Returns:
        The most frequent source first; empty if there are no candidates.

    Raises:
        InputError: A candidate has no source.
    """
    shown = first_places(candidates, k=k)
    codes, names = pd.factorize(shown["source"])
    if (is_missing := codes < 0).any():
        rows = shown.loc[is_missing].head(5)
        pairs = ", ".join(str(pair) for pair in zip(rows["customer_index"], rows["article_index"], strict=True))
        raise InputError(
            f"candidates: {int(is_missing.sum()):,} row(s) within rank {k} without a source; (customer_index, article_index) "
            f"e.g. {pairs}. Write the name of the recommender that each comes from."
        )
    is_bought = contains(np.unique(pair_keys(targets)), pair_keys(shown))
    is_bought &= shown["article_index"].to_numpy() >= FIRST_INDEX
    places = np.bincount(codes, minlength=len(names))
    bought = np.bincount(codes[is_bought], minlength=len(names))
    shares = [
        SourceShare(str(name), float(number / len(shown)), float(hits / number))
        for name, number, hits in zip(names, places, bought, strict=True)
    ]
    return tuple(sorted(shares, key=lambda source: (-source.share, source.source)))


def describe_lists(lists: pd.DataFrame, articles: ArticleStatistics, *, k: int, **options: Any) -> Metrics:
    """Computes the beyond-accuracy metrics of lists.

    Args:
        lists: Rows of Candidates in any order; ranks up to `k` are read.
        articles: Statistics of the articles.
        k: Length of the lists.
        **options: Options of `bootstrap_interval`.

    Returns:
        `coverage@k` and `popularity_gini@k`, without an interval since they describe what was shown, and the means over
        customers of `measure_lists`, where defined.
    """
    exposure = measure_exposure(lists, k=k, in_store=articles.in_store)
    metrics = {f"{name}@{k}": _exact(value) for name, value in exposure.items()}
    by_list = measure_lists(lists, articles, k=k)
    is_defined = by_list.notna()
    whole = [str(name) for name, all_known in zip(by_list, list(is_defined.all()), strict=True) if all_known]
    partly = [str(name) for name, known in zip(by_list, list(is_defined.any()), strict=True) if known]
    intervals = _intervals(by_list[whole], **options) if whole and len(by_list) else {}
    for column in partly:
        if column not in intervals:
            intervals.update(_intervals(by_list[[column]].dropna(), **options))
    return {**metrics, **{f"{name}@{k}": intervals[name] for name in partly}}


def describe_purchases(targets: pd.DataFrame, articles: ArticleStatistics, *, k: int, **options: Any) -> Metrics:
    """Computes the beyond-accuracy metrics of the purchases in the window, as a reference for those of lists.

    Args:
        targets: (`customer_index`, `article_index`) pairs bought in the window; out-of-vocabulary articles are ignored.
        articles: Statistics of the articles.
        k: Length of the compared lists, for the names of the metrics; all purchases are used.
        **options: Options of `bootstrap_interval`.

    Returns:
        Metrics as from `describe_lists`.
    """
    is_known = targets["article_index"].between(FIRST_INDEX, len(articles.num_buyers) - 1)
    bought = targets.loc[is_known, ["customer_index", "article_index"]].drop_duplicates()
    # Purchases have no order: all get the rank 1.
    metrics = describe_lists(bought.assign(rank=1), articles, k=1, **options)
    return {f"{name.removesuffix('@1')}@{k}": value for name, value in metrics.items()}


def evaluate_recommender(
    candidates: pd.DataFrame,
    candidates_new: pd.DataFrame | None,
    targets: pd.DataFrame,
    history_pairs: pd.DataFrame,
    articles: ArticleStatistics,
    *,
    ks: Sequence[int] = (12,),
    recall_at: int = 200,
    slices: Mapping[str, Iterable[int]] | None = None,
    cold_start_articles: np.ndarray | None = None,
    num_new_arrivals: int = 100,
    num_samples: int = 1000,
    seed: int = 0,
) -> Scorecard:
    """Computes a recommender's scorecard.

    Args:
        candidates: Candidates, up to `recall_at` per customer.
        candidates_new: Candidates that exclude the customer's earlier purchases before the top k; without them there are
            no `*_new` metrics.
        targets: (`customer_index`, `article_index`) pairs bought in the window.
        history_pairs: (`customer_index`, `article_index`) pairs bought before the cutoff.
        articles: Statistics of the articles.
        ks: Lengths of the evaluated lists; the first is that of `by_customer` and of `sources`.
        recall_at: Number of candidates whose recall is measured, and length of the curve.
        slices: Groups of customers by name, e.g. `cold_start_customers` or `age=25-34`, as customer_index.
        cold_start_articles: article_index of articles never sold before the cutoff: a slice of the targets.
        num_new_arrivals: Length of the lists on which that slice is evaluated.
        num_samples: Number of bootstrap samples.
        seed: Seed of the samples.

    Returns:
        Its metrics are `{"value", "low", "high"}` by name. For each k, means over the customers of `targets`: `map@k`,
        `recall@k`, `precision@k`, `ndcg@k`, `hit_rate@k`, `mrr@k`, and the same with `_GROUP` for each of
        `articles.groups`, where a hit is an article of the same group; `recall@{recall_at}`; `map@k_new`,
        `recall@k_new` and `ndcg@k_new`, over customers who bought something they had never bought; `map@k_cold_start_articles` and
        `recall@k_cold_start_articles` with k = num_new_arrivals, over customers who bought an article that nobody had;
        `map@k_SLICE`, `recall@k_SLICE`. Over all lists given: see `describe_lists`.
        Counts: `customers@k_new`, `customers@k_SLICE`, and `fewer_candidates@k`, the customers of `targets` with
        fewer than k candidates. Counts, coverage and Gini describe what was shown, so low = high = value.

    Raises:
        InputError: The window has no customer, or `candidates_new` holds articles that were bought before.
    """
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    metrics: Metrics = {}

    def add(suffix: str, values: pd.DataFrame, k: int) -> None:
        intervals = _intervals(values, **options)
        metrics.update({f"{name}@{k}{suffix}": value for name, value in intervals.items()})

    def add_slice(slice_name: str, values: pd.DataFrame, k: int, columns: Sequence[str] = ("map", "recall")) -> None:
        metrics[f"customers@{k}_{slice_name}"] = _exact(len(values))
        if len(values):
            add(f"_{slice_name}", values[[*columns]], k)

    hits = find_hits(candidates, targets, depth=max(*ks, recall_at))
    by_customer = {k: measure_hits(hits, k=k) for k in ks}
    members = {name: np.fromiter(customers, dtype=np.int64) for name, customers in (slices or {}).items()}
    for k in ks:
        add("", by_customer[k][list(ACCURACY_METRICS)], k)
        for name, groups in articles.groups.items():
            shown, bought = (add_groups(rows, groups) for rows in (first_places(candidates, k=k), targets))
            add(f"_{name}", measure_accuracy(shown, bought, k=k, key=GROUP_COLUMN), k)
        for slice_name, customers in members.items():
            add_slice(slice_name, by_customer[k].loc[by_customer[k].index.isin(customers)], k)
        if candidates_new is not None:
            new_targets = _new_targets(targets, history_pairs, candidates_new, k=k)
            add_slice("new", measure_accuracy(candidates_new, new_targets, k=k), k, ("map", "recall", "ndcg"))
        metrics.update(describe_lists(candidates, articles, k=k, **options))
    if cold_start_articles is not None:
        cold = targets.loc[targets["article_index"].isin(cold_start_articles)]
        add_slice("cold_start_articles", measure_accuracy(candidates, cold, k=num_new_arrivals), num_new_arrivals)
    add("", measure_hits(hits, k=recall_at)[["recall"]], recall_at)
    listed = first_places(candidates, k=recall_at)["customer_index"].to_numpy()
    lengths = np.bincount(listed, minlength=int(hits.customer_index.max()) + 1)[hits.customer_index]
    for k in sorted({*ks, recall_at}):
        metrics[f"fewer_candidates@{k}"] = _exact(int((lengths < k).sum()))
    return Scorecard(
        metrics=metrics,
        curve=trace_accuracy(hits.first(recall_at)),
        sources=count_sources(candidates, targets, k=ks[0]),
        by_customer=by_customer[ks[0]]["map"],
    )
