"""Trials of a search, each in a folder of its own: what was tried, how it went after each epoch, and how it ended."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfrs_fashion.evaluation.document import write_json
from tfrs_fashion.models.fit import FitEndedError
from tfrs_fashion.run.objective import Objective
from tfrs_fashion.schema import RunError
from tfrs_fashion.settings.file import read_setting
from tfrs_fashion.settings.tune import plain
from tfrs_fashion.tuning.leaderboard import JudgedTrial, Leaderboard
from tfrs_fashion.tuning.plan import SearchPlan

_FILE, _ABOUT = "record.json", "search.json"


class HopelessTrialError(FitEndedError):
    """A trial that stands below the median of the others and is not worth its further epochs."""


@dataclass
class TrialRecord:
    """What is known of a trial.

    Attributes:
        values: The settings that were tried, by their dotted names.
        budget: Epochs that it was given, with Hyperband.
        attempts: Times that it was begun; more than once where the process was killed.
        curve: The figures after each epoch.
        seconds: Of the last attempt.
        status: How it stands.
        error: Why it failed.
    """

    values: dict[str, Any]
    budget: int | None = None
    attempts: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    status: Literal["running", "finished", "hopeless", "failed"] = "running"
    error: str = ""

    def save(self, folder: Path) -> None:
        """Writes it whole."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "TrialRecord | None":
        """Reads what was written into a folder, if anything was."""
        try:
            return cls(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    @property
    def is_judged(self) -> bool:
        """Whether it ended with a figure."""
        return self.status in ("finished", "hopeless") and bool(self.curve)

    def best(self, objective: Objective) -> tuple[int, float]:
        """Returns the best epoch, counted from 1, and the objective after it."""
        values = [objective.read(figures) for figures in self.curve]
        sign = 1.0 if objective.direction == "max" else -1.0
        epoch = int(np.argmax([sign * value if np.isfinite(value) else -np.inf for value in values]))
        return epoch + 1, values[epoch]


def read_trials(folder: Path) -> dict[str, TrialRecord]:
    """Reads the records of all trials of a search, by the trial's id, in the order of its numbers."""
    names = sorted((place.name.removeprefix("trial_") for place in folder.glob("trial_*")), key=int)
    found = ((name, TrialRecord.load(folder / f"trial_{name}")) for name in names)
    return {name: record for name, record in found if record is not None}


def is_hopeless(curve: list[float], others: list[list[float]], *, direction: str, min_trials: int) -> bool:
    """Tells whether the best of a curve so far is worse than the median of what the others had reached by the same epoch.

    Args:
        curve: The objective after each epoch so far.
        others: Of trials that have ended; those that did before this epoch count with the best that they had.
        direction: `max` or `min`.
        min_trials: With fewer of them nothing is told.

    Source: Golovin et al. 2017, Google Vizier, section 3.1, with the best value in place of the mean.
    """
    if len(others) < min_trials or not curve:
        return False
    best = max if direction == "max" else min
    reached = float(np.median([best(other[: len(curve)]) for other in others]))
    return best(curve) < reached if direction == "max" else best(curve) > reached


class Watch:
    """Keeps the record of a trial while it runs, and ends it where it is hopeless.

    Args:
        folder: Of the search.
        trial_id: Of the trial.
        record: Of the trial.
        objective: What settings are chosen by.
        min_trials: So many have to have ended before any is hopeless; None where none ever is.
        epochs: Of a whole trial: after its last one there is nothing to end; None where that is not known.
    """

    def __init__(
        self,
        folder: Path,
        trial_id: str,
        record: TrialRecord,
        *,
        objective: Objective,
        min_trials: int | None,
        epochs: int | None = None,
    ) -> None:
        self._folder, self._id, self._record, self._epochs = folder, trial_id, record, epochs
        self._objective, self._min_trials = objective, min_trials
        self._start = time.monotonic()

    def __call__(self, figures: dict[str, float]) -> None:
        """Adds the figures of an epoch.

        Raises:
            HopelessTrialError: The others were better by now.
            RunError: The objective is not a number.
        """
        record, objective = self._record, self._objective
        if not np.isfinite(objective.read(figures)):
            raise RunError(f"{objective.figure} is {objective.read(figures)} after epoch {len(record.curve) + 1}")
        record.curve.append(figures)
        self.keep()
        if self._min_trials is None or len(record.curve) == self._epochs:
            return
        others = [
            [objective.read(epoch) for epoch in other.curve]
            for name, other in read_trials(self._folder).items()
            # Over more epochs the learning rate falls more slowly: after the first ones such a trial is behind.
            if name != self._id and other.is_judged and other.budget == record.budget
        ]
        curve = [objective.read(epoch) for epoch in record.curve]
        if is_hopeless(curve, others, direction=objective.direction, min_trials=self._min_trials):
            raise HopelessTrialError(figures)

    def keep(self) -> None:
        """Writes the record as it stands."""
        self._record.seconds = round(time.monotonic() - self._start, 3)
        self._record.save(self._folder / f"trial_{self._id}")


def hold(folder: Path, wanted: dict[str, str]) -> None:
    """Says of which search the trials of a folder are.

    Args:
        folder: Of the search.
        wanted: A fingerprint of each part that must be the same for it to go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _ABOUT, {"fingerprints": wanted})


def read_held(folder: Path) -> dict[str, str] | None:
    """Reads what `hold` wrote; None where a folder holds no search, and nothing where it does not say of which."""
    try:
        return dict(json.loads((folder / _ABOUT).read_text(encoding="utf-8"))["fingerprints"])
    except FileNotFoundError:
        return {} if (folder / "oracle.json").exists() or any(folder.glob("trial_*")) else None
    except (ValueError, KeyError, TypeError):
        return {}


def find_differences(folder: Path, wanted: dict[str, str]) -> str:
    """Names the parts in which the search that a folder holds differs from one; empty where it does not, or where there is none."""
    held = read_held(folder)
    return "" if held is None else ", ".join(name for name, part in wanted.items() if held.get(name) != part)


def make_leaderboard(folder: Path, plan: SearchPlan) -> Leaderboard:
    """Makes the leaderboard of the trials of a folder that have ended.

    Args:
        folder: Of the search.
        plan: What it was to do.
    """
    objective, tune = plan.objective, plan.config.tune
    trials = [
        JudgedTrial(
            name=str(int(name)),
            values={setting: record.values[setting] for setting in tune.space if setting in record.values},
            budget=record.budget,
            curve=tuple(objective.read(figures) for figures in record.curve),
            best_epoch=record.best(objective)[0] if record.curve else 0,
            objective=record.best(objective)[1] if record.curve and record.status != "failed" else None,
            seconds=record.seconds,
            status=record.status,
            error=record.error,
        )
        for name, record in read_trials(folder).items()
        if record.status != "running"
    ]
    return Leaderboard(
        recommender=plan.recommender,
        objective=objective.figure,
        direction=objective.direction,
        is_log={name: parameter.log for name, parameter in tune.space.items()},
        ranges={
            name: plain(parameter.values or (parameter.low, parameter.high)) for name, parameter in tune.space.items()
        },
        choices=[name for name, parameter in tune.space.items() if parameter.type == "choice"],
        trials=trials,
        window="the last week before test" if plan.is_two_stage else "validation",
        whole=read_setting(plan.config, plan.budget) if tune.algorithm == "hyperband" else None,
    )
