"""Median pruning: a trial is watched after each epoch, and ends early if it is worse than the others were by then."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfrs_fashion.models.fit import FitEndedError
from tfrs_fashion.run.objective import Objective
from tfrs_fashion.schema import RunError
from tfrs_fashion.tuning.trials import TrialRecord, read_trials


class TrialPrunedError(FitEndedError):
    """Ends a trial that is worse than the median of the others."""


def should_prune(curve: Sequence[float], others: Sequence[Sequence[float]], *, direction: str, min_trials: int) -> bool:
    """Tells whether the best of a curve so far is worse than the median of what other curves had reached by that epoch.

    Args:
        curve: `[num_epochs]`, the objective after each epoch so far.
        others: Curves of trials that have ended; one that is shorter counts with its best.
        direction: `max` or `min`.
        min_trials: The number of other trials below which nothing is pruned.

    Source: Golovin et al. 2017, Google Vizier, section 3.1, with the best value in place of the mean.
    """
    if len(others) < min_trials or not curve:
        return False
    best = max if direction == "max" else min
    median = float(np.median([best(other[: len(curve)]) for other in others]))
    return best(curve) < median if direction == "max" else best(curve) > median


@dataclass
class TrialMonitor:
    """Stores a trial's metrics after each epoch, and prunes the trial.

    Attributes:
        folder: The folder of the search.
        trial_id: The id of the trial.
        record: The record of the trial.
        objective: The metric that settings are chosen by.
        min_trials: The number of trials that must have ended before any is pruned; None if none ever is.
        epochs: The number of epochs of the whole trial, after the last of which there is nothing to prune.
    """

    folder: Path
    trial_id: str
    record: TrialRecord
    objective: Objective
    min_trials: int | None = None
    epochs: int | None = None
    _start: float = field(default_factory=time.monotonic)

    def __call__(self, metrics: dict[str, float]) -> None:
        """Adds the metrics of an epoch.

        Raises:
            TrialPrunedError: The others were better by now.
            RunError: The objective is not a number.
        """
        value = self.objective.read(metrics)
        if not np.isfinite(value):
            raise RunError(f"{self.objective.figure} is {value} after epoch {len(self.record.curve) + 1}")
        self.record.curve.append(metrics)
        self.save()
        if self.min_trials is None or len(self.record.curve) == self.epochs:
            return
        others = [
            self._read(other)
            for trial_id, other in read_trials(self.folder).items()
            # With more epochs the learning rate falls more slowly: such a trial is behind after the first ones.
            if trial_id != self.trial_id and other.is_evaluated and other.budget == self.record.budget
        ]
        curve = self._read(self.record)
        if should_prune(curve, others, direction=self.objective.direction, min_trials=self.min_trials):
            raise TrialPrunedError(metrics)

    def _read(self, record: TrialRecord) -> list[float]:
        return [self.objective.read(metrics) for metrics in record.curve]

    def save(self) -> None:
        """Writes the record as it stands."""
        self.record.seconds = round(time.monotonic() - self._start, 3)
        self.record.save(self.folder / f"trial_{self.trial_id}")
