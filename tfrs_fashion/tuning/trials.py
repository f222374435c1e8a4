"""The record of each trial of a search: what it tried, its metrics after each epoch, and how it ended."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfrs_fashion.evaluation.document import write_json
from tfrs_fashion.run.objective import Objective

_FILE = "record.json"


@dataclass
class TrialRecord:
    """One trial, stored in a folder of its own.

    Attributes:
        name: Its number in the search.
        values: The settings that it tried by their dotted names, without those whose conditions did not hold.
        budget: The number of epochs that Hyperband gave it.
        attempts: How often it was begun: more than once if its process was killed.
        curve: The metrics after each epoch.
        seconds: The duration of the last attempt.
        status: How it stands.
        error: Why it failed.
    """

    name: str
    values: dict[str, Any]
    budget: int | None = None
    attempts: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    status: Literal["running", "finished", "pruned", "failed"] = "running"
    error: str = ""

    def save(self, folder: Path) -> None:
        """Writes the record, whole."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _FILE, asdict(self))

    @property
    def is_evaluated(self) -> bool:
        """Whether it ended with an objective."""
        return self.status in ("finished", "pruned") and bool(self.curve)

    def best(self, objective: Objective) -> tuple[int, float]:
        """Returns the best epoch, counted from 1, and the objective after it."""
        values = [objective.read(metrics) for metrics in self.curve]
        sign = 1.0 if objective.direction == "max" else -1.0
        epoch = int(np.argmax([sign * value if np.isfinite(value) else -np.inf for value in values]))
        return epoch + 1, values[epoch]


def read_trial(folder: Path) -> TrialRecord | None:
    """Reads the record of a trial's folder; None if the trial has not begun."""
    try:
        return TrialRecord(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def read_trials(folder: Path) -> dict[str, TrialRecord]:
    """Reads the records of all trials of a search by their ids, in the order of their numbers."""
    ids = sorted((path.name.removeprefix("trial_") for path in folder.glob("trial_*")), key=int)
    records = ((trial_id, read_trial(folder / f"trial_{trial_id}")) for trial_id in ids)
    return {trial_id: record for trial_id, record in records if record is not None}
