"""The report that compares recommenders: `metrics.json` for programs, `report.html` for people.

The page is one file without scripts or downloads.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
from rich.table import Table

from tfrs_fashion.evaluation.checks.doctor import Examination
from tfrs_fashion.evaluation.document import render, to_json_types, write_json, write_text
from tfrs_fashion.evaluation.drawing import STYLE, format_share, shorten, write_png
from tfrs_fashion.evaluation.figure import Figure
from tfrs_fashion.evaluation.metrics.bootstrap import Comparison
from tfrs_fashion.evaluation.report.cluster_sections import ClusterSection
from tfrs_fashion.evaluation.report.contributions import name_bands
from tfrs_fashion.evaluation.report.curve_figures import draw_accuracy
from tfrs_fashion.evaluation.report.metric_tables import (
    ACCURACY_ORDER,
    GROUPS,
    MEANINGS,
    METRIC_NAME,
    format_metric,
    headline_table,
    make_customer_group_tables,
    make_near_miss_table,
    make_table,
    metric_order,
)
from tfrs_fashion.evaluation.report.scorecard import Metrics, MetricSection, Scorecard
from tfrs_fashion.evaluation.report.verdict import Verdict
from tfrs_fashion.schema import InputError, RowCount


def _dots(recommenders: Mapping[str, Metrics], metric: str) -> list[dict[str, Any]]:
    """Positions of a metric and its interval on a line from 0 to the highest bound, in percent of its width."""
    values = {name: metrics.get(metric) for name, metrics in recommenders.items()}
    shown = {name: value for name, value in values.items() if value and None not in value.values()}
    scale = max((value["high"] for value in shown.values()), default=0.0) or 1.0
    return [
        {"name": name, "text": " ".join(format_metric(metric, value))}
        | {edge: 2 + 96 * value[edge] / scale for edge in value}
        for name, value in shown.items()
    ]


def _training_curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """Converts each series to points in a 100 x 40 box, with its first and last value."""
    lines = []
    for recommender, series in curves.items():
        for name, values in series.items():
            finite = [float(value) for value in values if math.isfinite(value)]
            if not finite:
                continue
            low, width = min(finite), (max(finite) - min(finite)) or 1.0
            step = 100 / max(len(finite) - 1, 1)
            points = " ".join(f"{i * step:.2f},{38 - 36 * (value - low) / width:.2f}" for i, value in enumerate(finite))
            lines.append({"name": f"{recommender}: {name}", "points": points, "first": finite[0], "last": finite[-1]})
    return lines


def _cluster_rows(section: ClusterSection) -> list[dict[str, Any]]:
    keys = ("number", "size", "figures", "traits", "examples")
    return [{key: value for key, value in asdict(cluster).items() if key in keys} for cluster in section.clusters]


def _draw_curves(scorecards: Mapping[str, Scorecard], *, customers: int) -> Figure | None:
    curves = {name: card.curve for name, card in scorecards.items() if card.curve is not None}
    if not curves:
        return None
    names = [name for card in scorecards.values() for name in card.metrics if re.fullmatch(r"map@\d+", name)]
    k = min((int(name.removeprefix("map@")) for name in names), default=12)
    return draw_accuracy(curves, k=k, customers=customers)


@matplotlib.rc_context(STYLE)
def _write_figures(figures: Iterable[Figure], folder: Path) -> dict[str, str]:
    """Writes figures as PNG files; returns their data URLs by name."""
    images = {}
    for figure in figures:
        folder.mkdir(exist_ok=True)
        images[figure.name] = write_png(figure.axes, folder / f"{figure.name}.png")
    return images


def _metric_tables(document: Mapping[str, Any], sections: Sequence[MetricSection]) -> dict[str, Any]:
    """Sorts all metrics into the tables of the page."""
    recommenders = document["recommenders"]
    measured = [(section, make_table(section.metrics)) for section in sections]
    apart = {name for _section, table in measured for name in table["columns"]}
    names = {metric for metrics in recommenders.values() for metric in metrics} - apart
    ordered = sorted(names, key=metric_order)
    parsed = {metric: METRIC_NAME.fullmatch(metric) for metric in ordered}
    slices: dict[str, list[str]] = {}
    accuracy, lists = [], []
    for metric, match in parsed.items():
        if match is not None and match["slice"]:
            if match["slice"] not in GROUPS and "=" not in match["slice"]:
                slices.setdefault(match["slice"], []).append(metric)
        elif match is not None and match["name"] in ACCURACY_ORDER:
            accuracy.append(metric)
        else:
            lists.append(metric)
    headline = "map@12" if "map@12" in names else next((name for name in ordered if name.startswith("map@")), "")
    used = {match["name"] for match in parsed.values() if match is not None}
    bought = {"what is bought": document["bought"]} if "bought" in document else {}
    return {
        "headline": headline,
        "dots": _dots(recommenders, headline),
        "accuracy": make_table(recommenders, accuracy),
        "lists": make_table({**recommenders, **bought}, lists),
        "measured": measured,
        "near_misses": make_near_miss_table(recommenders, ordered),
        "groups": make_customer_group_tables(recommenders, headline),
        "slices": {name: make_table(recommenders, metrics, suffix=f"_{name}") for name, metrics in slices.items()},
        "meanings": {name: meaning for name, meaning in MEANINGS.items() if name in used},
    }


def write_report(
    folder: Path,
    *,
    split: Mapping[str, Any],
    customers: int,
    artifact: Mapping[str, str],
    recommenders: Mapping[str, Scorecard],
    bought: Metrics | None = None,
    verdict: Verdict | None = None,
    comparisons: Sequence[Comparison] = (),
    counts: Iterable[RowCount | tuple[str, str, int]] = (),
    notes: Sequence[str] = (),
    descriptions: Mapping[str, str] | None = None,
    training_curves: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    clusters: Sequence[ClusterSection] = (),
    examination: Examination | None = None,
    blend: Mapping[str, Any] | None = None,
    measured: Sequence[MetricSection] = (),
) -> tuple[Path, Path]:
    """Writes `metrics.json`, `report.html`, figures, and `<name>.csv` for each section on clusters.

    Args:
        folder: Output folder; created if missing.
        split: Dates and rule of the split, by name.
        customers: Number of customers with a purchase in the window.
        artifact: Hash of each recommender's artifact.
        recommenders: Scorecards from `evaluate_recommender` by recommender, in the order of the report's rows.
        bought: Metrics of the purchases from `describe_purchases`, an extra row beside those of the lists.
        verdict: Verdict from `decide`.
        comparisons: Comparisons from `compare_recommenders`.
        counts: (table, rule, rows) of dropped or changed rows.
        notes: Remarks for the reader, one sentence each.
        descriptions: One sentence per recommender on what it does.
        training_curves: Values of each series by epoch, by model.
        clusters: Sections on clusters of articles and of customers.
        examination: Examination from `doctor.examine`.
        blend: A `contributions.BlendEvidence` as JSON, if there is a blend.
        measured: Sections from `describe_ranking` and the like, whose metrics are added to those of `recommenders`.

    Returns:
        The paths of `metrics.json` and of `report.html`.
    """
    metrics = {name: dict(card.metrics) for name, card in recommenders.items()}
    for section in measured:
        for name, values in section.metrics.items():
            metrics[name] |= values
    rows = [asdict(row if isinstance(row, RowCount) else RowCount(*row)) for row in counts]
    accuracy_figure = _draw_curves(recommenders, customers=customers)
    document = to_json_types(
        {
            "split": split,
            "customers": int(customers),
            "artifact": artifact,
            "recommenders": metrics,
            **({} if descriptions is None else {"descriptions": descriptions}),
            **({} if bought is None else {"bought": bought}),
            **({} if verdict is None else {"verdict": asdict(verdict)}),
            "sources": {name: [asdict(source) for source in card.sources] for name, card in recommenders.items()},
            "differences": [{**asdict(row), "sentence": row.sentence} for row in comparisons],
            "data": {"counts": rows, "notes": list(notes)},
            **({} if examination is None else asdict(examination)),
            **({} if blend is None else {"blend": blend}),
            **({"clusters": {section.name: _cluster_rows(section) for section in clusters}} if clusters else {}),
            **({} if accuracy_figure is None else {"curves": accuracy_figure.data}),
            **{section.name: section.figure.data for section in measured},
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    figures = [*(section.figure for section in clusters), *(section.figure for section in measured)]
    images = _write_figures([*figures, *([accuracy_figure] if accuracy_figure else [])], folder / "figures")
    for cluster_section in clusters:
        cluster_section.assigned.to_csv(folder / f"{cluster_section.name}.csv", index=False)
    html = render(
        "report.html",
        document=document,
        **_metric_tables(document, measured),
        accuracy_figure=accuracy_figure,
        sentences=[comparison.sentence for comparison in comparisons],
        curves=_training_curves(training_curves or {}),
        clusters=clusters,
        images=images,
        examination=examination,
        blend=blend,
        bands=name_bands(),
        shorten=shorten,
        format_share=format_share,
    )
    metrics_path, html_path = folder / "metrics.json", folder / "report.html"
    write_json(metrics_path, document)
    write_text(html_path, html)
    return metrics_path, html_path


def load_metrics(path: Path) -> dict[str, Any]:
    """Reads a `metrics.json`, or the one in a folder.

    Raises:
        InputError: There is no such file, or it does not hold the metrics of a report.
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
    """Lays out the headline metrics of a `metrics.json` for a terminal; see `headline_table`."""
    return headline_table(f"{metrics['customers']:,} customers", metrics["recommenders"])
