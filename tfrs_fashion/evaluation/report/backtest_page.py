"""The page of a rolling back-test: recommenders over several windows, pooled and per window."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from tfrs_fashion.evaluation.document import render, to_json_types, write_json, write_text
from tfrs_fashion.evaluation.metrics.bootstrap import bootstrap_interval, compare_recommenders
from tfrs_fashion.evaluation.report.metric_tables import format_metric, headline_columns, headline_table, make_table
from tfrs_fashion.evaluation.report.scorecard import Metrics
from tfrs_fashion.evaluation.report.verdict import decide
from tfrs_fashion.schema import InputError


@dataclass(frozen=True)
class BacktestWindow:
    """A window of a back-test.

    Attributes:
        start: First day of the window; all fits end before it.
        customers: Number of customers who bought in it.
    """

    start: str
    customers: int


def pool_customers(rows: pd.DataFrame, metrics: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Averages each recommender's metrics over the windows in which a customer bought, so that each customer counts once.

    Windows of one customer are not independent, so an interval over rows would be too narrow.

    Args:
        rows: `recommender, window, customer_index` and metrics; NaN where a metric is undefined for a customer and window.
        metrics: Columns to average.

    Returns:
        The metrics by `customer_index` for each recommender, in the order of `rows`; NaN where undefined in all windows.

    Raises:
        InputError: Recommenders were evaluated on different customers, or a customer occurs twice in a window.
    """
    if twice := int(rows.duplicated(["recommender", "window", "customer_index"]).sum()):
        raise InputError(f"back-test: {twice:,} row(s) repeat a customer of a window. Evaluate the windows again.")
    by_recommender = {str(name): group for name, group in rows.groupby("recommender", sort=False)}
    pairs = {
        name: pd.MultiIndex.from_frame(group[["window", "customer_index"]]).sort_values()
        for name, group in by_recommender.items()
    }
    for name, index in pairs.items():
        first = next(iter(pairs))
        if not index.equals(pairs[first]):
            raise InputError(
                f"back-test: {name} was evaluated on {len(index):,} (window, customer) pairs and {first} on "
                f"{len(pairs[first]):,} that are not the same. Evaluate the windows again."
            )
    return {name: group.groupby("customer_index")[[*metrics]].mean() for name, group in by_recommender.items()}


def _intervals(pooled: pd.DataFrame, **settings: Any) -> Metrics:
    return {
        metric: bootstrap_interval(defined, **settings)._asdict()
        for metric in pooled.columns
        if len(defined := pooled[metric].dropna())
    }


def write_backtest(
    folder: Path,
    rows: pd.DataFrame,
    *,
    title: str,
    windows: Sequence[BacktestWindow],
    chosen_on: str,
    chosen: Mapping[str, Mapping[str, Any]],
    baselines: Sequence[str],
    k: int,
    new_arrivals: Sequence[str] = (),
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Writes `metrics.json`, `backtest.html`, and the main table as `backtest.md`.

    Args:
        folder: Output folder; created if missing.
        rows: One row per recommender, window and customer who bought in it; see `pool_customers`.
        title: Name of the pipeline.
        windows: Windows, oldest first.
        chosen_on: First day of the window on which settings were chosen.
        chosen: Chosen settings by recommender.
        baselines: Recommenders with which the others are compared.
        k: Length of the lists; recommenders are compared on `map@k`.
        new_arrivals: Recommenders of articles never sold before, which are not compared with the others.
        num_samples: Number of bootstrap samples.
        seed: Seed of the samples.

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: See `pool_customers`.
    """
    headline = f"map@{k}"
    settings: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    metrics = [name for name in rows.columns if "@" in name]
    pooled = pool_customers(rows, metrics)
    compared = {name: metrics[headline] for name, metrics in pooled.items() if name not in new_arrivals}
    options: dict[str, Any] = {
        "baselines": [name for name in baselines if name in compared],
        "metric": headline,
        **settings,
    }
    by_window = {
        str(name): group.groupby("window")[headline].mean().to_dict()
        for name, group in rows.groupby("recommender", sort=False)
    }
    comparisons = compare_recommenders(compared, **options)
    document: dict[str, Any] = to_json_types(
        {
            "title": title,
            "chosen_on": chosen_on,
            "chosen": chosen,
            "windows": [asdict(window) for window in windows],
            "customers": rows["customer_index"].nunique(),
            "k": k,
            "metrics": metrics,
            "recommenders": {name: _intervals(values, **settings) for name, values in pooled.items()},
            "by_window": by_window,
            "verdict": asdict(decide(compared, num_windows=len(windows), **options)),
            "differences": [{**asdict(row), "sentence": row.sentence} for row in comparisons],
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", document)
    write_text(folder / "backtest.md", backtest_markdown(document))
    table = make_table(document["recommenders"], metrics)
    write_text(folder / "backtest.html", render("backtest.html", document=document, headline=headline, table=table))
    return document


def backtest_table(document: Mapping[str, Any]) -> Table:
    """Lays out the headline metrics for a terminal, from the result of `write_backtest`."""
    title = f"{document['customers']:,} customers in {len(document['windows'])} window(s)"
    return headline_table(title, document["recommenders"])


def backtest_markdown(document: Mapping[str, Any]) -> str:
    """Lays out the recommenders as a Markdown table, from the result of `write_backtest`."""
    headline, *others = headline_columns(document["metrics"])
    differences = {(row["recommender"], row["baseline"]): row["difference"] for row in document["differences"]}
    baselines = list(dict.fromkeys(baseline for _name, baseline in differences))
    head = ["recommender", f"{headline} (95%)", *others, *(f"against {baseline}" for baseline in baselines)]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for name, metrics in document["recommenders"].items():
        cells = [f"`{name}`", " ".join(format_metric(headline, metrics.get(headline))).strip()]
        cells += [format_metric(column, metrics.get(column))[0] for column in others]
        for baseline in baselines:
            difference = differences.get((name, baseline))
            if difference is None or difference["relative"] is None or difference["relative_low"] is None:
                cells.append("")
                continue
            low, high = difference["relative_low"], difference["relative_high"]
            cells.append(f"{difference['relative']:+.1%} ({low:+.1%} to {high:+.1%})")
        lines.append(f"| {' | '.join(cells)} |")
    windows = ", ".join(f"{window['start']} ({window['customers']:,})" for window in document["windows"])
    lines += ["", f"{document['customers']:,} customers. Windows from (customers): {windows}."]
    return "\n".join(lines) + "\n"
