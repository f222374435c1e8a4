"""What a search over settings found: trials in order, what each setting matters, a figure, and a page."""

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

# With fewer trials nothing can be told of what matters.
_MIN_TRIALS = 10
_NUM_PANELS = 4
BUDGET = "epochs given"


@dataclass(frozen=True)
class JudgedTrial:
    """A trial that ended.

    Attributes:
        name: Its number in the search, with zeros before it.
        values: Settings by their dotted names; without those that did not matter to it.
        budget: Epochs that it was given, with Hyperband.
        curve: `[num_epochs]`, the objective after each epoch.
        best_epoch: The best of them, counted from 1.
        objective: After that; None where the trial failed.
        seconds: That it took.
        status: `finished`, `hopeless` (ended early) or `failed`.
        error: Why it failed.
    """

    name: str
    values: Mapping[str, Any]
    budget: int | None
    curve: Sequence[float]
    best_epoch: int
    objective: float | None
    seconds: float
    status: str
    error: str


class Importance(NamedTuple):
    """What settings matter to the objective, over the space that was searched.

    Attributes:
        share: Of each setting, of all that a forest knows of the objective; the largest first.
        fit: Share of the objective's variance that the forest tells of trials that it has not seen.
    """

    share: dict[str, float]
    fit: float


@dataclass(frozen=True)
class Leaderboard:
    """The trials of a search.

    Attributes:
        recommender: Whose settings were searched.
        objective: By which figure.
        direction: `max` or `min`.
        is_log: Of each setting, whether it is drawn by its logarithm.
        ranges: Of each setting, the values of a choice, or the lowest and the highest number.
        choices: Settings that are one of several values.
        trials: In the order of the search; the first one is by the pipeline's own settings.
        window: What trials were judged on, in words.
        whole: Epochs of a whole trial, with Hyperband.
    """

    recommender: str
    objective: str
    direction: str
    is_log: Mapping[str, bool]
    ranges: Mapping[str, Sequence[Any]]
    choices: Sequence[str]
    trials: Sequence[JudgedTrial]
    window: str = "validation"
    whole: int | None = None

    @cached_property
    def ranked(self) -> list[tuple[JudgedTrial, float]]:
        """The trials that have an objective, and that; the best first, and of equals the earlier."""
        known = [(trial, trial.objective) for trial in self.trials if trial.objective is not None]
        sign = -1.0 if self.direction == "max" else 1.0
        return sorted(known, key=lambda found: (sign * found[1], int(found[0].name)))

    @property
    def best(self) -> JudgedTrial | None:
        """The best trial; None where all failed."""
        return self.ranked[0][0] if self.ranked else None

    @property
    def own(self) -> JudgedTrial:
        """The trial of the pipeline's own settings; with Hyperband, of those the one of the most epochs."""
        alike = [trial for trial in self.trials if trial.values == self.trials[0].values]
        return max(alike, key=lambda trial: (trial.objective is not None, trial.budget or 0))

    @property
    def has_epochs(self) -> bool:
        """Whether trials are judged after each of several epochs."""
        return any(len(trial.curve) > 1 for trial in self.trials)

    @property
    def hints(self) -> list[str]:
        """What the best trial says of the space, in words."""
        best = self.best
        if best is None:
            return []
        ends = {name: (self.ranges[name][0], self.ranges[name][-1]) for name in best.values if name not in self.choices}
        edges = [f"{name} ({format_value(best.values[name])})" for name in ends if best.values[name] in ends[name]]
        return [f"the best lies at the edge of what was searched: {', '.join(edges)}"] if edges else []

    @property
    def sentence(self) -> str:
        """What was gained, in words."""
        if self.best is None:
            return f"none of {len(self.trials)} trial(s) succeeded"
        best, own = self.ranked[0], self.own
        found = (
            f"best of {len(self.trials)} trials: {self.objective} {best[1]:.4f} on {self.window} (trial {best[0].name})"
        )
        if own.objective is None:
            return f"{found}; the pipeline's own settings failed"
        after = f" after {own.budget} of {self.whole} epochs" if own.budget != self.whole else ""
        return f"{found}; the pipeline's own settings have {own.objective:.4f}{after}"

    def measure_importance(self, *, seed: int = 0) -> Importance | None:
        """Measures what each setting matters, by how much worse a random forest tells the objective when it is shuffled.

        Args:
            seed: Of forest and shuffles.

        Returns:
            None where there are too few trials, or the forest tells nothing of trials that it has not seen.

        Source: Breiman 2001, Random forests; Hutter et al. 2014 measure the same from such a forest in another way.
        """
        known = [trial for trial, _objective in self.ranked]
        if len(known) < _MIN_TRIALS:
            return None
        table = self.encode(known)
        y = np.array([objective for _trial, objective in self.ranked])
        if not np.ptp(y):
            return None
        forest = RandomForestRegressor(400, min_samples_leaf=2, oob_score=True, random_state=seed).fit(
            table.to_numpy(), y
        )
        if forest.oob_score_ <= 0:
            return None
        found = permutation_importance(forest, table.to_numpy(), y, n_repeats=20, random_state=seed)
        drop = np.maximum(found.importances_mean, 0.0)
        share = dict(zip(table.columns, (drop / (drop.sum() or 1.0)).tolist(), strict=True))
        return Importance(dict(sorted(share.items(), key=lambda item: -item[1])), float(forest.oob_score_))

    def encode(self, trials: Sequence[JudgedTrial]) -> pd.DataFrame:
        """Encodes settings as `[num_trials, num_settings]` float64.

        Numbers are themselves, or their logarithm; other values are numbered by their text; a setting that did not matter to a
        trial is -1 below the least.
        """
        columns = {}
        for name, is_log in self.is_log.items():
            values = [trial.values.get(name) for trial in trials]
            known = [value for value in values if value is not None]
            if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
                column = np.array([np.nan if value is None else float(value) for value in values])
                column = np.log(column) if is_log else column
            else:
                # By their text: in the order of the trials, which are ranked, they would tell the objective.
                places = {text: place for place, text in enumerate(sorted({repr(value) for value in known}))}
                column = np.array([np.nan if value is None else float(places[repr(value)]) for value in values])
            if known:
                columns[name] = np.where(np.isnan(column), np.nanmin(column) - 1.0, column)
        if self.whole is not None:
            columns[BUDGET] = np.array([float(trial.budget or 0) for trial in trials])
        return pd.DataFrame(columns, dtype=np.float64)

    def to_frame(self) -> pd.DataFrame:
        """Lays the trials out, a row each, with a column for every setting; lists are text."""
        rows = []
        for trial in self.trials:
            told = asdict(trial)
            told.pop("values")
            told["curve"] = list(trial.curve)
            values = {name: trial.values.get(name) for name in self.is_log}
            rows.append({**told, **{key: str(v) if isinstance(v, list | tuple) else v for key, v in values.items()}})
        frame = pd.DataFrame(rows)
        for name in self.is_log:
            # Arrow knows columns of one type.
            if frame[name].map(type).nunique() > 1 and not pd.api.types.is_numeric_dtype(frame[name]):
                frame[name] = frame[name].map(lambda value: None if value is None else str(value))
        return frame


def _draw(board: Leaderboard, importance: Importance | None, path: Path) -> str:
    """Draws the objective of each trial in the order of the search, and over the settings that matter most."""
    settings = [name for name in (importance.share if importance else board.is_log) if name in board.is_log][
        :_NUM_PANELS
    ]
    titles = ["in the order of the search", *(shorten(name, 60) for name in settings)]
    axes, *others = make_panels(
        f"{board.objective} on {board.window} by trial", heights=(2.4, *[1.9] * len(settings)), titles=titles
    )
    in_order = sorted(board.ranked, key=lambda found: int(found[0].name))
    x, y = [int(trial.name) for trial, _value in in_order], [value for _trial, value in in_order]
    best = np.maximum.accumulate(y) if board.direction == "max" else np.minimum.accumulate(y)
    axes.step(x, best, where="post", color=DARK, linewidth=1.8, label="best so far")
    for status, marker, face in (("finished", "o", DARK), ("hopeless", "o", "white")):
        chosen = [(place, value) for place, (trial, value) in zip(x, in_order, strict=True) if trial.status == status]
        if chosen:
            label = {"finished": "trial", "hopeless": "ended early"}[status]
            style: dict[str, Any] = {
                "marker": marker,
                "markerfacecolor": face,
                "markeredgecolor": DARK,
                "markersize": 5,
            }
            axes.plot(*zip(*chosen, strict=True), linestyle="", label=label, **style)
    failed = [int(trial.name) for trial in board.trials if trial.status == "failed"]
    if failed:
        axes.plot(failed, [min(y)] * len(failed), linestyle="", marker="x", color="#111111", label="failed")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("trial")
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderaxespad=0.2)
    for panel, name in zip(others, settings, strict=True):
        _draw_setting(panel, board, name)
    return write_png(axes, path)


def _draw_setting(axes: Any, board: Leaderboard, name: str) -> None:
    shown = [(trial.values[name], value, trial) for trial, value in board.ranked if name in trial.values]
    if not shown:
        return
    is_choice = name in board.choices
    values = list(board.ranges[name])
    for setting, value, trial in shown:
        x = float(values.index(setting) if is_choice else setting)
        face = DARK if trial.status == "finished" else "white"
        axes.plot([x], [value], marker="o", markersize=5, markerfacecolor=face, markeredgecolor=DARK)
        if trial is board.own:
            axes.annotate("own", (x, value), (6, 3), textcoords="offset points", fontsize=8.5, color=GREY)
    if is_choice:
        axes.set_xticks(range(len(values)), [shorten(str(value), 24) for value in values])
        axes.set_xlim(-0.5, len(values) - 0.5)
    elif board.is_log[name]:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda setting, _place: f"{setting:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def write_leaderboard(folder: Path, board: Leaderboard, *, title: str, algorithm: str, seed: int) -> None:
    """Writes `trials.parquet`, `leaderboard.json`, `leaderboard.html` and `figures/trials.png`.

    Args:
        folder: Where to.
        board: With at least one trial.
        title: Of the pipeline.
        algorithm: That chose the settings.
        seed: Of the search.
    """
    importance = board.measure_importance(seed=seed)
    (folder / "figures").mkdir()
    image = ""
    if board.ranked:
        with matplotlib.rc_context(STYLE):
            image = _draw(board, importance, folder / "figures" / "trials.png")
    board.to_frame().to_parquet(folder / "trials.parquet", index=False)
    document = {
        "pipeline": title,
        "recommender": board.recommender,
        "objective": board.objective,
        "direction": board.direction,
        "algorithm": algorithm,
        "seed": seed,
        "sentence": board.sentence,
        "best": None if board.best is None else board.best.name,
        "own": board.own.name,
        "hints": board.hints,
        "importance": None if importance is None else importance._asdict(),
        "trials": [asdict(trial) for trial in board.trials],
    }
    write_json(folder / "leaderboard.json", document)
    html = render(
        "leaderboard.html",
        document=document,
        board=board,
        importance=importance,
        min_trials=_MIN_TRIALS,
        failed=[trial for trial in board.trials if trial.status == "failed"],
        image=image,
        format_share=format_share,
        shorten=shorten,
        format_value=format_value,
    )
    write_text(folder / "leaderboard.html", html)


def format_value(value: Any) -> str:
    """Writes a setting short."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
