"""Tables of recommenders by metric, with intervals, for the report's pages and for a terminal."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.box
from rich.markup import escape
from rich.table import Table

from tfrs_fashion.evaluation.metrics.accuracy import ACCURACY_METRICS
from tfrs_fashion.evaluation.report.scorecard import Metrics

MEANINGS = {
    "map": "Mean average precision: how many of the shown articles were bought, with more weight on early places.",
    "recall": "Share of a customer's purchases that the list contains; at 200 it bounds what a ranker can reach.",
    "precision": "Share of the list's places that were bought.",
    "ndcg": "Like MAP, with a gentler discount of later places; 1 is the best possible order.",
    "hit_rate": "Share of customers who bought anything from their list.",
    "mrr": "Mean of 1 / rank of the first article that was bought.",
    "coverage": "Share of in-store articles that are shown to anyone.",
    "popularity_gini": "How unevenly articles are shown: 0 is evenly, near 1 is a few articles to everybody.",
    "novelty": "Mean of -log2 of the share of customers who had bought the shown article: higher is less known.",
    "diversity": "1 - mean cosine similarity of a list's articles: higher is more varied.",
    "popularity_mean": "Mean share of customers who had bought the shown article.",
    "price_mean": "Mean price of the shown articles, in the source's currency.",
    "fewer_candidates": "Customers with fewer candidates than that.",
    "customers": "Customers in the slice: those with at least one such purchase in the window.",
}
COUNTS = ("customers", "fewer_candidates")
ACCURACY_ORDER = tuple(name for name in MEANINGS if name in ACCURACY_METRICS)
# Metrics in the table of near misses, and the groupings of articles by which a near miss counts.
NEAR_MISS_METRICS, GROUPS = ("hit_rate", "recall"), ("product", "category")
METRIC_NAME = re.compile(r"(?P<name>[a-z_]+)@(?P<k>\d+)(?:_(?P<slice>.+))?")


def format_metric(metric: str, value: Mapping[str, float | None] | None) -> tuple[str, str]:
    """Formats a metric and its interval in parentheses, which is empty if it has no visible width."""
    if value is None or value["value"] is None:
        return "-", ""
    if metric.split("@")[0] in COUNTS or metric.startswith("num_"):
        return f"{value['value']:,.0f}", ""
    style = ",.0f" if metric.startswith("rank_q") else ".4f"
    mean, low, high = value["value"], value["low"], value["high"]
    if low is None or high is None:
        return f"{mean:{style}}", ""
    bounds = f"{low:{style}}", f"{high:{style}}"
    return f"{mean:{style}}", f"({bounds[0]} to {bounds[1]})" if bounds[0] != bounds[1] else ""


def metric_order(metric: str) -> tuple[int, int, str]:
    """Returns the sort key of a metric: the order of `MEANINGS`, then the list length."""
    parsed = METRIC_NAME.fullmatch(metric)
    names = list(MEANINGS)
    if parsed is None or parsed["name"] not in names:
        return len(names), 0, metric
    return names.index(parsed["name"]), int(parsed["k"]), metric


def make_table(
    recommenders: Mapping[str, Metrics], metrics: Sequence[str] | None = None, *, suffix: str = ""
) -> dict[str, Any]:
    """Makes a table for the macro `metric_table`, without `suffix` in its columns; of all metrics by default."""
    if metrics is None:
        metrics = list(dict.fromkeys(metric for values in recommenders.values() for metric in values))
    rows = [
        {"name": name, "cells": [format_metric(metric, values.get(metric)) for metric in metrics]}
        for name, values in recommenders.items()
    ]
    return {"columns": [metric.removesuffix(suffix) for metric in metrics], "rows": rows}


def make_near_miss_table(recommenders: Mapping[str, Metrics], names: Sequence[str]) -> dict[str, Any]:
    """Makes the table of metrics that count articles of the same group as hits, beside those of exact hits."""
    parsed = [METRIC_NAME.fullmatch(name) for name in names]
    groups = sorted(
        {(int(name["k"]), name["slice"]) for name in parsed if name is not None and name["slice"] in GROUPS}
    )
    columns = [
        (f"{metric}@{k}", group)
        for k in sorted({k for k, _group in groups})
        for metric in NEAR_MISS_METRICS
        for group in ("article", *(group for group in GROUPS if (k, group) in groups))
    ]
    table = make_table(
        recommenders, [metric if group == "article" else f"{metric}_{group}" for metric, group in columns]
    )
    notes = [f"same {group}" for _metric, group in columns]
    shown = [group for group in GROUPS if any(group == other for _metric, other in columns)]
    return {**table, "columns": [metric for metric, _group in columns], "notes": notes, "groups": shown}


def make_customer_group_tables(recommenders: Mapping[str, Metrics], headline: str) -> dict[str, dict[str, Any]]:
    """Makes a table of the headline metric by customer group for each dimension of the slices; marks each group's best."""
    dimensions: dict[str, list[str]] = {}
    prefix = f"customers@{headline.removeprefix('map@')}_"
    for name in dict.fromkeys(name for values in recommenders.values() for name in values):
        dimension, equals, group = name.removeprefix(prefix).partition("=")
        if equals and name.startswith(prefix):
            dimensions.setdefault(dimension, []).append(group)
    tables = {}
    for dimension, groups in dimensions.items():
        metrics = [f"{headline}_{dimension}={group}" for group in groups]
        table = make_table(recommenders, metrics)
        sizes = [
            max(values.get(f"{prefix}{dimension}={group}", {}).get("value", 0) for values in recommenders.values())
            for group in groups
        ]
        for metric in metrics:
            means = [values.get(metric, {}).get("value") or 0.0 for values in recommenders.values()]
            for row, mean in zip(table["rows"], means, strict=True):
                row["best"] = [*row.get("best", []), mean > 0 and mean == max(means)]
        notes = [f"{size:,.0f} customer{'' if size == 1 else 's'}" for size in sizes]
        tables[dimension.replace("_", " ")] = {**table, "columns": groups, "notes": notes}
    return tables


def headline_columns(names: Iterable[str]) -> list[str]:
    """Chooses the headline metrics: those of the shortest evaluated list, and the recall of the longest."""
    lengths = {
        metric: [int(name.removeprefix(f"{metric}@")) for name in names if re.fullmatch(rf"{metric}@\d+", name)]
        for metric in ("map", "recall")
    }
    k = min(lengths["map"])
    columns = (f"map@{k}", f"recall@{k}", f"precision@{k}", f"map@{k}_new", f"recall@{max(lengths['recall'])}")
    return list(dict.fromkeys(columns))


def headline_table(title: str, recommenders: Mapping[str, Metrics]) -> Table:
    """Lays out the headline metrics for a terminal of 80 columns, one row per recommender."""
    names = list(dict.fromkeys(metric for values in recommenders.values() for metric in values))
    columns = [column for column in headline_columns(names) if not column.startswith("precision")]
    table = Table(title=title, box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("recommender", no_wrap=True)
    for column in (columns[0], "95% interval", *columns[1:]):
        table.add_column(column, justify="right", no_wrap=True)
    for name, values in recommenders.items():
        (mean, interval), *others = [format_metric(column, values.get(column)) for column in columns]
        table.add_row(escape(name), mean, interval.strip("()"), *[text for text, _interval in others])
    return table
