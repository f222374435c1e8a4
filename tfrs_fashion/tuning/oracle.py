"""A search over settings by keras-tuner: which settings are tried next, by one process or by several.

keras-tuner's own tuners build and fit Keras 3 models; here its oracles alone are used, which choose the settings, and its
protocol between one chief and many workers. What a trial is, the caller says. A search may be killed at any moment: what is
finished is kept and not repeated, what was under way is done again.
"""

import contextlib
import math
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import keras_tuner
import keras_tuner.src.config
import numpy as np
from keras_tuner import errors
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.oracle import Oracle
from keras_tuner.engine.trial import Trial
from keras_tuner.src import protos
from keras_tuner.src.distribute import utils as distribute
from keras_tuner.src.distribute.oracle_chief import OracleServicer, exit_chief
from keras_tuner.src.engine import conditions

from tfrs_fashion.evaluation.document import write_json
from tfrs_fashion.settings.tune import TuneConfig
from tfrs_fashion.tuning.space import decode, write_down

# It would print the traceback of each trial that fails, which is kept in the trial's folder, and a value of each condition.
keras_tuner.src.config.DEBUG = False
conditions.print = lambda *_told: None
# How far from what was tried the Gaussian process is asked for neighbours, as a share of each range, and for how many.
_NEAR, _NUM_NEAR = 0.1, 500
# Of a trial, as keras-tuner calls it.
COMPLETED, FAILED, RUNNING, STOPPED = "COMPLETED", "FAILED", "RUNNING", "STOPPED"
# Between two questions for a trial, in seconds.
_PAUSE = 0.2
# What Hyperband says of a trial beside its settings.
_BUDGET = "tuner/epochs"


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
            if (drawn := self._draw_another(values)) is None:
                break
            values = self._write_down(drawn)
        return {"status": STOPPED, "values": None}

    def _draw_another(self: Any, _values: dict[str, Any]) -> dict[str, Any] | None:
        """Draws settings in place of some that were tried before; None where there are no others."""
        drawn: dict[str, Any] | None = self._random_values()
        return drawn

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

    def _draw_another(self, values: dict[str, Any]) -> dict[str, Any] | None:
        """Takes, of neighbours and of others by chance, those that were not tried and that the process expects most of."""
        space = self._nonfixed_space()

        def place(values: dict[str, Any]) -> list[float]:
            return [hp.value_to_prob(values.get(hp.name, hp.default)) for hp in space]

        near = place(values) + self._random_state.normal(0.0, _NEAR, (_NUM_NEAR, len(space)))
        far = self._random_state.uniform(size=(_NUM_NEAR, len(space)))
        others = (self._write_down(self._vector_to_values(at)) for at in np.clip(np.concatenate([near, far]), 0.0, 1.0))
        untried = {repr(other): other for other in others if not self._duplicate(other)}
        if not untried:
            return super()._draw_another(values)
        known = list(untried.values())
        mean, deviation = self.gpr.predict(np.array([place(other) for other in known]), return_std=True)
        return known[int(np.argmin(mean - self.beta * deviation))]


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
        ended: Ends what a chief does, once it is set.
    """

    def __init__(
        self,
        oracle: Oracle,
        folder: Path,
        run: Callable[[str, dict[str, Any], int | None], float],
        *,
        settings: TuneConfig,
        objective: str,
        ended: threading.Event | None = None,
    ) -> None:
        self._run, self._settings, self._objective = run, settings, objective
        self._ended = ended or threading.Event()
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

    def search(self) -> None:
        """Runs trials, or as the chief of several processes has them run by its workers, until there are no more."""
        if not distribute.is_chief_oracle():
            super().search()
            return
        self.save()
        servicer = OracleServicer(self.oracle)
        server = grpc.server(ThreadPoolExecutor(max_workers=1))
        protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
        server.add_insecure_port(f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}")
        server.start()
        try:
            # keras-tuner's own loop may notice the end twenty seconds later.
            while not self._ended.wait(_PAUSE) and not (servicer.stop_triggered and exit_chief(self.oracle)):
                pass
        finally:
            server.stop(grace=1.0).wait()

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
