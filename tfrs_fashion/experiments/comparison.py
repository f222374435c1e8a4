"""The page that lays two experiments side by side: what was changed, and what that did."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.document import render, to_json_types, write_json, write_text
from tfrs_fashion.evaluation.metrics.bootstrap import Comparison, paired_difference
from tfrs_fashion.experiments.record import Experiment

# Figures that the page shows, in this order; the rest is in comparison.json.
HEADLINES = tuple(
    re.compile(pattern)
    for pattern in (r"map@\d+", r"recall@\d+", r"precision@\d+", r"map@\d+_new", r"coverage@\d+", r"diversity@\d+")
)
# What a split says beside its window.
_NO_WINDOW = ("pipeline", "seed", "validation_as_of", "validation_end")
_SHORT = 12
CAVEAT = (
    "The intervals tell what other customers would have changed. Another seed moves figures too, which one run of each "
    "cannot show; and of twenty such intervals one is wrong by chance."
)


@dataclass(frozen=True)
class Change:
    """Something that differs between two experiments, in words; `-` where one has no such thing.

    Attributes:
        name: What differs; a dotted key of a setting.
        a: As it was in the first.
        b: As it is in the second.
    """

    name: str
    a: str
    b: str


def flatten(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted key.

    >>> flatten({"seed": 1, "export": {"k": 12, "folder": "saved_models"}})
    {'seed': 1, 'export.k': 12, 'export.folder': 'saved_models'}
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{above}.{name}" if above else name
        found |= flatten(value, key) if isinstance(value, Mapping) and value else {key: value}
    return found


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def list_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    """Lists what differs between two nested mappings, by dotted key, in the order of the second, then of the first."""
    before, after = flatten(a), flatten(b)
    keys = [*after, *(key for key in before if key not in after)]
    return [
        Change(key, *(_words(found[key]) if key in found else "-" for found in (before, after)))
        for key in keys
        if (key in before, before.get(key)) != (key in after, after.get(key))
    ]


def _about(found: Experiment) -> dict[str, Any]:
    """What a run was made by and from, but for its settings."""
    unsure = {None: "unknown", True: "yes", False: "no"}[found.has_uncommitted_changes]
    return {
        "code": {
            "commit": found.git_commit or "unknown",
            "changes not committed": unsure,
            "fingerprint of the source": found.code_fingerprint[:_SHORT],
            "version": found.version,
        },
        "data": {
            "tables, and what prepared them": (found.data_fingerprint or "unknown")[:_SHORT],
            "purchases": found.purchases_fingerprint[:_SHORT],
            "what is to be found": found.targets_fingerprint[:_SHORT],
            **{f"split.{name}": value for name, value in found.split.items() if name not in _NO_WINDOW},
        },
    }


def find_obstacles(a: Experiment, b: Experiment) -> list[str]:
    """Says why the figures of two experiments answer different questions; nothing if they answer the same one."""
    found = []
    if a.purchases_fingerprint != b.purchases_fingerprint:
        found.append(
            "The data differ: other customers, articles or instants of purchases (fingerprints "
            f"{a.purchases_fingerprint[:_SHORT]} in A and {b.purchases_fingerprint[:_SHORT]} in B)."
        )
    window = [
        {name: value for name, value in experiment.split.items() if name not in _NO_WINDOW} for experiment in (a, b)
    ]
    found += [
        f"The split differs: {change.name} is {change.a} in A and {change.b} in B." for change in list_changes(*window)
    ]
    if not found and a.targets_fingerprint != b.targets_fingerprint:
        found.append("The split differs: of the same purchases, others are to be found in B than in A.")
    if a.k != b.k:
        found.append(f"The lists differ: `evaluation.k` is {a.k} in A and {b.k} in B.")
    return found


def compare_customers(
    a: pd.DataFrame, b: pd.DataFrame, *, k: int, num_samples: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Compares each recommender of two experiments with itself, customer by customer.

    Args:
        a: `map@k` by customer_id, one column a recommender.
        b: The same of the second experiment.
        k: Length of the lists.
        num_samples: Bootstrap samples.
        seed: Fixes the samples.

    Returns:
        For each recommender of both: `recommender, customers`, `difference` (B less A, see `paired_difference`) and `sentence`.

    Raises:
        InputError: A value is not finite, or no customer is in both.
    """
    customers = b.index.intersection(a.index, sort=False)
    found = []
    for name in (name for name in b.columns if name in a.columns):
        before, after = a.loc[customers, name], b.loc[customers, name]
        difference = paired_difference(after, before, num_samples=num_samples, seed=seed)
        sentence = Comparison(f"{name} of B", f"{name} of A", f"map@{k}", len(customers), difference).sentence
        if np.array_equal(before, after):
            sentence = f"{name} has the same map@{k} for every customer in A and in B"
        found.append(
            {
                "recommender": name,
                "customers": len(customers),
                "difference": asdict(difference),
                "sentence": sentence,
            }
        )
    return found


def _decide(differences: list[dict[str, Any]], *, k: int) -> dict[str, Any]:
    if not differences:
        return {"headline": "No recommender is in both runs", "reasons": []}
    bounds = [(found["difference"]["low"], found["difference"]["high"]) for found in differences]
    better, worse = sum(low > 0 for low, _high in bounds), sum(high < 0 for _low, high in bounds)
    same = len(bounds) - better - worse
    return {
        "headline": f"B against A on map@{k}: {better} better, {worse} worse, {same} not to be told apart",
        "reasons": [*(found["sentence"] for found in differences), CAVEAT],
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
        a: The first, from which changes are counted.
        b: The second.
        customers_a: `map@k` by customer_id, one column a recommender.
        customers_b: The same of the second.
        num_samples: Bootstrap samples.
        seed: Fixes the samples.

    Returns:
        In JSON's types: `a` and `b`; `is_comparable`, and `obstacles` if it is not; `changes` by kind; `recommenders` (every
        figure of those in both, by recommender, metric and `a` or `b`); `only` in one; `differences`, none unless comparable.

    Raises:
        InputError: See `compare_customers`.
    """
    obstacles = find_obstacles(a, b)
    differences = []
    if not obstacles:
        differences = compare_customers(customers_a, customers_b, k=b.k, num_samples=num_samples, seed=seed)
    before, after = a.figures_by_recommender(), b.figures_by_recommender()
    about = _about(a), _about(b)
    verdict = {"headline": "These runs are not comparable", "reasons": obstacles}
    both = {
        name: {
            metric: {"a": before[name][metric], "b": figure}
            for metric, figure in figures.items()
            if metric in before[name]
        }
        for name, figures in after.items()
        if name in before
    }
    head = ("id", "pipeline", "run_folder", "code", "seed", "split")
    document: dict[str, Any] = to_json_types(
        {
            **{
                letter: {**{name: getattr(found, name) for name in head}, "time": f"{found.time:%Y-%m-%d %H:%M}"}
                for letter, found in (("a", a), ("b", b))
            },
            "k": b.k,
            "is_comparable": not obstacles,
            "obstacles": obstacles,
            "verdict": verdict if obstacles else _decide(differences, k=b.k),
            "changes": {
                "settings": [asdict(change) for change in list_changes(a.config, b.config)],
                **{
                    kind: [asdict(change) for change in list_changes(about[0][kind], about[1][kind])]
                    for kind in about[0]
                },
                "libraries": [asdict(change) for change in list_changes(a.libraries, b.libraries)],
            },
            "durations": {
                stage: {"a": a.durations.get(stage), "b": b.durations.get(stage)}
                for stage in {**b.durations, **a.durations}
            },
            "recommenders": both,
            "only": {
                "a": [name for name in before if name not in after],
                "b": [name for name in after if name not in before],
            },
            "differences": differences,
        }
    )
    return document


def _format(figure: Mapping[str, float | None] | None) -> tuple[str, str]:
    """A figure and its interval in words; the interval is empty where it has no width."""
    if figure is None or figure["value"] is None:
        return "-", ""
    if figure["low"] is None or figure["high"] is None or figure["low"] == figure["high"]:
        return f"{figure['value']:.4f}", ""
    return f"{figure['value']:.4f}", f"({figure['low']:.4f} to {figure['high']:.4f})"


def _format_change(value: float | None, low: float | None, high: float | None, style: str) -> tuple[str, str]:
    if value is None or low is None or high is None:
        return "-", ""
    return f"{value:{style}}", f"({low:{style}} to {high:{style}})" if low != high else ""


def _headlines(document: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(metric for figures in document["recommenders"].values() for metric in figures)
    return [name for headline in HEADLINES for name in names if headline.fullmatch(name)]


def _rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row of the main table for each recommender: A, B, and their paired difference where there is one."""
    differences = {found["recommender"]: found["difference"] for found in document["differences"]}
    rows = []
    for name, figures in document["recommenders"].items():
        found, metric = differences.get(name), figures.get(f"map@{document['k']}", {})
        row: dict[str, Any] = {"name": name, "cells": [_format(metric.get(letter)) for letter in ("a", "b")]}
        if found is not None:
            row["is_sure"] = found["low"] > 0 or found["high"] < 0
            row["cells"].append(_format_change(found["difference"], found["low"], found["high"], "+.4f"))
            relative = (found["relative"], found["relative_low"], found["relative_high"])
            row["cells"].append(_format_change(*relative, "+.1%"))
        rows.append(row)
    return rows


def write_comparison(folder: Path, document: Mapping[str, Any]) -> tuple[Path, Path]:
    """Writes `comparison.json` and `comparison.html`.

    Args:
        folder: Where to; made if it does not exist.
        document: From `make_comparison`.

    Returns:
        The paths of both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    json_path, html_path = folder / "comparison.json", folder / "comparison.html"
    others = [metric for metric in _headlines(document) if metric != f"map@{document['k']}"]
    html = render(
        "comparison.html",
        document=document,
        rows=_rows(document),
        others=others,
        cells={
            name: {letter: [_format(figures.get(metric, {}).get(letter)) for metric in others] for letter in ("a", "b")}
            for name, figures in document["recommenders"].items()
        },
        titles={"settings": "Settings", "code": "Code", "data": "Data", "libraries": "Library versions"},
    )
    write_json(json_path, document)
    write_text(html_path, html)
    return json_path, html_path
