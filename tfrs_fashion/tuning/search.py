"""The trials of a search: each is fitted as `train` fits to choose, and evaluated on the validation window."""

import gc
import traceback
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.outputs import exclusive_lock, fingerprint
from tfrs_fashion.recommenders.kinds import fit_recommender
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.train import Training
from tfrs_fashion.schema import RunError
from tfrs_fashion.settings.file import change
from tfrs_fashion.tuning.definition import SearchDefinition
from tfrs_fashion.tuning.leaderboard import Leaderboard, format_value
from tfrs_fashion.tuning.pruning import TrialMonitor, TrialPrunedError
from tfrs_fashion.tuning.trials import TrialRecord, read_trial, read_trials


class TrialWorkspace(Training):
    """A run, or a trial that reads the run's pools where its settings make the same ones, and writes its own elsewhere."""

    base: Any = None
    search_folder: Path = Path()

    def _pool_folder(self, week: Any) -> Path:
        own, key = super()._pool_folder(week), self._pooled(week)
        same = self.base is None or key == self.base._pooled(week)
        return own if same else self.search_folder / "pools" / f"{own.name}_{key[:8]}"

    def _similar_folder(self, similar: str, first: Any) -> Path:
        own, key = super()._similar_folder(similar, first), self._similar_key(similar, first)
        same = self.base is None or key == self.base._similar_key(similar, first)
        return own if same else self.search_folder / "similar" / own.parent.name / f"{similar}_{key[:8]}"


@dataclass
class Search:
    """What the trials of one search share.

    Attributes:
        workspace: The run whose settings are searched.
    """

    workspace: TrialWorkspace
    _parts: dict[str, tuple[str, Recommender]] = field(default_factory=dict)

    @cached_property
    def definition(self) -> SearchDefinition:
        """Which settings are searched, and by which metric."""
        return SearchDefinition(self.workspace.config)

    @property
    def folder(self) -> Path:
        """Where the search keeps its state."""
        return self.workspace.folder / "tune" / self.definition.recommender

    @property
    def tensorboard_folder(self) -> Path:
        """The TensorBoard logs of the trials."""
        return self.workspace.folder / "tensorboard" / "tune" / self.definition.recommender

    def run_trial(self, trial_id: str, values: dict[str, Any], budget: int | None) -> float:
        """Runs a trial, keeps its record, and returns the best objective of its epochs.

        Args:
            trial_id: The id by which the oracle knows it.
            values: Its settings; those whose conditions do not hold are missing.
            budget: The number of epochs that Hyperband gives it.
        """
        folder, definition, tune = self.folder / f"trial_{trial_id}", self.definition, self.workspace.config.tune
        former = read_trial(folder)
        if former is not None and former.is_evaluated and (former.values, former.budget) == (values, budget):
            # Its process was killed before the oracle knew.
            return former.best(definition.objective)[1]
        attempts = (former.attempts if former else 0) + 1
        record = TrialRecord(str(int(trial_id)), values, budget, attempts)
        epochs = budget or definition.max_epochs
        # The first trial has the pipeline's own settings, the baseline. Trees are evaluated once, after all of their rounds.
        prunes = tune.prune and int(trial_id) > 0 and epochs and definition.epochs_setting.endswith(".epochs")
        min_trials = tune.min_trials if prunes else None
        monitor = TrialMonitor(self.folder, trial_id, record, definition.objective, min_trials, epochs)
        monitor.save()
        try:
            if attempts > tune.max_kills:
                raise RunError(
                    f"its process was killed {tune.max_kills} times while it ran: out of memory, perhaps. It is left out."
                )
            self._fit_trial(monitor)
            record.status = "finished"
        except TrialPrunedError:
            record.status = "pruned"
        except KeyboardInterrupt:
            record.attempts -= 1  # not the fault of the trial
            raise
        except Exception as error:
            record.status, record.error = "failed", f"{type(error).__name__}: {error}"
            (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            raise
        finally:
            monitor.save()
        return record.best(definition.objective)[1]

    def _fit_trial(self, monitor: TrialMonitor) -> None:
        # Frees the memory of the trial before.
        tf.keras.backend.clear_session()
        gc.collect()
        name, record, workspace = self.definition.recommender, monitor.record, self.workspace
        budget = {} if record.budget is None else {self.definition.epochs_setting: record.budget}
        config = change(workspace.config, {**self.definition.complete(record.values), **budget})
        if self.definition.ranker_settings is None:
            workspace.view("validation")
        trial = workspace.with_config(config)
        trial.base, trial.search_folder = workspace, self.folder
        log_folder = self.tensorboard_folder / record.name if config.tensorboard.enabled else None
        log = replace(trial.log(name, "tune"), folder=log_folder)
        if self.definition.ranker_settings is not None or name == "blend":
            # Workers must not write the same weeks at the same time.
            with exclusive_lock(workspace.folder / "ranked", waits=True):
                if self.definition.ranker_settings is not None:
                    trial.ranker_weeks(name, trial.splits["test"])
                else:
                    num_weeks = config.blend.weeks + config.blend.validation_weeks
                    trial.pools(trial.splits["validation"], num_weeks=num_weeks)
        evaluate_settings(
            trial,
            name,
            objective=self.definition.objective,
            watch=monitor,
            part=lambda part: self._fit_part(trial, part),
            log=log,
        )

    def _fit_part(self, trial: Training, name: str) -> Recommender:
        """Fits a recommender that the searched one is made from; only once, unless trials differ in its settings."""
        key = fingerprint(trial.config.settings_of(name))
        if self._parts.get(name, ("",))[0] != key:
            log = TrainingLog(console=trial.console)
            self._parts[name] = key, fit_recommender(name, trial.view("validation"), trial.config, choice={}, log=log)
        return self._parts[name][1]

    def show_end(self, trial_id: str) -> None:
        """Prints how a trial ended."""
        record, tune = read_trial(self.folder / f"trial_{trial_id}"), self.workspace.config.tune
        assert record is not None
        if record.status == "failed":
            result = f"failed: {record.error}"
        else:
            value = record.best(self.definition.objective)[1]
            result = f"{'pruned: ' * (record.status == 'pruned')}{self.definition.objective.figure} {value:.4f}"
        num_ended = sum(other.status != "running" for other in read_trials(self.folder).values())
        of_all = "" if tune.algorithm == "hyperband" else f" ({num_ended} of {tune.max_trials})"
        self.show(
            f"  trial {record.name}{of_all}  {result}  {record.seconds:.0f} s  {self.describe_values(record.values)}"
        )

    def show(self, line: str) -> None:
        """Prints a line."""
        self.workspace.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def describe_values(self, values: dict[str, Any]) -> str:
        """Lists the settings of a trial in a few words."""
        return ", ".join(f"{name.rpartition('.')[2]} {format_value(value)}" for name, value in values.items())

    def make_leaderboard(self) -> Leaderboard:
        """Makes the leaderboard of the trials that have ended."""
        definition, tune = self.definition, self.workspace.config.tune
        return Leaderboard(
            recommender=definition.recommender,
            objective=definition.objective,
            space=tune.space,
            trials=[record for record in read_trials(self.folder).values() if record.status != "running"],
            window="validation" if definition.ranker_settings is None else "the last week before test",
            max_epochs=definition.max_epochs if tune.algorithm == "hyperband" else None,
        )


def evaluate_settings(trial: Training, name: str, *, objective: Any, watch: Any, part: Any, log: Any) -> None:
    """Fits and evaluates a recommender; see `Training.judge_settings`."""
    trial.judge_settings(name, objective=objective, watch=watch, fitted=part, log=log)
