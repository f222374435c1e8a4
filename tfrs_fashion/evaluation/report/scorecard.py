"""A recommender's scorecard: every figure with its interval, and what a table of single figures cannot show."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.bootstrap import bootstrap_interval
from tfrs_fashion.evaluation.metrics.customer_metrics import (
    CUSTOMER_METRICS,
    AccuracyCurve,
    customer_metrics,
    measure_customers,
    trace_accuracy,
)
from tfrs_fashion.evaluation.metrics.hits import contains, find_hits, first_places, pair_keys
from tfrs_fashion.evaluation.metrics.list_metrics import ArticleStatistics, customer_list_metrics, exposure_metrics
from tfrs_fashion.evaluation.metrics.near_misses import GROUP_COLUMN, add_groups
from tfrs_fashion.schema import FIRST_INDEX, InputError

Figure = dict[str, float]
Figures = dict[str, Figure]


@dataclass(frozen=True)
class SourceShare:
    """Where places of the lists come from.

    Attributes:
        source: As the candidates name it.
        share: Of all places shown.
        precision: Share of its places that were bought.
    """

    source: str
    share: float
    precision: float


@dataclass(frozen=True)
class Scorecard:
    """What is known of a recommender after the window.

    Attributes:
        figures: Every figure with its interval, by name.
        curve: Recall and precision by the length of the list.
        sources: Of the first k places, the most frequent first.
        by_customer: `map` at the first k of each customer of the targets, by customer_index.
    """

    figures: Figures
    curve: AccuracyCurve | None = None
    sources: tuple[SourceShare, ...] = ()
    by_customer: pd.Series = field(default_factory=lambda: pd.Series(dtype=np.float64))


def _exact(value: float) -> Figure:
    """A count, or a description of the very lists that were shown: not a sample, so without an interval."""
    return {"value": float(value), "low": float(value), "high": float(value)}


def _intervals(values: pd.DataFrame, **options: Any) -> Figures:
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
    # What is out of vocabulary shares one index, so a match by it would mean nothing: it counts as new.
    is_known = targets["article_index"].to_numpy() >= FIRST_INDEX
    return targets.loc[~(is_known & contains(bought, pair_keys(targets)))]


def count_sources(candidates: pd.DataFrame, targets: pd.DataFrame, *, k: int) -> tuple[SourceShare, ...]:
    """Counts the places of all lists by the source that the candidates name, and how many of these were bought.

    Args:
        candidates: Rows of Candidates in any order; ranks up to `k` are read.
        targets: (`customer_index`, `article_index`) bought in the window.
        k: Length of the list.

    Returns:
        The most frequent source first; nothing if no list has a place.

    Raises:
        InputError: A place has no source.
    """
    shown = first_places(candidates, k=k)
    codes, names = pd.factorize(shown["source"])
    if (is_missing := codes < 0).any():
        rows = shown.loc[is_missing].head(5)
        pairs = ", ".join(str(pair) for pair in zip(rows["customer_index"], rows["article_index"], strict=True))
        raise InputError(
            f"candidates: {int(is_missing.sum()):,} row(s) within rank {k} without a source; (customer_index, article_index) "
            f"e.g. {pairs}. Write the name of the recommender that gave each."
        )
    is_bought = contains(np.unique(pair_keys(targets)), pair_keys(shown))
    is_bought &= shown["article_index"].to_numpy() >= FIRST_INDEX
    places = np.bincount(codes, minlength=len(names))
    bought = np.bincount(codes[is_bought], minlength=len(names))
    found = [
        SourceShare(str(name), float(number / len(shown)), float(hits / number))
        for name, number, hits in zip(names, places, bought, strict=True)
    ]
    return tuple(sorted(found, key=lambda source: (-source.share, source.source)))


def describe_lists(lists: pd.DataFrame, articles: ArticleStatistics, *, k: int, **options: Any) -> Figures:
    """Describes lists, whatever was bought afterwards.

    Args:
        lists: Rows of Candidates in any order; ranks up to `k` are read.
        articles: What is known about the articles.
        k: Length of the list.
        **options: Of `bootstrap_interval`.

    Returns:
        `coverage@k` and `popularity_gini@k`, without an interval since they describe what was shown, and the means over
        lists of `customer_list_metrics`, where defined.
    """
    exposure = exposure_metrics(lists, k=k, in_store=articles.in_store)
    figures = {f"{name}@{k}": _exact(value) for name, value in exposure.items()}
    by_list = customer_list_metrics(lists, articles, k=k)
    is_defined = by_list.notna()
    whole = [str(name) for name, all_known in zip(by_list, list(is_defined.all()), strict=True) if all_known]
    partly = [str(name) for name, known in zip(by_list, list(is_defined.any()), strict=True) if known]
    found = _intervals(by_list[whole], **options) if whole and len(by_list) else {}
    for column in partly:
        if column not in found:
            found.update(_intervals(by_list[[column]].dropna(), **options))
    return {**figures, **{f"{name}@{k}": found[name] for name in partly}}


def describe_purchases(targets: pd.DataFrame, articles: ArticleStatistics, *, k: int, **options: Any) -> Figures:
    """Describes what was bought in the window as if it had been shown, beside which lists can be seen.

    Args:
        targets: (`customer_index`, `article_index`) bought in the window; what is out of vocabulary is left out.
        articles: What is known about the articles.
        k: Length of the lists that stand beside it, for the names of the figures; all purchases are read.
        **options: Of `bootstrap_interval`.

    Returns:
        See `describe_lists`.
    """
    is_known = targets["article_index"].between(FIRST_INDEX, len(articles.num_buyers) - 1)
    bought = targets.loc[is_known, ["customer_index", "article_index"]].drop_duplicates()
    # What was bought has no order: all of it stands first.
    found = describe_lists(bought.assign(rank=1), articles, k=1, **options)
    return {f"{name.removesuffix('@1')}@{k}": figure for name, figure in found.items()}


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
    window: str = "the window of targets",
) -> Scorecard:
    """Computes everything that the report says of one recommender.

    Args:
        candidates: Candidates, `recall_at` a customer where there are as many.
        candidates_new: Candidates from which what the customer had bought was excluded before top-k; without
            them there are no `*_new` figures.
        targets: (`customer_index`, `article_index`) bought in the window.
        history_pairs: (`customer_index`, `article_index`) bought before the cutoff.
        articles: What is known about the articles.
        ks: Lengths of the lists that are measured; the first is that of `by_customer` and of `sources`.
        recall_at: Number of candidates whose recall is measured, and length of the curve.
        slices: Groups of customers by name, e.g. `cold_start_customers` or `age=25-34`, as customer_index.
        cold_start_articles: Articles never sold before the cutoff, as article_index: a slice of the targets.
        num_new_arrivals: Length of the lists on which that slice is judged.
        num_samples: Bootstrap samples.
        seed: Fixes the bootstrap samples.
        window: What to call the window in messages, e.g. its dates.

    Returns:
        Its figures are `{"value", "low", "high"}` by metric. For each k, means over the customers of `targets`: `map@k`,
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
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "window": window}
    figures: Figures = {}

    def add_slice(slice_name: str, values: pd.DataFrame, k: int, metrics: Sequence[str] = ("map", "recall")) -> None:
        figures[f"customers@{k}_{slice_name}"] = _exact(len(values))
        if len(values):
            found = _intervals(values[[*metrics]], **options)
            figures.update({f"{name}@{k}_{slice_name}": figure for name, figure in found.items()})

    hits = find_hits(candidates, targets, depth=max(*ks, recall_at))
    by_customer = {k: measure_customers(hits, k=k) for k in ks}
    members = {name: np.fromiter(customers, dtype=np.int64) for name, customers in (slices or {}).items()}
    for k in ks:
        found = _intervals(by_customer[k][list(CUSTOMER_METRICS)], **options)
        figures.update({f"{name}@{k}": figure for name, figure in found.items()})
        for name, groups in articles.groups.items():
            shown, bought = (add_groups(rows, groups) for rows in (first_places(candidates, k=k), targets))
            found = _intervals(customer_metrics(shown, bought, k=k, key=GROUP_COLUMN), **options)
            figures.update({f"{metric}@{k}_{name}": figure for metric, figure in found.items()})
        for slice_name, customers in members.items():
            add_slice(slice_name, by_customer[k].loc[by_customer[k].index.isin(customers)], k)
        if candidates_new is not None:
            new_targets = _new_targets(targets, history_pairs, candidates_new, k=k)
            add_slice("new", customer_metrics(candidates_new, new_targets, k=k), k, ("map", "recall", "ndcg"))
        figures.update(describe_lists(candidates, articles, k=k, **options))
    if cold_start_articles is not None:
        cold = targets.loc[targets["article_index"].isin(cold_start_articles)]
        add_slice("cold_start_articles", customer_metrics(candidates, cold, k=num_new_arrivals), num_new_arrivals)
    figures[f"recall@{recall_at}"] = _intervals(measure_customers(hits, k=recall_at)[["recall"]], **options)["recall"]
    listed = first_places(candidates, k=recall_at)["customer_index"].to_numpy()
    lengths = np.bincount(listed, minlength=int(hits.customer_index.max()) + 1)[hits.customer_index]
    for k in sorted({*ks, recall_at}):
        figures[f"fewer_candidates@{k}"] = _exact(int((lengths < k).sum()))
    return Scorecard(
        figures=figures,
        curve=trace_accuracy(hits.first(recall_at)),
        sources=count_sources(candidates, targets, k=ks[0]),
        by_customer=by_customer[ks[0]]["map"],
    )
