"""A search over settings by keras-tuner: which settings are tried next, by one process or by several.

keras-tuner's own tuners build and fit Keras 3 models; here its oracles alone are used, which choose the settings, and its
protocol between one chief and many workers. What a trial is, the caller says. A search may be killed at any moment: what is
finished is kept and not repeated, what was under way is done again.
"""

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner import errors
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.hyperparameters import Choice, Float, HyperParameter, Int
from keras_tuner.engine.oracle import Oracle
from keras_tuner.engine.trial import Trial
from keras_tuner.src.engine.conditions import Parent

from tfrs_fashion.evaluation.document import write_json
from tfrs_fashion.schema import InputError
from tfrs_fashion.tune_sections import ParameterConfig, TuneConfig, ordered, plain

# Of a trial, as keras-tuner calls it.
COMPLETED, FAILED, RUNNING, STOPPED = "COMPLETED", "FAILED", "RUNNING", "STOPPED"
# Between two questions for a trial, in seconds.
_PAUSE = 0.2
# What Hyperband says of a trial beside its settings.
_BUDGET = "tuner/epochs"


def _is_numeric(parameter: ParameterConfig) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in parameter.values)


def encode(parameter: ParameterConfig, value: Any) -> Any:
    """Returns a value as keras-tuner knows it: choices of one type, so that lists and mixed ones are JSON."""
    if parameter.type == "choice" and not _is_numeric(parameter):
        return json.dumps(plain(value))
    if parameter.type == "float" or (
        parameter.type == "choice" and any(isinstance(v, float) for v in parameter.values)
    ):
        return float(value)
    return value


def decode(parameter: ParameterConfig, value: Any) -> Any:
    """Returns the setting that `encode` was given."""
    if parameter.type == "choice":
        return value if _is_numeric(parameter) else json.loads(value)
    return int(value) if parameter.type == "int" else float(value)


def write_down(hp: HyperParameter, value: Any) -> Any:
    """Returns what is tried of a drawn value: four digits, as one would write it down, or a step of the range; the default as it is."""
    if value == hp.default or not isinstance(hp, Float | Int):
        return value
    # At the upper end of a logarithmic range keras-tuner rounds whole numbers beyond it.
    drawn = int(value) if isinstance(hp, Int) else float(f"{value:.{4 if hp.step is None else 10}g}")
    return min(max(drawn, hp.min_value), hp.max_value)


def count_settings(space: Mapping[str, ParameterConfig]) -> float:
    """Counts the settings that a space holds; conditions are not looked at, so that it is at most so many."""

    def count(parameter: ParameterConfig) -> float:
        if parameter.type == "choice":
            return len(parameter.values)
        step = parameter.step or (1 if parameter.type == "int" else None)
        assert parameter.low is not None
        assert parameter.high is not None
        return math.inf if step is None else math.floor((parameter.high - parameter.low) / step + 1e-9) + 1

    return math.prod(count(parameter) for parameter in space.values())


def count_hyperband_draws(max_epochs: int, factor: int) -> int:
    """Counts the settings that Hyperband draws in one sweep."""
    oracle = keras_tuner.oracles.HyperbandOracle(
        keras_tuner.Objective("any", "max"), max_epochs=max_epochs, factor=factor
    )
    return sum(oracle._get_size(bracket, 0) for bracket in range(oracle._get_num_brackets()))


def _holds(parameter: ParameterConfig, value: Any) -> bool:
    if parameter.type == "choice":
        return plain(value) in plain(parameter.values)
    assert parameter.low is not None
    assert parameter.high is not None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and parameter.low <= value <= parameter.high


def make_space(settings: TuneConfig, own: Mapping[str, Any]) -> keras_tuner.HyperParameters:
    """Makes the space of a search, in which every setting starts from the pipeline's own.

    Args:
        settings: Of the search.
        own: What the pipeline says of each setting of the space.

    Raises:
        InputError: The pipeline's own value of a setting is not in the space, so there would be nothing to compare with.
    """
    space = keras_tuner.HyperParameters()
    for name in ordered(settings.space):
        parameter = settings.space[name]
        if not _holds(parameter, own[name]):
            known = (
                f"none of {', '.join(repr(plain(value)) for value in parameter.values)}"
                if parameter.type == "choice"
                else f"not between {parameter.low:g} and {parameter.high:g}"
            )
            raise InputError(
                f"tune.space.{name}: the pipeline's own value is {plain(own[name])!r}, which is {known}. A search starts from it, to have "
                "what it is compared with: widen the range, or change the pipeline's value."
            )
        space.merge([_make_parameter(name, parameter, settings.space, default=encode(parameter, own[name]))])
    return space


def _make_parameter(
    name: str, parameter: ParameterConfig, others: Mapping[str, ParameterConfig], *, default: Any
) -> HyperParameter:
    conditions = [
        Parent(other, [encode(others[other], value) for value in values]) for other, values in parameter.when.items()
    ]
    told: dict[str, Any] = {"default": default, "conditions": conditions}
    if parameter.type == "choice":
        choices = [encode(parameter, value) for value in parameter.values]
        return Choice(name, choices, ordered=_is_numeric(parameter), **told)
    assert parameter.low is not None
    assert parameter.high is not None
    told["sampling"] = "log" if parameter.log else "linear"
    if parameter.type == "float":
        return Float(name, parameter.low, parameter.high, step=parameter.step, **told)
    step = None if parameter.log else int(parameter.step or 1)
    return Int(name, int(parameter.low), int(parameter.high), step=step, **told)


class _Kept:
    """What is added to keras-tuner's oracles: files written whole, a first trial by the pipeline's own settings, no repeats.

    Attributes:
        failures: So many trials in a row that fail end the search.
        ended: Is told the id of each trial that ends.
        deadline: After this moment of `time.monotonic` no trial begins.
        gave_up: Whether failures ended the search.
    """

    gave_up = False
    failures: int
    deadline: float
    ended: Callable[[str], None]

    def end_trial(self: Any, trial: Trial) -> None:
        """Keeps how a trial ended."""
        super().end_trial(trial)  # type: ignore[misc]
        self.ended(trial.trial_id)

    def save(self: Any) -> None:
        """Writes the state of the search."""
        write_json(Path(self._get_oracle_fname()), self.get_state())

    def _save_trial(self: Any, trial: Trial) -> None:
        write_json(Path(self._get_trial_dir(trial.trial_id)) / "trial.json", trial.get_state())

    def reload(self: Any) -> None:
        """Reads what a former process left, however it ended."""
        super().reload()  # type: ignore[misc]
        for trial_id, trial in list(self.trials.items()):
            if trial_id not in self.start_order:
                # Written by a process that was killed before it said so of the search: nothing was done for it.
                del self.trials[trial_id]
                shutil.rmtree(self._get_trial_dir(trial_id))
            elif trial.status in (COMPLETED, FAILED):
                # Finished, by a process that was killed before it said so of the search.
                self._retry_queue = [other for other in self._retry_queue if other != trial_id]
                if trial_id not in self.end_order:
                    self.end_order.append(trial_id)

    def is_given_up(self: Any) -> bool:
        """Tells whether too many trials in a row failed."""
        last = [self.trials[trial_id].status for trial_id in self.end_order[-self.failures :]]
        return len(last) == self.failures and set(last) == {FAILED}

    def populate_space(self: Any, trial_id: str) -> dict[str, Any]:
        """Chooses the settings of the next trial."""
        self.gave_up = self.is_given_up()
        if self.gave_up or time.monotonic() > self.deadline:
            return {"status": STOPPED, "values": None}
        found: dict[str, Any] = super().populate_space(trial_id)  # type: ignore[misc]
        if found["status"] != RUNNING:
            return found
        values = self._write_down(found["values"])
        # A halving of Hyperband is meant to take up settings again; the others are not.
        for _time in range(self._max_collisions):
            if _BUDGET in values or not self._duplicate(values):
                return {"status": RUNNING, "values": values}
            if (drawn := self._random_values()) is None:
                break
            values = self._write_down(drawn)
        return {"status": STOPPED, "values": None}

    def _write_down(self: Any, values: dict[str, Any]) -> dict[str, Any]:
        known = {hp.name: hp for hp in self.get_space().space}
        return {name: write_down(known[name], value) if name in known else value for name, value in values.items()}

    def _random_values(self: Any) -> dict[str, Any] | None:
        if self.start_order:
            values: dict[str, Any] | None = super()._random_values()  # type: ignore[misc]
            return values
        space = self.get_space()
        return {hp.name: hp.default for hp in space.space if space.is_active(hp)}


class _Random(_Kept, keras_tuner.oracles.RandomSearchOracle):
    """Settings by chance."""


class _Bayesian(_Kept, keras_tuner.oracles.BayesianOptimizationOracle):
    """Settings that a Gaussian process expects much of, or knows little of."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Chooses the settings of the next trial, alike in a search that goes on and in one that was never killed."""
        self._random_state = np.random.RandomState(self.seed + len(self.start_order))
        return super().populate_space(trial_id)


class _Hyperband(_Kept, keras_tuner.oracles.HyperbandOracle):
    """Many trials of few epochs, the better ones of more."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where a former process ended, for as many sweeps as are asked for now."""
        sweeps = self.hyperband_iterations  # type: ignore[has-type]
        super().set_state(state)
        self.hyperband_iterations = sweeps

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Chooses the settings of the next trial; those that failed count as the worst, or no round would end with them."""
        # Who gives up counts them as what they are.
        failed = [] if self.is_given_up() else [trial for trial in self.trials.values() if trial.status == FAILED]
        worst = -math.inf if self.objective.direction == "max" else math.inf
        for trial in failed:
            trial.status, trial.score = COMPLETED, worst
        try:
            return super().populate_space(trial_id)
        finally:
            for trial in failed:
                trial.status, trial.score = FAILED, None


def make_oracle(
    settings: TuneConfig,
    space: keras_tuner.HyperParameters,
    *,
    objective: str,
    max_epochs: int,
    seed: int,
    ended: Callable[[str], None],
) -> Oracle:
    """Makes what chooses settings.

    Args:
        settings: Of the search.
        space: See `make_space`.
        objective: The figure.
        max_epochs: Of a whole trial, with `hyperband`.
        seed: Of what is drawn.
        ended: Is told the id of each trial that ends.
    """
    told: dict[str, Any] = {
        "objective": keras_tuner.Objective(objective, settings.direction),
        "hyperparameters": space,
        "allow_new_entries": False,
        # Its 0 is no seed.
        "seed": seed + 1,
        # Failures are counted here, where they end a search without an error in the midst of the protocol.
        "max_consecutive_failed_trials": 1_000_000_000,
    }
    oracle: Any
    match settings.algorithm:
        case "random":
            oracle = _Random(max_trials=settings.max_trials, **told)
        case "bayesian":
            num_initial = settings.num_initial_trials or None
            oracle = _Bayesian(max_trials=settings.max_trials, num_initial_points=num_initial, **told)
        case "hyperband":
            sweeps = settings.num_sweeps
            oracle = _Hyperband(max_epochs=max_epochs, factor=settings.factor, hyperband_iterations=sweeps, **told)
    oracle.failures, oracle.ended = settings.max_failures, ended
    oracle.deadline = time.monotonic() + 60.0 * settings.max_minutes if settings.max_minutes else math.inf
    oracle.verbose = 0
    return oracle


class Search(BaseTuner):
    """Runs trials until the oracle has no more.

    Args:
        oracle: See `make_oracle`.
        folder: Where the search keeps its state, `oracle.json` and a folder a trial.
        run: Runs the trial of an id with some settings and, with Hyperband, a number of epochs; gives the objective.
        settings: Of the search.
        objective: The figure.
    """

    def __init__(
        self,
        oracle: Oracle,
        folder: Path,
        run: Callable[[str, dict[str, Any], int | None], float],
        *,
        settings: TuneConfig,
        objective: str,
    ) -> None:
        self._run, self._settings, self._objective = run, settings, objective
        # It prints which file it goes on from, which is no news to whoever gave the same command again.
        with contextlib.redirect_stdout(None):
            super().__init__(oracle, directory=str(folder.parent), project_name=folder.name)

    def _get_tuner_fname(self) -> str:
        # One for all processes: a search that one began goes on with several, and the other way round.
        return os.path.join(self.project_dir, "tuner.json")

    def save(self) -> None:
        """Writes the state of the search, whole; a worker has none."""
        if not self._is_worker():
            self.oracle.save()
            write_json(Path(self._get_tuner_fname()), self.get_state())

    def pre_create_trial(self) -> None:
        """Waits a little, since there may be nothing to do until other workers have ended their trials."""
        time.sleep(_PAUSE)

    def run_trial(self, trial: Trial, *_args: Any, **_settings: Any) -> dict[str, float]:
        """Runs one trial."""
        values = dict(trial.hyperparameters.values)
        space = self._settings.space
        told = {name: decode(space[name], value) for name, value in values.items() if name in space}
        found = self._run(trial.trial_id, told, values.get(_BUDGET))
        if not math.isfinite(found):
            raise errors.FailedTrialError(f"{self._objective} is {found}")
        return {self._objective: float(found)}
