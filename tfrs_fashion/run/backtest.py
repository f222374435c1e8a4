"""The rolling back-test: everything fitted anew before each of the last windows, and judged on what was bought in it."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.data.split import Split
from tfrs_fashion.evaluation.metrics.accuracy import ACCURACY_METRICS, find_hits, measure_hits
from tfrs_fashion.evaluation.report.backtest_page import BacktestWindow, backtest_table, write_backtest
from tfrs_fashion.outputs import fingerprint, stored_fingerprint
from tfrs_fashion.recommenders.filled import Filled
from tfrs_fashion.recommenders.popularity import nobody
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.run.pools import past_weeks
from tfrs_fashion.run.run import Run
from tfrs_fashion.run.scoring import bought_pairs
from tfrs_fashion.schema import InputError


def rolling_windows(test: Split, *, num_windows: int, test_days: int, validation_days: int) -> list[Split]:
    """Returns the window to choose on, and the windows to judge: the test window and those before it, oldest first.

    Raises:
        InputError: The split has no window that others could lie before.
    """
    if test.kind != "window":
        raise InputError(
            f'several windows of days are rolled over the past, and `split.kind` is "{test.kind}", which makes a single '
            'test: ask for 1 window, or set it to "window".'
        )
    judged = [*reversed(past_weeks(test, num_weeks=num_windows - 1, week_days=test_days)), test]
    return [*past_weeks(judged[0], num_weeks=1, week_days=validation_days), *judged]


@dataclass
class Backtest(Run):
    """One pipeline, judged on several windows, in its run folder."""

    def _key(self, name: str, choose_on: Split, first: Split, *parts: Any) -> str:
        days = (choose_on.describe(), first.describe()) if self._has_choice(name) else ()
        return fingerprint("backtest", self._trained(name), days, *parts)

    def _choice(self, name: str, choose_on: Split, first: Split, *, force: bool) -> dict[str, Any]:
        """What is chosen before all windows; where the run has chosen on the same days, it is what the run chose."""
        if not self._has_choice(name):
            return {}
        is_of_run = choose_on.as_of == self.splits["validation"].as_of and first.as_of == self.splits["test"].as_of
        if is_of_run and stored_fingerprint(self._model(name)) == self._trained(name):
            return dict(self._chosen(name).get("choice", {}))

        def write(folder: Path) -> None:
            chosen = self._choose(name, on=choose_on.name, before=first.name).get("choice", {})
            (folder / "chosen.json").write_text(json.dumps(chosen), encoding="utf-8")

        folder = self.folder / "backtest" / "chosen" / f"{name}_{choose_on.as_of:%Y-%m-%d}"
        self._stage(folder, self._key(name, choose_on, first), write, force=force)
        return dict(json.loads((folder / "chosen.json").read_text(encoding="utf-8")))

    def _judge(self, recommender: Filled, window: Split) -> pd.DataFrame:
        """Measures each customer who bought in a window: with what they bought before, and as `…_new` without it."""
        view, wanted = self.view(window.name), self._targets(window.name)
        evaluation = self.config.evaluation
        k, depth = evaluation.k, max(evaluation.k, evaluation.num_candidates)
        customers = np.unique(wanted["customer_index"].to_numpy(dtype=np.int32))
        ask = partial(rank_customers, recommender, view, customers, batch_size=self.config.recommend.batch_size)
        hits = find_hits(ask(k=depth), wanted, depth=depth)
        found = measure_hits(hits, k=k)[[*ACCURACY_METRICS]].add_suffix(f"@{k}")
        found[f"recall@{depth}"] = measure_hits(hits, k=depth)["recall"]
        bought = bought_pairs(view)
        pairs = pd.MultiIndex.from_frame(bought[["customer_index", "article_index"]])
        is_new = ~pd.MultiIndex.from_frame(wanted[["customer_index", "article_index"]]).isin(pairs)
        new = measure_hits(find_hits(ask(k=k, exclude=bought), wanted[is_new], depth=k), k=k)
        found[f"map@{k}_new"] = new["map"]  # NaN for customers who bought nothing new
        return found.reset_index()

    def _judge_window(
        self, window: Split, choose_on: Split, first: Split, choices: dict[str, dict[str, Any]], *, force: bool
    ) -> dict[str, Path]:
        """Fits and judges all recommenders on a window, as far as that was not done; returns where the figures are."""
        fitted: dict[str, Recommender] = {}
        evaluation = self.config.evaluation.model_dump(include={"k", "num_candidates"})
        filled_by = self._trained(self.config.export.fallback)

        def fit(name: str) -> Recommender:
            if name not in fitted:
                fitted[name] = self._fit(name, window.name, choices[name], fit)
            return fitted[name]

        def write(name: str, folder: Path) -> None:
            fallback = nobody() if name in self.config.new_arrivals else fit(self.config.export.fallback)
            self._judge(Filled(fit(name), fallback), window).to_parquet(folder / "customers.parquet", index=False)

        places = {}
        for name in (name for name in self.config.fitted if name in self.config.recommenders):
            place = self.folder / "backtest" / f"{window.as_of:%Y-%m-%d}" / name
            self._stage(
                place,
                self._key(name, choose_on, first, window.describe(), evaluation, filled_by),
                partial(write, name),
                force=force,
            )
            places[name] = place / "customers.parquet"
        self.forget(window.name)
        return places

    def backtest(self, *, num_windows: int, force: bool = False) -> None:
        """Writes `backtest/report/`: all recommenders of the pipeline over the last test windows, pooled.

        Settings are chosen on the days before the first window, once; every recommender is fitted on everything before each
        window. Figures are of what the artifacts of these fits would answer, with `export.fallback` where a recommender has nothing.

        Args:
            num_windows: Windows of `split.test_days` days, the test window and those before it.
            force: Do again what is done.

        Raises:
            InputError: Several windows are asked for of a split that is no window, or one holds no purchase or has nothing
                before it.
        """
        self.prepare()
        self._check_generators()
        split = self.config.split.model_dump(include={"test_days", "validation_days"})
        windows = [self.splits["validation"], self.splits["test"]]
        if num_windows > 1:
            windows = rolling_windows(self.splits["test"], num_windows=num_windows, **split)
        choose_on, *judged = windows
        self.splits.update({window.name: window for window in windows})
        for window in windows:
            if not len(self._targets(window.name)) or not len(bought_pairs(self.view(window.name))):
                raise InputError(
                    f"backtest: nothing was bought in the {window.name}, or before it. Ask for fewer than {num_windows} windows."
                )
            self.forget(window.name)
        # Once for all windows; of what is fitted for a blend or a restriction too.
        choices = {name: self._choice(name, choose_on, judged[0], force=force) for name in self.config.fitted}
        frames, told = [], []
        for window in judged:
            places = self._judge_window(window, choose_on, judged[0], choices, force=force)
            found = [pd.read_parquet(place).assign(recommender=name) for name, place in places.items()]
            frames.append(pd.concat(found).assign(window=f"{window.as_of:%Y-%m-%d}"))
            told.append(BacktestWindow(f"{window.as_of:%Y-%m-%d}", found[0]["customer_index"].nunique()))
        report, rows = self.folder / "backtest" / "report", pd.concat(frames)
        order = {name: number for number, name in enumerate(self.config.recommenders)}
        document = write_backtest(
            report,
            rows.sort_values("recommender", key=lambda names: names.map(order), kind="stable"),
            title=self.config.name,
            windows=told,
            chosen_on=f"{choose_on.as_of:%Y-%m-%d}",
            chosen={name: choices[name] for name in self.config.recommenders if choices[name]},
            baselines=[name for name in self.config.evaluation.baselines if name in self.config.recommenders],
            new_arrivals=self.config.new_arrivals,
            k=self.config.evaluation.k,
            num_samples=self.config.evaluation.bootstrap_samples,
            seed=self.config.seed,
        )
        self.console.print(backtest_table(document))
        self.messages += [f"back-test: {report / 'backtest.html'}", f"table: {report / 'backtest.md'}"]
