"""A recommender's figures with their intervals, and the report that lays recommenders side by side.

`metrics.json` is for programs, `report.html` for people: one file with no script and nothing to download.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import rich.box
from rich.markup import escape
from rich.table import Table

from tfrs_fashion.evaluation.cluster_sections import ClusterSection
from tfrs_fashion.evaluation.compare import Comparison, bootstrap_interval
from tfrs_fashion.evaluation.contributions import name_bands
from tfrs_fashion.evaluation.doctor import Examination
from tfrs_fashion.evaluation.document import render, to_json_types, write_json, write_text
from tfrs_fashion.evaluation.drawing import STYLE, format_share, shorten, write_png
from tfrs_fashion.evaluation.metrics import (
    CUSTOMER_METRICS,
    ArticleStatistics,
    contains,
    customer_list_metrics,
    customer_metrics,
    exposure_metrics,
    pair_keys,
)
from tfrs_fashion.schema import FIRST_INDEX, InputError, RowCount

Figure = dict[str, float]
Figures = dict[str, Figure]

MEANINGS = {
    "map": "Mean average precision: how many of the shown articles were bought, counting early places more.",
    "recall": "Share of what a customer bought that the list holds; at 200 it bounds what a ranker can reach.",
    "precision": "Share of the list's places that were bought.",
    "ndcg": "Like MAP, with a gentler discount of later places; 1 is the best order possible.",
    "hit_rate": "Share of customers who bought anything from their list.",
    "mrr": "Mean of 1 / rank of the first article that was bought.",
    "coverage": "Share of in-store articles that anyone is shown.",
    "popularity_gini": "How unevenly articles are shown: 0 is all alike, near 1 is a few articles for everybody.",
    "novelty": "Mean of -log2 of the share of customers who had bought the shown article: higher is less known.",
    "diversity": "1 - mean cosine similarity of a list's articles: higher is more varied.",
    "price_mean": "Mean price of the shown articles, in the source's currency.",
    "fewer_candidates": "Customers who were given fewer articles than that.",
    "customers": "Customers in the slice: those with at least one such purchase in the window.",
}
COUNTS = ("customers", "fewer_candidates")
ACCURACY_ORDER = tuple(name for name in MEANINGS if name in CUSTOMER_METRICS)
METRIC_NAME = re.compile(r"(?P<name>[a-z_]+)@(?P<k>\d+)(?:_(?P<slice>.+))?")


def _exact(value: float) -> Figure:
    """A count, or a description of the very lists that were shown: not a sample, so without an interval."""
    return {"value": float(value), "low": float(value), "high": float(value)}


def _intervals(values: pd.DataFrame, *, num_samples: int, seed: int, window: str) -> Figures:
    interval = bootstrap_interval(values, num_samples=num_samples, seed=seed, window=window)
    return {
        str(name): {"value": float(value), "low": float(low), "high": float(high)}
        for name, value, low, high in zip(values.columns, *interval, strict=True)
    }


def _new_targets(
    targets: pd.DataFrame, history_pairs: pd.DataFrame, candidates_new: pd.DataFrame, *, k: int
) -> pd.DataFrame:
    bought = np.unique(pair_keys(history_pairs))
    shown = candidates_new.loc[candidates_new["rank"].to_numpy() <= k]
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
) -> Figures:
    """Computes every figure of one recommender.

    Args:
        candidates: Candidates, `recall_at` a customer where there are as many.
        candidates_new: Candidates from which what the customer had bought was excluded before top-k; without
            them there are no `*_new` figures.
        targets: (`customer_index`, `article_index`) bought in the window.
        history_pairs: (`customer_index`, `article_index`) bought before the cutoff.
        articles: What is known about the articles.
        ks: Lengths of the lists that are measured.
        recall_at: Number of candidates whose recall is measured.
        slices: Groups of customers by name, e.g. `cold_start_customers`, as customer_index.
        cold_start_articles: Articles never sold before the cutoff, as article_index: a slice of the targets.
        num_new_arrivals: Length of the lists on which that slice is judged.
        num_samples: Bootstrap samples.
        seed: Fixes the bootstrap samples.
        window: What to call the window in messages, e.g. its dates.

    Returns:
        `{"value", "low", "high"}` by metric. For each k, means over the customers of `targets`: `map@k`, `recall@k`,
        `precision@k`, `ndcg@k`, `hit_rate@k`, `mrr@k`; `recall@{recall_at}`; `map@k_new` and `recall@k_new`, over
        customers who bought something they had never bought; `map@k_cold_start_articles` and `recall@k_cold_start_articles`
        with k = num_new_arrivals, over customers who bought an article that nobody had; `map@k_SLICE`, `recall@k_SLICE`. Over all lists given:
        `coverage@k`, `popularity_gini@k`, `novelty@k`, `price_mean@k`, `diversity@k`, where defined.
        Counts: `customers@k_new`, `customers@k_SLICE`, and `fewer_candidates@k`, the customers of `targets` with
        fewer than k candidates. Counts, coverage and Gini describe what was shown, so low = high = value.

    Raises:
        InputError: The window has no customer, or `candidates_new` holds articles that were bought before.
    """
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "window": window}
    figures: Figures = {}

    def add_slice(slice_name: str, values: pd.DataFrame, k: int) -> None:
        figures[f"customers@{k}_{slice_name}"] = _exact(len(values))
        if len(values):
            found = _intervals(values[["map", "recall"]], **options)
            figures.update({f"{name}@{k}_{slice_name}": figure for name, figure in found.items()})

    for k in ks:
        by_customer = customer_metrics(candidates, targets, k=k)
        found = _intervals(by_customer[list(CUSTOMER_METRICS)], **options)
        figures.update({f"{name}@{k}": figure for name, figure in found.items()})
        for slice_name, customers in (slices or {}).items():
            members = np.fromiter(customers, dtype=np.int64)
            add_slice(slice_name, by_customer.loc[by_customer.index.isin(members)], k)
        if candidates_new is not None:
            new_targets = _new_targets(targets, history_pairs, candidates_new, k=k)
            add_slice("new", customer_metrics(candidates_new, new_targets, k=k), k)
        exposure = exposure_metrics(candidates, k=k, in_store=articles.in_store)
        figures.update({f"{name}@{k}": _exact(value) for name, value in exposure.items()})
        by_list = customer_list_metrics(candidates, articles, k=k)
        for column in by_list.columns[by_list.notna().any()]:
            figures[f"{column}@{k}"] = _intervals(by_list[[column]].dropna(), **options)[column]
    if cold_start_articles is not None:
        cold = targets.loc[targets["article_index"].isin(cold_start_articles)]
        add_slice("cold_start_articles", customer_metrics(candidates, cold, k=num_new_arrivals), num_new_arrivals)
    recall = customer_metrics(candidates, targets, k=recall_at)[["recall"]]
    figures[f"recall@{recall_at}"] = _intervals(recall, **options)["recall"]
    list_lengths = candidates.loc[candidates["rank"] <= recall_at, "customer_index"].value_counts()
    lengths = list_lengths.reindex(recall.index, fill_value=0).to_numpy()
    for k in sorted({*ks, recall_at}):
        figures[f"fewer_candidates@{k}"] = _exact(int((lengths < k).sum()))
    return figures


def _format(metric: str, figure: Mapping[str, float | None] | None) -> tuple[str, str]:
    """A figure and its interval in words; the interval is empty where it has no width."""
    if figure is None or figure["value"] is None:
        return "-", ""
    if metric.split("@")[0] in COUNTS:
        return f"{figure['value']:,.0f}", ""
    low, high = figure["low"], figure["high"]
    has_width = low is not None and high is not None and low < high
    return f"{figure['value']:.4f}", f"({low:.4f} to {high:.4f})" if has_width else ""


def _metric_order(metric: str) -> tuple[int, int, str]:
    found = METRIC_NAME.fullmatch(metric)
    names = list(MEANINGS)
    if found is None or found["name"] not in names:
        return len(names), 0, metric
    return names.index(found["name"]), int(found["k"]), metric


def _table(recommenders: Mapping[str, Figures], metrics: Sequence[str], *, suffix: str = "") -> dict[str, Any]:
    rows = [
        {"name": name, "cells": [_format(metric, figures.get(metric)) for metric in metrics]}
        for name, figures in recommenders.items()
    ]
    return {"columns": [metric.removesuffix(suffix) for metric in metrics], "rows": rows}


def _dots(recommenders: Mapping[str, Figures], metric: str) -> list[dict[str, Any]]:
    """Places of a value and its interval on a line from 0 to the highest bound, in percent of its width."""
    found = {name: figures.get(metric) for name, figures in recommenders.items()}
    shown = {name: figure for name, figure in found.items() if figure and None not in figure.values()}
    scale = max((figure["high"] for figure in shown.values()), default=0.0) or 1.0
    return [
        {
            "name": name,
            "text": " ".join(_format(metric, figure)),
            **{edge: 2 + 96 * figure[edge] / scale for edge in figure},
        }
        for name, figure in shown.items()
    ]


def _curves(training_curves: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """Each series as points in a 100 x 40 box, its first and last value beside it."""
    curves = []
    for recommender, series in training_curves.items():
        for name, values in series.items():
            finite = [float(value) for value in values if math.isfinite(value)]
            if not finite:
                continue
            low, width = min(finite), (max(finite) - min(finite)) or 1.0
            step = 100 / max(len(finite) - 1, 1)
            points = " ".join(f"{i * step:.2f},{38 - 36 * (value - low) / width:.2f}" for i, value in enumerate(finite))
            curves.append({"name": f"{recommender}: {name}", "points": points, "first": finite[0], "last": finite[-1]})
    return curves


def _list_clusters(section: ClusterSection) -> list[dict[str, Any]]:
    kept = ("number", "size", "figures", "traits", "examples")
    return [{name: found for name, found in asdict(cluster).items() if name in kept} for cluster in section.clusters]


def _write_section(section: ClusterSection, folder: Path) -> str:
    """Writes which cluster each row belongs to, and the map; returns the map as an address that a page can hold."""
    (folder / "figures").mkdir(exist_ok=True)
    section.assigned.to_csv(folder / f"{section.name}.csv", index=False)
    with matplotlib.rc_context(STYLE):
        return write_png(section.figure.axes, folder / "figures" / f"{section.name}.png")


def _render(
    document: dict[str, Any],
    comparisons: Sequence[Comparison],
    curves: list[dict[str, Any]],
    clusters: Sequence[ClusterSection],
    sources: Mapping[str, str],
    examination: Examination | None,
    blend: Mapping[str, Any] | None,
) -> str:
    recommenders = document["recommenders"]
    names = sorted({metric for figures in recommenders.values() for metric in figures}, key=_metric_order)
    parsed = {metric: METRIC_NAME.fullmatch(metric) for metric in names}
    of_slice: dict[str, list[str]] = {}
    accuracy, lists = [], []
    for metric, found in parsed.items():
        if found is not None and found["slice"]:
            of_slice.setdefault(found["slice"], []).append(metric)
        elif found is not None and found["name"] in ACCURACY_ORDER:
            accuracy.append(metric)
        else:
            lists.append(metric)
    headline = "map@12" if "map@12" in names else next((metric for metric in names if metric.startswith("map@")), "")
    used = {found["name"] for found in parsed.values() if found is not None}
    return render(
        "report.html",
        document=document,
        accuracy=_table(recommenders, accuracy),
        lists=_table(recommenders, lists),
        slices={name: _table(recommenders, metrics, suffix=f"_{name}") for name, metrics in of_slice.items()},
        headline=headline,
        dots=_dots(recommenders, headline),
        sentences=[comparison.sentence for comparison in comparisons],
        curves=curves,
        clusters=clusters,
        sources=sources,
        examination=examination,
        blend=blend,
        bands=name_bands(),
        shorten=shorten,
        format_share=format_share,
        meanings={name: meaning for name, meaning in MEANINGS.items() if name in used},
    )


def write_report(
    folder: Path,
    *,
    split: Mapping[str, Any],
    customers: int,
    artifact: Mapping[str, str],
    recommenders: Mapping[str, Figures],
    comparisons: Sequence[Comparison] = (),
    counts: Iterable[RowCount | tuple[str, str, int]] = (),
    notes: Sequence[str] = (),
    training_curves: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    clusters: Sequence[ClusterSection] = (),
    examination: Examination | None = None,
    blend: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Writes `metrics.json` and `report.html`, and for each section on clusters `<name>.csv` and `figures/<name>.png`.

    Args:
        folder: Where to; made if it does not exist.
        split: The split's dates and rule, by name.
        customers: Customers with a purchase in the window.
        artifact: Hash of each recommender's artifact.
        recommenders: Figures from `evaluate_recommender`, by recommender, in the order of the report's rows.
        comparisons: From `compare_recommenders`.
        counts: (table, rule, rows): what was dropped or changed on the way.
        notes: What a reader has to know, one sentence each.
        training_curves: For each model, the values of each series by epoch.
        clusters: Of articles, of customers.
        examination: From `doctor.examine`.
        blend: A `contributions.BlendEvidence` as JSON, if there is a blend.

    Returns:
        The paths of `metrics.json` and of `report.html`.
    """
    rows = [asdict(row if isinstance(row, RowCount) else RowCount(*row)) for row in counts]
    document = to_json_types(
        {
            "split": split,
            "customers": int(customers),
            "artifact": artifact,
            "recommenders": recommenders,
            "differences": [{**asdict(found), "sentence": found.sentence} for found in comparisons],
            "data": {"counts": rows, "notes": list(notes)},
            **({} if examination is None else asdict(examination)),
            **({} if blend is None else {"blend": blend}),
            **({"clusters": {section.name: _list_clusters(section) for section in clusters}} if clusters else {}),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    sources = {section.name: _write_section(section, folder) for section in clusters}
    html = _render(document, comparisons, _curves(training_curves or {}), clusters, sources, examination, blend)
    metrics_path, html_path = folder / "metrics.json", folder / "report.html"
    write_json(metrics_path, document)
    write_text(html_path, html)
    return metrics_path, html_path


def load_metrics(path: Path) -> dict[str, Any]:
    """Reads a `metrics.json`, or the one in a folder.

    Raises:
        InputError: There is no such file, or it is not a report's metrics.
    """
    path = path / "metrics.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Run `tfrs-fashion evaluate` first.") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}). Evaluate again.") from error
    missing = [name for name in ("split", "customers", "artifact", "recommenders") if name not in document]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(f'`{name}`' for name in missing)}. Evaluate again.")
    return document


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Lays out the headline figures for a terminal.

    Args:
        metrics: A `metrics.json` as `load_metrics` reads it.

    Returns:
        One row a recommender: map with its interval, recall, map of new articles, recall of the candidates.
    """
    names = {metric for figures in metrics["recommenders"].values() for metric in figures}
    k, *_rest = sorted(int(found["k"]) for name in names if (found := re.fullmatch(r"map@(?P<k>\d+)", name)))
    deepest = max(int(found["k"]) for name in names if (found := re.fullmatch(r"recall@(?P<k>\d+)", name)))
    columns = [f"map@{k}", f"recall@{k}", f"map@{k}_new", f"recall@{deepest}"]
    # Narrow enough for a terminal of 80 columns.
    table = Table(title=f"{metrics['customers']:,} customers", box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("recommender", no_wrap=True)
    for column in (columns[0], "95% interval", *columns[1:]):
        table.add_column(column, justify="right", no_wrap=True)
    for name, figures in metrics["recommenders"].items():
        (value, interval), *others = [_format(column, figures.get(column)) for column in columns]
        table.add_row(escape(name), value, interval.strip("()"), *[found for found, _interval in others])
    return table
