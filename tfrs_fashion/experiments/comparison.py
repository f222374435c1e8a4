"""Compares two experiments: what changed between them, and what that did to the metrics."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.document import render, to_json_types, write_json, write_text
from tfrs_fashion.evaluation.metrics.bootstrap import Comparison, paired_difference
from tfrs_fashion.experiments.record import Experiment

# Metrics on the page, in this order; comparison.json has all.
HEADLINES = tuple(
    re.compile(pattern)
    for pattern in (r"map@\d+", r"recall@\d+", r"precision@\d+", r"map@\d+_new", r"coverage@\d+", r"diversity@\d+")
)
# Entries of a split that do not define its test window.
_NOT_WINDOW = ("pipeline", "seed", "validation_as_of", "validation_end")
_SHORT = 12
CAVEAT = (
    "The intervals cover the choice of customers only. Another seed changes metrics too, which a single run of each cannot "
    "show; and one in twenty such intervals is wrong by chance."
)


def flatten(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted key.

    >>> flatten({"seed": 1, "export": {"k": 12, "folder": "saved_models"}})
    {'seed': 1, 'export.k': 12, 'export.folder': 'saved_models'}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{above}.{name}" if above else name
        flat |= flatten(value, key) if isinstance(value, Mapping) and value else {key: value}
    return flat


def list_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, str]]:
    """Lists the differences between two nested mappings.

    Returns:
        `name` (a dotted key), `a` and `b` (values as text, `-` where absent); in the order of `b`, then of `a`.
    """

    def write(settings: dict[str, Any], key: str) -> str:
        value = settings.get(key, "-")
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    before, after = flatten(a), flatten(b)
    return [
        {"name": key, "a": write(before, key), "b": write(after, key)}
        for key in {**after, **before}
        if (key in before, before.get(key)) != (key in after, after.get(key))
    ]


def _window(experiment: Experiment) -> dict[str, Any]:
    return {name: value for name, value in experiment.split.items() if name not in _NOT_WINDOW}


def _describe(experiment: Experiment) -> dict[str, Any]:
    """Returns everything that may differ between two experiments, by kind."""
    return {
        "settings": experiment.config,
        "code": {
            "commit": experiment.git_commit or "unknown",
            "uncommitted changes": {None: "unknown", True: "yes", False: "no"}[experiment.has_uncommitted_changes],
            "source fingerprint": experiment.code_fingerprint[:_SHORT],
            "version": experiment.version,
        },
        "data": {
            "tables and how they were prepared": (experiment.data_fingerprint or "unknown")[:_SHORT],
            "purchases": experiment.purchases_fingerprint[:_SHORT],
            "targets": experiment.targets_fingerprint[:_SHORT],
            **{f"split.{name}": value for name, value in _window(experiment).items()},
        },
        "libraries": experiment.libraries,
    }


def find_obstacles(a: Experiment, b: Experiment) -> list[str]:
    """Returns the reasons why the metrics of two experiments are not comparable; empty if they are."""
    obstacles = []
    if a.purchases_fingerprint != b.purchases_fingerprint:
        obstacles.append(
            "The data differ: other customers, articles or times of purchases (fingerprints "
            f"{a.purchases_fingerprint[:_SHORT]} in A and {b.purchases_fingerprint[:_SHORT]} in B)."
        )
    for change in list_changes(_window(a), _window(b)):
        obstacles.append(f"The split differs: {change['name']} is {change['a']} in A and {change['b']} in B.")
    if not obstacles and a.targets_fingerprint != b.targets_fingerprint:
        obstacles.append("The split differs: the purchases are the same, but B has other targets than A.")
    if a.k != b.k:
        obstacles.append(f"The lists differ: `evaluation.k` is {a.k} in A and {b.k} in B.")
    return obstacles


def compare_customers(
    a: pd.DataFrame, b: pd.DataFrame, *, k: int, num_samples: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Compares each recommender of two experiments with itself, customer by customer.

    Args:
        a: `map@k` of the first experiment by customer_id, one column per recommender.
        b: The same of the second.
        k: Length of the lists.
        num_samples: Number of bootstrap samples.
        seed: Seed of the samples.

    Returns:
        For each recommender of both: `recommender, customers`, `difference` (B minus A, see `paired_difference`) and `sentence`.

    Raises:
        InputError: A value is not finite, or no customer is in both.
    """
    customers = b.index.intersection(a.index, sort=False)
    comparisons = []
    for name in (name for name in b.columns if name in a.columns):
        before, after = a.loc[customers, name], b.loc[customers, name]
        difference = paired_difference(after, before, num_samples=num_samples, seed=seed)
        sentence = Comparison(f"{name} of B", f"{name} of A", f"map@{k}", len(customers), difference).sentence
        if np.array_equal(before, after):
            sentence = f"{name} has the same map@{k} for every customer in A and in B"
        comparisons.append(
            {"recommender": name, "customers": len(customers), "difference": asdict(difference), "sentence": sentence}
        )
    return comparisons


def _decide(obstacles: list[str], differences: list[dict[str, Any]], *, k: int) -> dict[str, Any]:
    if obstacles:
        return {"headline": "These runs are not comparable", "reasons": obstacles}
    if not differences:
        return {"headline": "No recommender is in both runs", "reasons": []}
    better = sum(row["difference"]["low"] > 0 for row in differences)
    worse = sum(row["difference"]["high"] < 0 for row in differences)
    return {
        "headline": f"B against A on map@{k}: {better} better, {worse} worse, {len(differences) - better - worse} not significant",
        "reasons": [*(row["sentence"] for row in differences), CAVEAT],
    }


def make_comparison(
    a: Experiment,
    b: Experiment,
    customers_a: pd.DataFrame,
    customers_b: pd.DataFrame,
    *,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares two experiments.

    Args:
        a: The first experiment; changes are counted from it.
        b: The second.
        customers_a: See `compare_customers`, like the following.
        customers_b: The same of the second.
        num_samples: Number of bootstrap samples.
        seed: Seed of the samples.

    Returns:
        In JSON's types: `a` and `b`; `is_comparable`, and `obstacles` if not; `changes` by kind; `recommenders` (every metric
        of those in both, by recommender, metric and `a` or `b`); `only` in one; `differences`, none unless comparable.

    Raises:
        InputError: See `compare_customers`.
    """
    obstacles = find_obstacles(a, b)
    differences = []
    if not obstacles:
        differences = compare_customers(customers_a, customers_b, k=b.k, num_samples=num_samples, seed=seed)
    before, after, about_a, about_b = a.metrics(), b.metrics(), _describe(a), _describe(b)
    head = ("id", "pipeline", "run_folder", "code", "seed", "split")
    document: dict[str, Any] = {
        letter: {**{name: getattr(one, name) for name in head}, "time": f"{one.time:%Y-%m-%d %H:%M}"}
        for letter, one in (("a", a), ("b", b))
    }
    document |= {
        "k": b.k,
        "is_comparable": not obstacles,
        "obstacles": obstacles,
        "verdict": _decide(obstacles, differences, k=b.k),
        "changes": {kind: list_changes(about_a[kind], about_b[kind]) for kind in about_a},
        "durations": {
            stage: {"a": a.durations.get(stage), "b": b.durations.get(stage)}
            for stage in {**b.durations, **a.durations}
        },
        "recommenders": {
            name: {
                metric: {"a": before[name][metric], "b": value}
                for metric, value in metrics.items()
                if metric in before[name]
            }
            for name, metrics in after.items()
            if name in before
        },
        "only": {
            "a": [name for name in before if name not in after],
            "b": [name for name in after if name not in before],
        },
        "differences": differences,
    }
    converted: dict[str, Any] = to_json_types(document)
    return converted


def _format(value: float | None, low: float | None, high: float | None, style: str = ".4f") -> tuple[str, str]:
    """Formats a value and its interval; the interval is empty if it has no width."""
    if value is None:
        return "-", ""
    has_interval = low is not None and high is not None and low != high
    return f"{value:{style}}", f"({low:{style}} to {high:{style}})" if has_interval else ""


def _format_metric(metric: Mapping[str, float | None] | None) -> tuple[str, str]:
    return _format(metric["value"], metric["low"], metric["high"]) if metric else ("-", "")


def _list_headlines(document: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(metric for metrics in document["recommenders"].values() for metric in metrics)
    return [name for headline in HEADLINES for name in names if headline.fullmatch(name)]


def _make_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row of the main table for each recommender: A, B, and their paired difference if comparable."""
    differences = {row["recommender"]: row["difference"] for row in document["differences"]}
    rows = []
    for name, metrics in document["recommenders"].items():
        difference, metric = differences.get(name), metrics.get(f"map@{document['k']}", {})
        row: dict[str, Any] = {"name": name, "cells": [_format_metric(metric.get(letter)) for letter in ("a", "b")]}
        if difference is not None:
            row["is_significant"] = difference["low"] > 0 or difference["high"] < 0
            row["cells"] += [
                _format(difference["difference"], difference["low"], difference["high"], "+.4f"),
                _format(difference["relative"], difference["relative_low"], difference["relative_high"], "+.1%"),
            ]
        rows.append(row)
    return rows


def write_comparison(folder: Path, document: Mapping[str, Any]) -> tuple[Path, Path]:
    """Writes `comparison.json` and `comparison.html`.

    Args:
        folder: Output folder; created if it does not exist.
        document: From `make_comparison`.

    Returns:
        Both paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    json_path, html_path = folder / "comparison.json", folder / "comparison.html"
    others = [metric for metric in _list_headlines(document) if metric != f"map@{document['k']}"]
    html = render(
        "comparison.html",
        document=document,
        rows=_make_rows(document),
        others=others,
        cells={
            name: {
                letter: [_format_metric(metrics.get(metric, {}).get(letter)) for metric in others] for letter in "ab"
            }
            for name, metrics in document["recommenders"].items()
        },
        titles={"settings": "Settings", "code": "Code", "data": "Data", "libraries": "Library versions"},
    )
    write_json(json_path, document)
    write_text(html_path, html)
    return json_path, html_path
