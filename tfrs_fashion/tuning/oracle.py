"""keras-tuner's oracles, which choose the settings of the next trial, and its loop and protocol that run the trials.

keras-tuner's own tuners build and fit Keras 3 models; only its oracles are used here, and its protocol between one chief and
many workers. A search may be killed at any moment: finished trials are kept, and those under way are repeated.
"""

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import keras_tuner
import keras_tuner.src.config
import numpy as np
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.oracle import Oracle
from keras_tuner.engine.trial import Trial
from keras_tuner.src import protos
from keras_tuner.src.distribute import utils as distribute
from keras_tuner.src.distribute.oracle_chief import OracleServicer, exit_chief
from keras_tuner.src.engine import conditions

from tfrs_fashion.evaluation.document import write_json
from tfrs_fashion.schema import InputError, RunError
from tfrs_fashion.settings.tune import TuneConfig
from tfrs_fashion.tuning.space import decode, round_values

# Otherwise keras-tuner prints the traceback of each failed trial, which is kept in the trial's folder, and values of conditions.
keras_tuner.src.config.DEBUG = False
conditions.print = lambda *_args: None
# keras-tuner writes its files in place: a kill in the middle of that would leave half a file.
keras_tuner.src.utils.save_json = lambda path, state: write_json(Path(path), state)
COMPLETED, FAILED, RUNNING, STOPPED = "COMPLETED", "FAILED", "RUNNING", "STOPPED"
# The hyperparameter by which Hyperband says how many epochs a trial has.
_EPOCHS = "tuner/epochs"
# The spread of neighbours around a point that was tried already, as a share of each range, and their number.
_NEIGHBOUR_SPREAD, _NUM_NEIGHBOURS = 0.1, 500
# Between two requests for a trial.
_PAUSE_SECONDS = 0.2
# More initial trials than any search has: a Bayesian search of random trials alone is a random search.
_ALL_RANDOM = 1_000_000_000


@dataclass
class StopRule:
    """Ends a search before all its trials have run.

    Attributes:
        max_failures: The number of trials failing in a row that ends it.
        deadline: The value of `time.monotonic` after which no trial begins.
        gave_up: Whether failures have ended it.
    """

    max_failures: int
    deadline: float
    gave_up: bool = False

    def applies(self, oracle: Oracle) -> bool:
        """Tells whether no further trial is to begin."""
        last = [oracle.trials[trial_id].status for trial_id in oracle.end_order[-self.max_failures :]]
        self.gave_up = last.count(FAILED) == self.max_failures
        return self.gave_up or time.monotonic() > self.deadline


def _default_values(space: keras_tuner.HyperParameters) -> dict[str, Any]:
    return {parameter.name: parameter.default for parameter in space.space if space.is_active(parameter)}


def _repair(oracle: Oracle) -> list[str]:
    """Makes the state that a killed process left consistent, and returns the ids of the trials that it had not finished.

    A trial's own file is written before the file of the search. So a trial that the search does not know was never begun, and
    one that the search believes to be running may have ended.
    """
    oracle.trials = {trial_id: oracle.trials[trial_id] for trial_id in oracle.start_order}
    unfinished = [trial_id for trial_id, trial in oracle.trials.items() if trial.status == RUNNING]
    oracle.end_order += [each for each in oracle.trials if each not in {*unfinished, *oracle.end_order}]
    return unfinished


class _BayesianOracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """Random trials, and then those that a Gaussian process expects to be good or knows little about; none twice."""

    stop: StopRule

    def reload(self) -> None:
        """Reads what a former process left, however it ended."""
        super().reload()
        self._retry_queue = _repair(self)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Chooses the settings of the next trial."""
        if self.stop.applies(self):
            return {"status": STOPPED}
        if not self.start_order:
            return {"status": RUNNING, "values": _default_values(self.get_space())}
        # A resumed search must choose what an uninterrupted one would have chosen.
        self._random_state = np.random.RandomState(self.seed + len(self.start_order))
        values = super().populate_space(trial_id)["values"]
        for _attempt in range(self._max_collisions):
            if values is None:
                break
            values = round_values(self.get_space(), values)
            if not self._duplicate(values):
                return {"status": RUNNING, "values": values}
            values = self._choose_another(values)
        return {"status": STOPPED}

    def _choose_another(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """Chooses other settings in place of some that were tried before; None if all were.

        The Gaussian process ranks neighbours of these settings, and random ones, by its lower confidence bound.
        """
        if self.num_initial_points == _ALL_RANDOM:
            return self._random_values()
        parameters = self._nonfixed_space()

        def embed(values: dict[str, Any]) -> list[float]:
            return [parameter.value_to_prob(values.get(parameter.name, parameter.default)) for parameter in parameters]

        size = (_NUM_NEIGHBOURS, len(parameters))
        near = embed(values) + self._random_state.normal(0.0, _NEIGHBOUR_SPREAD, size)
        far = self._random_state.uniform(size=size)
        points = np.clip(np.concatenate([near, far]), 0.0, 1.0)
        drawn = (round_values(self.get_space(), self._vector_to_values(point)) for point in points)
        untried = list({repr(other): other for other in drawn if not self._duplicate(other)}.values())
        if not untried:
            return self._random_values()
        mean, deviation = self.gpr.predict(np.array([embed(other) for other in untried]), return_std=True)
        return untried[int(np.argmin(mean - self.beta * deviation))]


class _HyperbandOracle(keras_tuner.oracles.HyperbandOracle):
    """Many trials of few epochs, of which the better ones are repeated with more."""

    stop: StopRule

    def reload(self) -> None:
        """Reads what a former process left, however it ended."""
        super().reload()
        self._retry_queue = _repair(self)

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a state, except for the number of sweeps, which may be raised."""
        super().set_state({**state, "hyperband_iterations": self.hyperband_iterations})

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Chooses the settings and the number of epochs of the next trial."""
        if self.stop.applies(self):
            return {"status": STOPPED}
        # keras-tuner waits for all trials of a round to be completed: failed ones count as the worst while it chooses.
        failed = [trial for trial in self.trials.values() if trial.status == FAILED]
        for trial in failed:
            trial.status, trial.score = COMPLETED, -math.inf if self.objective.direction == "max" else math.inf
        try:
            response: dict[str, Any] = super().populate_space(trial_id)
        finally:
            for trial in failed:
                trial.status, trial.score = FAILED, None
        if response["status"] == RUNNING and self.start_order:
            response["values"] = round_values(self.get_space(), response["values"])
        elif response["status"] == RUNNING:
            schedule = {name: value for name, value in response["values"].items() if name.startswith("tuner/")}
            response["values"] = {**_default_values(self.get_space()), **schedule}
            self._seed_state = self.seed  # as if nothing had been drawn
        return response


def make_oracle(
    settings: TuneConfig, space: keras_tuner.HyperParameters, *, objective: str, max_epochs: int, seed: int
) -> Oracle:
    """Makes the oracle of a search; its attribute `stop` is the `StopRule`.

    Args:
        settings: The section `[tune]`.
        space: The space, from `make_space`; its defaults are the settings of the first trial.
        objective: The metric.
        max_epochs: The epochs of a whole trial; read by `hyperband`.
        seed: The random seed.
    """
    kwargs: dict[str, Any] = {
        "objective": keras_tuner.Objective(objective, settings.direction),
        "hyperparameters": space,
        "allow_new_entries": False,
        # keras-tuner takes a seed of 0 for none.
        "seed": seed + 1,
        # keras-tuner would raise an error in the midst of its protocol; see StopRule.
        "max_consecutive_failed_trials": 1_000_000_000,
    }
    oracle: Any
    if settings.algorithm == "hyperband":
        sweeps = settings.num_sweeps
        oracle = _HyperbandOracle(max_epochs=max_epochs, factor=settings.factor, hyperband_iterations=sweeps, **kwargs)
    else:
        num_initial = _ALL_RANDOM if settings.algorithm == "random" else settings.num_initial_trials or None
        oracle = _BayesianOracle(max_trials=settings.max_trials, num_initial_points=num_initial, **kwargs)
    deadline = time.monotonic() + 60.0 * settings.max_minutes if settings.max_minutes else math.inf
    oracle.stop = StopRule(settings.max_failures, deadline)
    oracle.verbose = 0
    return oracle


def count_hyperband_draws(max_epochs: int, factor: int) -> int:
    """Counts the different settings that Hyperband draws in one sweep.

    Source: Li et al. 2018, Hyperband, algorithm 1, with the sizes of brackets that keras-tuner computes.
    """
    halvings = math.log(max_epochs, factor)
    brackets = range(math.floor(halvings + 1e-9) + 1)
    return sum(math.ceil(math.ceil(1 + halvings) / (bracket + 1) * factor**bracket) for bracket in brackets)


class TrialLoop(BaseTuner):
    """Runs trials until the oracle has no more; its progress is stored, so the next process goes on from there.

    Args:
        oracle: See `make_oracle`.
        folder: The folder of the search: `oracle.json`, and a folder `trial_<id>` per trial.
        run: Runs the trial of an id with some settings and, with Hyperband, a number of epochs; returns the objective.
        settings: The section `[tune]`.
        on_end: Called with the id of each trial that ended.
    """

    def __init__(
        self,
        oracle: Oracle,
        folder: Path,
        run: Callable[[str, dict[str, Any], int | None], float],
        *,
        settings: TuneConfig,
        on_end: Callable[[str], None] = lambda _trial_id: None,
    ) -> None:
        super().__init__(oracle, directory=str(folder.parent), project_name=folder.name)
        self._run, self._space, self._on_end = run, settings.space, on_end
        # keras-tuner resumes from a file per process: a search begun by one process could not be resumed by several.
        if not self._is_worker() and (folder / "oracle.json").exists():
            oracle.reload()

    def save(self) -> None:
        """Writes the state of the search; a worker has none."""
        if not self._is_worker():
            self.oracle.save()

    def search(self, stopped: Event | None = None) -> None:
        """Runs trials, or as a chief has them run by its workers, until there are no more or `stopped` is set."""
        stopped = stopped or Event()
        if not distribute.is_chief_oracle():
            super().search()
            return
        self.save()
        servicer = OracleServicer(self.oracle)
        # By default two chiefs could listen at one address, and serve the workers in turns.
        server = grpc.server(ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)])
        protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
        address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
        try:
            server.add_insecure_port(address)
        except RuntimeError as error:
            raise InputError(
                f"KERASTUNER_ORACLE_IP, KERASTUNER_ORACLE_PORT: cannot listen on {address}. Another search may do so: choose another port "
                "for this one and its workers."
            ) from error
        server.start()
        num_ended, is_over = len(self.oracle.end_order), False
        try:
            # keras-tuner's own loop may notice the end twenty seconds later.
            while not is_over:
                is_over = stopped.wait(_PAUSE_SECONDS) or (servicer.stop_triggered and exit_chief(self.oracle))
                for trial_id in self.oracle.end_order[num_ended:]:
                    self._on_end(trial_id)
                    num_ended += 1
        finally:
            server.stop(grace=1.0).wait()

    def pre_create_trial(self) -> None:
        """Pauses: there may be nothing to do until other workers have ended their trials."""
        time.sleep(_PAUSE_SECONDS)

    def run_trial(self, trial: Trial, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Runs one trial; keras-tuner counts one that raises an error as failed."""
        values = dict(trial.hyperparameters.values)
        settings = {name: decode(self._space[name], value) for name, value in values.items() if name in self._space}
        objective = self._run(trial.trial_id, settings, values.get(_EPOCHS))
        if not math.isfinite(objective):
            raise RunError(f"the objective is {objective}")
        return {self.oracle.objective.name: float(objective)}

    def on_trial_end(self, trial: Trial) -> None:
        """Tells the oracle, and whoever listens."""
        super().on_trial_end(trial)
        self._on_end(trial.trial_id)
