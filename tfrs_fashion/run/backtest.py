"""The rolling back-test: every recommender refitted before each of the last windows, and evaluated on each window."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.data.split import Split
from tfrs_fashion.evaluation.metrics.accuracy import ACCURACY_METRICS, find_hits, measure_hits
from tfrs_fashion.evaluation.report.backtest_page import BacktestWindow, backtest_table, write_backtest
from tfrs_fashion.outputs import fingerprint, stored_fingerprint
from tfrs_fashion.recommenders.popularity import no_recommendations
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.with_fallback import WithFallback
from tfrs_fashion.run.choose import choose
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.run.pools import past_weeks
from tfrs_fashion.run.prepare import prepare
from tfrs_fashion.run.scoring import bought_pairs
from tfrs_fashion.run.train import check_generators, fit_on, model_folder, read_chosen, trained_fingerprint
from tfrs_fashion.run.workspace import Workspace
from tfrs_fashion.schema import InputError


def rolling_windows(test: Split, *, num_windows: int, test_days: int, validation_days: int) -> list[Split]:
    """Returns the window on which settings are chosen, and the windows to evaluate on, oldest first; the last is the test window.

    Raises:
        InputError: The split has no window that others could lie before.
    """
    if test.kind != "window":
        raise InputError(
            f'several windows of days are rolled over the past, and `split.kind` is "{test.kind}", which makes a single '
            'test: ask for 1 window, or set it to "window".'
        )
    windows = [*reversed(past_weeks(test, num_weeks=num_windows - 1, week_days=test_days)), test]
    return [*past_weeks(windows[0], num_weeks=1, week_days=validation_days), *windows]


def _key(workspace: Workspace, name: str, choose_on: Split, first: Split, *parts: Any) -> str:
    has_choice = workspace.config.recommender[name].chooses
    days = (choose_on.describe(), first.describe()) if has_choice else ()
    return fingerprint("backtest", trained_fingerprint(workspace, name), days, *parts)


def _choice(workspace: Workspace, name: str, choose_on: Split, first: Split, *, force: bool) -> dict[str, Any]:
    """Returns what is chosen before all windows; if the run has chosen on the same days, what the run chose."""
    if not workspace.config.recommender[name].chooses:
        return {}
    splits = workspace.splits
    is_of_run = choose_on.as_of == splits["validation"].as_of and first.as_of == splits["test"].as_of
    if is_of_run and stored_fingerprint(model_folder(workspace, name)) == trained_fingerprint(workspace, name):
        return dict(read_chosen(workspace, name).get("choice", {}))

    def write(folder: Path) -> None:
        chosen = choose(workspace, name, on=choose_on.name, before=first.name).get("choice", {})
        (folder / "chosen.json").write_text(json.dumps(chosen), encoding="utf-8")

    folder = workspace.folder / "backtest" / "chosen" / f"{name}_{choose_on.as_of:%Y-%m-%d}"
    workspace.write_stage(folder, _key(workspace, name, choose_on, first), write, force=force)
    return dict(json.loads((folder / "chosen.json").read_text(encoding="utf-8")))


def _evaluate(workspace: Workspace, recommender: WithFallback, window: Split) -> pd.DataFrame:
    """Measures each customer who bought in a window: with what they bought before, and as `..._new` without it."""
    view, targets = workspace.view(window.name), workspace.targets(window.name)
    evaluation = workspace.config.evaluation
    k, depth = evaluation.k, max(evaluation.k, evaluation.num_candidates)
    customers = np.unique(targets["customer_index"].to_numpy(dtype=np.int32))
    rank = partial(rank_customers, recommender, view, customers, batch_size=workspace.config.recommend.batch_size)
    hits = find_hits(rank(k=depth), targets, depth=depth)
    metrics = measure_hits(hits, k=k)[[*ACCURACY_METRICS]].add_suffix(f"@{k}")
    metrics[f"recall@{depth}"] = measure_hits(hits, k=depth)["recall"]
    bought = bought_pairs(view)
    pairs = pd.MultiIndex.from_frame(bought[["customer_index", "article_index"]])
    is_new = ~pd.MultiIndex.from_frame(targets[["customer_index", "article_index"]]).isin(pairs)
    new = measure_hits(find_hits(rank(k=k, exclude=bought), targets[is_new], depth=k), k=k)
    metrics[f"map@{k}_new"] = new["map"]  # NaN for customers who bought nothing new
    return metrics.reset_index()


def _evaluate_window(
    workspace: Workspace,
    window: Split,
    choose_on: Split,
    first: Split,
    choices: dict[str, dict[str, Any]],
    *,
    force: bool,
) -> dict[str, Path]:
    """Fits and evaluates all recommenders on a window unless that is done; returns the files of metrics by customer."""
    config = workspace.config
    fitted: dict[str, Recommender] = {}
    evaluation = config.evaluation.model_dump(include={"k", "num_candidates"})
    fallback_key = trained_fingerprint(workspace, config.export.fallback)

    def fit(name: str) -> Recommender:
        if name not in fitted:
            fitted[name] = fit_on(workspace, name, window.name, choices[name], fit)
        return fitted[name]

    def write(name: str, folder: Path) -> None:
        fallback = no_recommendations() if name in config.new_arrivals else fit(config.export.fallback)
        metrics = _evaluate(workspace, WithFallback(fit(name), fallback), window)
        metrics.to_parquet(folder / "customers.parquet", index=False)

    paths = {}
    for name in (name for name in config.fitted if name in config.recommenders):
        folder = workspace.folder / "backtest" / f"{window.as_of:%Y-%m-%d}" / name
        key = _key(workspace, name, choose_on, first, window.describe(), evaluation, fallback_key)
        workspace.write_stage(folder, key, partial(write, name), force=force)
        paths[name] = folder / "customers.parquet"
    workspace.forget(window.name)
    return paths


def backtest(workspace: Workspace, *, num_windows: int, force: bool = False) -> None:
    """Writes `backtest/report/`: all recommenders of the pipeline over the last test windows, pooled.

    Settings are chosen once, on the days before the first window; every recommender is refitted on everything before
    each window. The metrics are those of the lists that artifacts of these fits would return, fallback included.

    Args:
        workspace: The run.
        num_windows: The number of windows of `split.test_days` days: the test window and those before it.
        force: Whether to repeat what is up to date.

    Raises:
        InputError: Several windows are asked for of a split that is no window, or one has no purchases in or before it.
    """
    prepare(workspace)
    check_generators(workspace)
    config = workspace.config
    windows = [workspace.splits["validation"], workspace.splits["test"]]
    if num_windows > 1:
        days = config.split.model_dump(include={"test_days", "validation_days"})
        windows = rolling_windows(workspace.splits["test"], num_windows=num_windows, **days)
    choose_on, *evaluated = windows
    workspace.extra_splits.update({window.name: window for window in windows})
    for window in windows:
        if not len(workspace.targets(window)) or not len(bought_pairs(workspace.view(window.name))):
            raise InputError(
                f"backtest: nothing was bought in the {window.name}, or before it. Ask for fewer than {num_windows} windows."
            )
        workspace.forget(window.name)
    # Once for all windows, and for the parts of blends and restrictions too.
    choices = {name: _choice(workspace, name, choose_on, evaluated[0], force=force) for name in config.fitted}
    frames, rows_of_windows = [], []
    for window in evaluated:
        paths = _evaluate_window(workspace, window, choose_on, evaluated[0], choices, force=force)
        metrics = [pd.read_parquet(path).assign(recommender=name) for name, path in paths.items()]
        frames.append(pd.concat(metrics).assign(window=f"{window.as_of:%Y-%m-%d}"))
        rows_of_windows.append(BacktestWindow(f"{window.as_of:%Y-%m-%d}", metrics[0]["customer_index"].nunique()))
    report, rows = workspace.folder / "backtest" / "report", pd.concat(frames)
    order = {name: number for number, name in enumerate(config.recommenders)}
    document = write_backtest(
        report,
        rows.sort_values("recommender", key=lambda names: names.map(order), kind="stable"),
        title=config.name,
        windows=rows_of_windows,
        chosen_on=f"{choose_on.as_of:%Y-%m-%d}",
        chosen={name: choices[name] for name in config.recommenders if choices[name]},
        baselines=[name for name in config.evaluation.baselines if name in config.recommenders],
        new_arrivals=config.new_arrivals,
        k=config.evaluation.k,
        num_samples=config.evaluation.bootstrap_samples,
        seed=config.seed,
    )
    workspace.console.print(backtest_table(document))
    workspace.messages += [f"back-test: {report / 'backtest.html'}", f"table: {report / 'backtest.md'}"]
