"""The results of a search: its trials, the importance of each setting, a figure, and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from tfrs_fashion.evaluation.document import render, write_json, write_text
from tfrs_fashion.evaluation.drawing import DARK, GREY, STYLE, format_share, make_panels, shorten, write_png
from tfrs_fashion.run.objective import Objective
from tfrs_fashion.settings.tune import ParameterConfig, plain
from tfrs_fashion.tuning.trials import TrialRecord

# With fewer trials the importance of settings cannot be estimated.
_MIN_TRIALS = 10
_NUM_PANELS = 4
BUDGET = "epochs given"


class Importance(NamedTuple):
    """How much the objective depends on each setting, over the space that was searched.

    Attributes:
        share: The share of each setting in the importance of all; the largest first.
        fit: The share of the objective's variance that the forest explains in trials that it was not fitted on.
    """

    share: dict[str, float]
    fit: float


@dataclass(frozen=True)
class Leaderboard:
    """The trials of a search that have ended.

    Attributes:
        recommender: The recommender whose settings were searched.
        objective: The metric that they were chosen by.
        space: The settings that were searched.
        trials: In the order of the search; the first one has the pipeline's own settings.
        window: What trials were evaluated on, in words.
        max_epochs: The epochs of a whole trial, with Hyperband.
    """

    recommender: str
    objective: Objective
    space: Mapping[str, ParameterConfig]
    trials: Sequence[TrialRecord]
    window: str = "validation"
    max_epochs: int | None = None

    @cached_property
    def ranked(self) -> list[tuple[TrialRecord, float]]:
        """The trials that have an objective, and its value; the best first, and of equals the earlier."""
        evaluated = [(trial, trial.best(self.objective)[1]) for trial in self.trials if trial.is_evaluated]
        sign = -1.0 if self.objective.direction == "max" else 1.0
        return sorted(evaluated, key=lambda pair: (sign * pair[1], int(pair[0].name)))

    @property
    def best(self) -> TrialRecord | None:
        """The best trial; None if all failed."""
        return self.ranked[0][0] if self.ranked else None

    @property
    def own(self) -> TrialRecord:
        """The trial of the pipeline's own settings; with Hyperband, of those the one with the most epochs."""
        same = [trial for trial in self.trials if trial.values == self.trials[0].values]
        return max(same, key=lambda trial: (trial.is_evaluated, trial.budget or 0))

    @property
    def failed(self) -> list[TrialRecord]:
        """The trials that failed."""
        return [trial for trial in self.trials if trial.status == "failed"]

    @property
    def has_epochs(self) -> bool:
        """Whether trials are evaluated after each of several epochs."""
        return any(len(trial.curve) > 1 for trial in self.trials)

    @property
    def hints(self) -> list[str]:
        """Advice that follows from the best trial."""
        values = {} if self.best is None else self.best.values
        ranges = {name: self.space[name].bounds for name in values if self.space[name].type != "choice"}
        edges = [f"{name} ({format_value(values[name])})" for name, ends in ranges.items() if values[name] in ends]
        return [f"the best lies at the edge of what was searched: {', '.join(edges)}"] if edges else []

    @property
    def sentence(self) -> str:
        """The gain over the pipeline's own settings, in words."""
        if self.best is None:
            return f"none of {len(self.trials)} trial(s) succeeded"
        value, own = self.ranked[0][1], self.own
        gain = f"best of {len(self.trials)} trials: {self.objective.figure} {value:.4f} on {self.window} (trial {self.best.name})"
        if not own.is_evaluated:
            return f"{gain}; the pipeline's own settings failed"
        after = f" after {own.budget} of {self.max_epochs} epochs" if own.budget != self.max_epochs else ""
        return f"{gain}; the pipeline's own settings have {own.best(self.objective)[1]:.4f}{after}"

    def measure_importance(self, *, seed: int = 0) -> Importance | None:
        """Measures how much worse a random forest predicts the objective when a setting is shuffled among the trials.

        Args:
            seed: The random seed of the forest and of the shuffles.

        Returns:
            None if there are too few trials, or if the forest explains nothing in trials that it was not fitted on.

        Source: Breiman 2001, Random forests; Hutter et al. 2014 derive importance from such a forest in another way.
        """
        if len(self.ranked) < _MIN_TRIALS:
            return None
        table = self.encode([trial for trial, _value in self.ranked])
        x, y = table.to_numpy(), np.array([value for _trial, value in self.ranked])
        if not np.ptp(y):
            return None
        forest = RandomForestRegressor(400, min_samples_leaf=2, oob_score=True, random_state=seed).fit(x, y)
        if forest.oob_score_ <= 0:
            return None
        importances = permutation_importance(forest, x, y, n_repeats=20, random_state=seed).importances_mean
        drop = np.maximum(importances, 0.0)
        share = dict(zip(table.columns, (drop / (drop.sum() or 1.0)).tolist(), strict=True))
        return Importance(dict(sorted(share.items(), key=lambda item: -item[1])), float(forest.oob_score_))

    def encode(self, trials: Sequence[TrialRecord]) -> pd.DataFrame:
        """Encodes settings as `[num_trials, num_settings]` float64.

        Numbers are themselves, or their logarithm; other values are numbered in the order of their text; a setting that did not
        take effect in a trial is 1 below the lowest.
        """
        columns = {}
        for name, parameter in self.space.items():
            values = pd.Series([trial.values.get(name) for trial in trials], dtype=object)
            if values.isna().all():
                continue
            if parameter.is_numeric:
                column = values.astype(np.float64).map(np.log if parameter.log else float)
            else:
                # Numbered in the order of the trials, which are ranked, they would reveal the objective.
                column = values.map(repr, na_action="ignore").rank(method="dense") - 1.0
            columns[name] = column.fillna(column.min() - 1.0)
        if self.max_epochs is not None:
            columns[BUDGET] = pd.Series([float(trial.budget or 0) for trial in trials])
        return pd.DataFrame(columns, dtype=np.float64)

    def to_rows(self) -> list[dict[str, Any]]:
        """Returns each trial as a row: its record, with the curve and the best epoch of the objective alone."""
        rows = []
        for trial in self.trials:
            epoch, value = trial.best(self.objective) if trial.curve else (0, None)
            row = asdict(trial)
            del row["attempts"]
            row["curve"] = [self.objective.read(metrics) for metrics in trial.curve]
            rows.append({**row, "best_epoch": epoch, "objective": value if trial.is_evaluated else None})
        return rows

    def to_frame(self) -> pd.DataFrame:
        """Returns a table with a row per trial and a column per setting."""
        rows = self.to_rows()
        table = pd.DataFrame(rows).drop(columns="values")
        for name in self.space:
            column = [row["values"].get(name) for row in rows]
            types = {type(value) for value in column}
            # Arrow stores columns of one type: lists and mixed values become text.
            is_uniform = types <= {int, float, type(None)} or types in ({bool}, {str})
            table[name] = column if is_uniform else [None if value is None else str(value) for value in column]
        return table


def _draw(board: Leaderboard, importance: Importance | None, path: Path) -> str:
    """Draws the objective of each trial in the order of the search, and over the most important settings."""
    names = [name for name in (importance.share if importance else board.space) if name in board.space][:_NUM_PANELS]
    axes, *panels = make_panels(
        f"{board.objective.figure} on {board.window} by trial",
        heights=(2.4, *[1.9] * len(names)),
        titles=["in the order of the search", *(shorten(name, 60) for name in names)],
    )
    in_order = sorted(board.ranked, key=lambda pair: int(pair[0].name))
    numbers, values = [int(trial.name) for trial, _value in in_order], [value for _trial, value in in_order]
    accumulate = np.maximum.accumulate if board.objective.direction == "max" else np.minimum.accumulate
    axes.step(numbers, accumulate(values), where="post", color=DARK, linewidth=1.8, label="best so far")
    for status, face, label in (("finished", DARK, "trial"), ("pruned", "white", "pruned")):
        points = [(int(trial.name), value) for trial, value in in_order if trial.status == status]
        if points:
            axes.plot(*zip(*points, strict=True), "o", label=label, mfc=face, mec=DARK, markersize=5)
    failed = [int(trial.name) for trial in board.failed]
    if failed:
        axes.plot(failed, [min(values)] * len(failed), "x", color="#111111", label="failed")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("trial")
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderaxespad=0.2)
    for panel, name in zip(panels, names, strict=True):
        _draw_setting(panel, board, name)
    return write_png(axes, path)


def _draw_setting(axes: Any, board: Leaderboard, name: str) -> None:
    parameter = board.space[name]
    choices = plain(parameter.values)
    for trial, value in board.ranked:
        if name in trial.values:
            x = float(choices.index(trial.values[name]) if choices else trial.values[name])
            face = DARK if trial.status == "finished" else "white"
            axes.plot([x], [value], "o", markersize=5, mfc=face, mec=DARK)
            if trial is board.own:
                axes.annotate("own", (x, value), (6, 3), textcoords="offset points", fontsize=8.5, color=GREY)
    if choices:
        axes.set_xticks(range(len(choices)), [shorten(str(value), 24) for value in choices])
        axes.set_xlim(-0.5, len(choices) - 0.5)
    elif parameter.log and axes.lines:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda setting, _place: f"{setting:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def write_leaderboard(folder: Path, board: Leaderboard, *, title: str, algorithm: str, seed: int) -> None:
    """Writes `trials.parquet`, `leaderboard.json`, `leaderboard.html` and `figures/trials.png`.

    Args:
        folder: Where to write.
        board: A leaderboard with at least one trial.
        title: The name of the pipeline.
        algorithm: The algorithm that chose the settings.
        seed: The random seed of the search.
    """
    importance = board.measure_importance(seed=seed)
    image = ""
    if board.ranked:
        (folder / "figures").mkdir()
        with matplotlib.rc_context(STYLE):
            image = _draw(board, importance, folder / "figures" / "trials.png")
    board.to_frame().to_parquet(folder / "trials.parquet", index=False)
    document = {
        "pipeline": title,
        "recommender": board.recommender,
        "objective": board.objective.figure,
        "direction": board.objective.direction,
        "algorithm": algorithm,
        "seed": seed,
        "sentence": board.sentence,
        "best": None if board.best is None else board.best.name,
        "own": board.own.name,
        "hints": board.hints,
        "importance": None if importance is None else importance._asdict(),
        "trials": board.to_rows(),
    }
    write_json(folder / "leaderboard.json", document)
    html = render(
        "leaderboard.html",
        document=document,
        board=board,
        importance=importance,
        min_trials=_MIN_TRIALS,
        image=image,
        format_share=format_share,
        shorten=shorten,
        format_value=format_value,
    )
    write_text(folder / "leaderboard.html", html)


def format_value(value: Any) -> str:
    """Formats the value of a setting in few digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
