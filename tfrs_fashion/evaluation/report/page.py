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
import rich.box
from rich.markup import escape
from rich.table import Table

from tfrs_fashion.evaluation.checks.doctor import Examination
from tfrs_fashion.evaluation.document import render, to_json_types, write_json, write_text
from tfrs_fashion.evaluation.drawing import STYLE, format_share, shorten, write_png
from tfrs_fashion.evaluation.figure import Figure
from tfrs_fashion.evaluation.metrics.bootstrap import Comparison
from tfrs_fashion.evaluation.metrics.customer_metrics import CUSTOMER_METRICS
from tfrs_fashion.evaluation.report.accuracy_figure import draw_accuracy
from tfrs_fashion.evaluation.report.cluster_sections import ClusterSection
from tfrs_fashion.evaluation.report.contributions import name_bands
from tfrs_fashion.evaluation.report.measured_section import MeasuredSection
from tfrs_fashion.evaluation.report.scorecard import Figures, Scorecard
from tfrs_fashion.evaluation.report.verdict import Verdict
from tfrs_fashion.schema import InputError, RowCount

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
    "popularity_mean": "Mean share of customers who had bought the shown article.",
    "price_mean": "Mean price of the shown articles, in the source's currency.",
    "fewer_candidates": "Customers who were given fewer articles than that.",
    "customers": "Customers in the slice: those with at least one such purchase in the window.",
}
COUNTS = ("customers", "fewer_candidates")
ACCURACY_ORDER = tuple(name for name in MEANINGS if name in CUSTOMER_METRICS)
# Metrics in the table of near misses, and the groups an article may share with what was bought.
NEAR_MISSES, GROUPS = ("hit_rate", "recall"), ("product", "category")
METRIC_NAME = re.compile(r"(?P<name>[a-z_]+)@(?P<k>\d+)(?:_(?P<slice>.+))?")


def _format(metric: str, figure: Mapping[str, float | None] | None) -> tuple[str, str]:
    """A figure and its interval in words; the interval is empty where it has no width."""
    if figure is None or figure["value"] is None:
        return "-", ""
    if metric.split("@")[0] in COUNTS or metric.startswith("num_"):
        return f"{figure['value']:,.0f}", ""
    style = ",.0f" if metric.startswith("rank_q") else ".4f"
    value, low, high = figure["value"], figure["low"], figure["high"]
    if low is None or high is None:
        return f"{value:{style}}", ""
    # A width that rounding made, or that does not show, is none.
    bounds = f"{low:{style}}", f"{high:{style}}"
    return f"{value:{style}}", f"({bounds[0]} to {bounds[1]})" if bounds[0] != bounds[1] else ""


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


def _table_of_all(recommenders: Mapping[str, Figures]) -> dict[str, Any]:
    return _table(recommenders, list(dict.fromkeys(metric for figures in recommenders.values() for metric in figures)))


def _near_misses(recommenders: Mapping[str, Figures], names: Sequence[str]) -> dict[str, Any]:
    """The table of what is a hit if an article of the same group counts, beside what is one anyway."""
    found = [METRIC_NAME.fullmatch(name) for name in names]
    groups = sorted({(int(name["k"]), name["slice"]) for name in found if name is not None and name["slice"] in GROUPS})
    columns = [
        (f"{metric}@{k}", group)
        for k in sorted({k for k, _group in groups})
        for metric in NEAR_MISSES
        for group in ("article", *(group for group in GROUPS if (k, group) in groups))
    ]
    table = _table(recommenders, [metric if group == "article" else f"{metric}_{group}" for metric, group in columns])
    notes = [f"same {group}" for _metric, group in columns]
    shown = [group for group in GROUPS if any(group == found for _metric, found in columns)]
    return {**table, "columns": [metric for metric, _group in columns], "notes": notes, "groups": shown}


def _groups_of_customers(recommenders: Mapping[str, Figures], headline: str) -> dict[str, dict[str, Any]]:
    """For each dimension of the slices a table of recommenders by group, the best of each group marked."""
    dimensions: dict[str, list[str]] = {}
    k = headline.removeprefix("map@")
    for name in dict.fromkeys(name for figures in recommenders.values() for name in figures):
        dimension, equals, group = name.removeprefix(f"customers@{k}_").partition("=")
        if equals and name.startswith(f"customers@{k}_"):
            dimensions.setdefault(dimension, []).append(group)
    tables = {}
    for dimension, groups in dimensions.items():
        metrics = [f"{headline}_{dimension}={group}" for group in groups]
        table = _table(recommenders, metrics)
        sizes = [
            max(
                figures.get(f"customers@{k}_{dimension}={group}", {}).get("value", 0)
                for figures in recommenders.values()
            )
            for group in groups
        ]
        for metric in metrics:
            values = [figures.get(metric, {}).get("value") or 0.0 for figures in recommenders.values()]
            for row, value in zip(table["rows"], values, strict=True):
                row["best"] = [*row.get("best", []), value > 0 and value == max(values)]
        notes = [f"{size:,.0f} customer{'' if size == 1 else 's'}" for size in sizes]
        tables[dimension.replace("_", " ")] = {**table, "columns": groups, "notes": notes}
    return tables


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
    section.assigned.to_csv(folder / f"{section.name}.csv", index=False)
    return _write_figure(section.figure, folder)


def _draw_accuracy(scorecards: Mapping[str, Scorecard], folder: Path, *, customers: int) -> tuple[Any, str]:
    """Draws and writes the curves of accuracy; returns the figure, and its address for the page. None without any."""
    curves = {name: card.curve for name, card in scorecards.items() if card.curve is not None}
    if not curves:
        return None, ""
    lengths = [int(name.removeprefix("map@")) for card in scorecards.values() for name in card.figures if _is_map(name)]
    with matplotlib.rc_context(STYLE):
        figure = draw_accuracy(curves, k=min(lengths, default=12), customers=customers)
    return figure, _write_figure(figure, folder)


def _write_figure(figure: Figure, folder: Path) -> str:
    """Writes a figure, and returns it as an address for the page."""
    (folder / "figures").mkdir(exist_ok=True)
    with matplotlib.rc_context(STYLE):
        return write_png(figure.axes, folder / "figures" / f"{figure.name}.png")


def _is_map(metric: str) -> bool:
    return re.fullmatch(r"map@\d+", metric) is not None


def _render(
    document: dict[str, Any],
    comparisons: Sequence[Comparison],
    curves: list[dict[str, Any]],
    clusters: Sequence[ClusterSection],
    sources: Mapping[str, str],
    accuracy_figure: tuple[Any, str],
    examination: Examination | None,
    blend: Mapping[str, Any] | None,
    measured: Sequence[MeasuredSection],
) -> str:
    recommenders = document["recommenders"]
    apart = [(section, _table_of_all(section.figures)) for section in measured]
    found_names = {metric for figures in recommenders.values() for metric in figures}
    names = sorted(found_names - {name for _section, table in apart for name in table["columns"]}, key=_metric_order)
    parsed = {metric: METRIC_NAME.fullmatch(metric) for metric in names}
    of_slice: dict[str, list[str]] = {}
    accuracy, lists = [], []
    for metric, found in parsed.items():
        if found is not None and found["slice"]:
            if found["slice"] in GROUPS or "=" in found["slice"]:
                continue
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
        lists=_table(
            {**recommenders, **({"what is bought": document["bought"]} if "bought" in document else {})}, lists
        ),
        measured=apart,
        near_misses=_near_misses(recommenders, names),
        groups=_groups_of_customers(recommenders, headline),
        accuracy_figure=accuracy_figure[0],
        accuracy_source=accuracy_figure[1],
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
    recommenders: Mapping[str, Scorecard],
    bought: Figures | None = None,
    verdict: Verdict | None = None,
    comparisons: Sequence[Comparison] = (),
    counts: Iterable[RowCount | tuple[str, str, int]] = (),
    notes: Sequence[str] = (),
    descriptions: Mapping[str, str] | None = None,
    training_curves: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    clusters: Sequence[ClusterSection] = (),
    examination: Examination | None = None,
    blend: Mapping[str, Any] | None = None,
    measured: Sequence[MeasuredSection] = (),
) -> tuple[Path, Path]:
    """Writes `metrics.json` and `report.html`, figures, and for each section on clusters `<name>.csv`.

    Args:
        folder: Where to; made if it does not exist.
        split: The split's dates and rule, by name.
        customers: Customers with a purchase in the window.
        artifact: Hash of each recommender's artifact.
        recommenders: From `evaluate_recommender`, by recommender, in the order of the report's rows.
        bought: From `describe_purchases`, a row beside those of the lists.
        verdict: From `decide`.
        comparisons: From `compare_recommenders`.
        counts: (table, rule, rows): what was dropped or changed on the way.
        notes: What a reader has to know, one sentence each.
        descriptions: What each recommender does, a sentence each.
        training_curves: For each model, the values of each series by epoch.
        clusters: Of articles, of customers.
        examination: From `doctor.examine`.
        blend: A `contributions.BlendEvidence` as JSON, if there is a blend.
        measured: From `describe_ranking` and the like; their figures stand beside those of `recommenders`.

    Returns:
        The paths of `metrics.json` and of `report.html`.
    """
    figures = {name: dict(card.figures) for name, card in recommenders.items()}
    for section in measured:
        for name, found in section.figures.items():
            figures[name] |= found
    rows = [asdict(row if isinstance(row, RowCount) else RowCount(*row)) for row in counts]
    document = to_json_types(
        {
            "split": split,
            "customers": int(customers),
            "artifact": artifact,
            "recommenders": figures,
            **({} if descriptions is None else {"descriptions": descriptions}),
            **({} if bought is None else {"bought": bought}),
            **({} if verdict is None else {"verdict": asdict(verdict)}),
            "sources": {name: [asdict(source) for source in card.sources] for name, card in recommenders.items()},
            "differences": [{**asdict(found), "sentence": found.sentence} for found in comparisons],
            "data": {"counts": rows, "notes": list(notes)},
            **({} if examination is None else asdict(examination)),
            **({} if blend is None else {"blend": blend}),
            **({"clusters": {section.name: _list_clusters(section) for section in clusters}} if clusters else {}),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    accuracy_figure = _draw_accuracy(recommenders, folder, customers=customers)
    if accuracy_figure[0] is not None:
        document["curves"] = to_json_types(accuracy_figure[0].data)
    sources = {section.name: _write_section(section, folder) for section in clusters}
    for section in measured:
        document[section.name] = to_json_types(section.figure.data)
        sources[section.figure.name] = _write_figure(section.figure, folder)
    trained = _curves(training_curves or {})
    html = _render(document, comparisons, trained, clusters, sources, accuracy_figure, examination, blend, measured)
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
