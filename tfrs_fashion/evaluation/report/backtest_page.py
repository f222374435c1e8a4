"""The page of a rolling back-test: recommenders over several windows, pooled and window by window."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import rich.box
from rich.markup import escape
from rich.table import Table

from tfrs_fashion.evaluation.document import render, to_json_types, write_json, write_text
from tfrs_fashion.evaluation.metrics.bootstrap import Interval, bootstrap_interval, compare_recommenders
from tfrs_fashion.evaluation.report.verdict import decide
from tfrs_fashion.schema import InputError


@dataclass(frozen=True)
class BacktestWindow:
    """A window of a back-test.

    Attributes:
        start: Its first day; all fits end before it.
        customers: Who bought in it.
    """

    start: str
    customers: int


def pool_customers(rows: pd.DataFrame, metrics: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Makes one row a customer of each recommender: who bought in several windows counts once, by the mean over these.

    Windows of one customer are no independent measurements, so that an interval over rows would be too narrow.

    Args:
        rows: `recommender, window, customer_index` and metrics; NaN where a metric does not concern a customer in a window.
        metrics: Columns to pool.

    Returns:
        For each recommender, in the order of `rows`, the metrics by `customer_index`; NaN where they never concern one.

    Raises:
        InputError: Two recommenders were judged by different customers, or one customer twice in a window.
    """
    if twice := int(rows.duplicated(["recommender", "window", "customer_index"]).sum()):
        raise InputError(f"back-test: {twice:,} row(s) repeat a customer of a window. Judge the windows anew.")
    judged = {str(name): found for name, found in rows.groupby("recommender", sort=False)}
    pairs = {
        name: pd.MultiIndex.from_frame(found[["window", "customer_index"]]).sort_values()
        for name, found in judged.items()
    }
    for name, found in pairs.items():
        first = next(iter(pairs))
        if not found.equals(pairs[first]):
            raise InputError(
                f"back-test: {name} was judged by {len(found):,} customers of windows and {first} by "
                f"{len(pairs[first]):,} that are not the same. Judge the windows anew."
            )
    return {name: found.groupby("customer_index")[[*metrics]].mean() for name, found in judged.items()}


def _figures(pooled: pd.DataFrame, **settings: Any) -> dict[str, dict[str, float]]:
    figures = {}
    for metric in pooled.columns:
        if len(concerned := pooled[metric].dropna()):
            figures[metric] = bootstrap_interval(concerned, **settings)._asdict()
    return figures


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
        folder: Where to; made if it does not exist.
        rows: One row for each recommender, window and customer who bought in it; see `pool_customers`.
        title: The pipeline.
        windows: The windows, oldest first.
        chosen_on: First day of the window that settings were chosen on.
        chosen: What was chosen, by recommender.
        baselines: Recommenders that the others are compared with.
        k: Length of the lists; `map@k` is the metric that recommenders are compared on.
        new_arrivals: Recommenders of articles never sold, which are not compared with the others.
        num_samples: Bootstrap samples.
        seed: Fixes the samples.

    Returns:
        What `metrics.json` holds.

    Raises:
        InputError: See `pool_customers`.
    """
    headline = f"map@{k}"
    settings: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    metrics = [name for name in rows.columns if "@" in name]
    pooled = pool_customers(rows, metrics)
    compared = {name: found[headline] for name, found in pooled.items() if name not in new_arrivals}
    told: dict[str, Any] = {
        "baselines": [name for name in baselines if name in compared],
        "metric": headline,
        **settings,
    }
    by_window = {
        str(name): found.groupby("window")[headline].mean().to_dict()
        for name, found in rows.groupby("recommender", sort=False)
    }
    comparisons = compare_recommenders(compared, **told)
    document: dict[str, Any] = to_json_types(
        {
            "title": title,
            "chosen_on": chosen_on,
            "chosen": chosen,
            "windows": [asdict(window) for window in windows],
            "customers": rows["customer_index"].nunique(),
            "k": k,
            "metrics": metrics,
            "recommenders": {name: _figures(found, **settings) for name, found in pooled.items()},
            "by_window": by_window,
            "verdict": asdict(decide(compared, num_windows=len(windows), **told)),
            "differences": [{**asdict(found), "sentence": found.sentence} for found in comparisons],
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", document)
    write_text(folder / "backtest.md", backtest_markdown(document))
    write_text(folder / "backtest.html", render("backtest.html", document=document, headline=headline))
    return document


def _columns(document: Mapping[str, Any]) -> list[str]:
    k, metrics = document["k"], document["metrics"]
    deepest = max((name for name in metrics if name.startswith("recall@")), key=lambda name: int(name.split("@")[1]))
    return [
        f"map@{k}",
        f"recall@{k}",
        f"precision@{k}",
        f"map@{k}_new",
        *(() if deepest == f"recall@{k}" else (deepest,)),
    ]


def _cell(figure: Mapping[str, float] | None) -> tuple[str, str]:
    if figure is None:
        return "-", ""
    found = Interval(**figure)
    return f"{found.value:.4f}", f"{found.low:.4f} to {found.high:.4f}"


def backtest_table(document: Mapping[str, Any]) -> Table:
    """Lays out the headline figures for a terminal, from what `write_backtest` returns."""
    # Narrow enough for a terminal of 80 columns.
    headline, *others = [column for column in _columns(document) if not column.startswith("precision")]
    title = f"{document['customers']:,} customers in {len(document['windows'])} window(s)"
    table = Table(title=title, box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("recommender", no_wrap=True)
    for column in (headline, "95% interval", *others):
        table.add_column(column, justify="right", no_wrap=True)
    for name, figures in document["recommenders"].items():
        value, interval = _cell(figures.get(headline))
        table.add_row(escape(name), value, interval, *[_cell(figures.get(column))[0] for column in others])
    return table


def backtest_markdown(document: Mapping[str, Any]) -> str:
    """Lays the recommenders side by side in Markdown, from what `write_backtest` returns."""
    headline, *others = _columns(document)
    differences = {(found["recommender"], found["baseline"]): found["difference"] for found in document["differences"]}
    baselines = list(dict.fromkeys(baseline for _name, baseline in differences))
    head = ["recommender", f"{headline} (95%)", *others, *(f"against {baseline}" for baseline in baselines)]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for name, figures in document["recommenders"].items():
        value, interval = _cell(figures.get(headline))
        cells = [f"`{name}`", f"{value} ({interval})" if interval else value]
        cells += [_cell(figures.get(column))[0] for column in others]
        for baseline in baselines:
            found = differences.get((name, baseline))
            if found is None or found["relative"] is None or found["relative_low"] is None:
                cells.append("")
                continue
            low, high = found["relative_low"], found["relative_high"]
            cells.append(f"{found['relative']:+.1%} ({low:+.1%} to {high:+.1%})")
        lines.append(f"| {' | '.join(cells)} |")
    windows = ", ".join(f"{window['start']} ({window['customers']:,})" for window in document["windows"])
    lines += ["", f"{document['customers']:,} customers. Windows from (customers): {windows}."]
    return "\n".join(lines) + "\n"
