"""The search over a run's settings: trials, each fitted as `train` fits to choose and judged on the validation window."""

import gc
import shutil
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import rich.box
import tensorflow as tf
from rich.markup import escape
from rich.table import Table

from tfrs_fashion.data.sources import source_files
from tfrs_fashion.data.split import Split
from tfrs_fashion.models.board import write_hparams
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.outputs import (
    code_fingerprint,
    exclusive_lock,
    files_fingerprint,
    fingerprint,
    stored_fingerprint,
    write_atomically,
)
from tfrs_fashion.recommenders.kinds import fit_recommender
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.objective import make_measure
from tfrs_fashion.run.train import Training
from tfrs_fashion.schema import InputError, RunError
from tfrs_fashion.settings.file import change, read_setting, write_pipeline
from tfrs_fashion.tuning.leaderboard import BUDGET, JudgedTrial, Leaderboard, format_value, write_leaderboard
from tfrs_fashion.tuning.oracle import Search, make_oracle
from tfrs_fashion.tuning.plan import SearchPlan
from tfrs_fashion.tuning.space import make_space
from tfrs_fashion.tuning.trials import (
    HopelessTrialError,
    TrialRecord,
    Watch,
    find_differences,
    hold,
    make_leaderboard,
    read_held,
    read_trials,
)
from tfrs_fashion.tuning.workers import check_environment, check_port, is_worker, run_workers, wait_for_chief, worker_id

# Trials that the command shows.
_NUM_SHOWN = 10


@dataclass
class Tune(Training):
    """One search in one run folder.

    Attributes:
        source: The pipeline file.
        overrides: What the command changed in it.
        base: Of a trial, the search that it belongs to.
    """

    source: Path = Path()
    overrides: tuple[str, ...] = ()
    base: "Tune | None" = None
    _oracle: Any = field(default=None, init=False, repr=False)

    @cached_property
    def plan(self) -> SearchPlan:
        """What is searched."""
        return SearchPlan(self.config)

    @property
    def search_folder(self) -> Path:
        """Where the search keeps its state."""
        return self.folder / "tune" / self.plan.recommender

    @property
    def _board_folder(self) -> Path:
        return self.folder / "tensorboard" / "tune" / self.plan.recommender

    @property
    def _wanted(self) -> dict[str, str]:
        """The fingerprints of what must be the same for a search to go on: all but how long it may take."""
        config = self.config
        searched = config.tune.model_dump(
            include={"algorithm", "factor", "num_initial_trials", "stops_hopeless", "space"}
        )
        objective = (self.plan.objective.figure, self.plan.objective.direction, config.tune.min_trials)
        data = (config.data.model_dump(), files_fingerprint([*source_files(config.data), *self._vector_files]))
        parts = {
            "the search ([tune])": (searched, objective),
            f"the settings of {self.plan.recommender}": config.settings_of(self.plan.recommender),
            "the split or how it is judged": (config.split.model_dump(), config.evaluation.model_dump()),
            "the seed": config.seed,
            "the data": data,
            "the code of the package": code_fingerprint(),
        }
        return {name: fingerprint("tune", self.plan.recommender, part) for name, part in parts.items()}

    # trials

    @cached_property
    def _parts(self) -> dict[str, tuple[str, Recommender]]:
        return {}

    def _fit_part(self, bench: "Tune", name: str) -> Recommender:
        """Fits what a recommender is made from; once, where trials differ in other settings."""
        key = fingerprint(bench.config.settings_of(name))
        if self._parts.get(name, ("",))[0] != key:
            log = TrainingLog(console=self.console)
            self._parts[name] = key, fit_recommender(name, bench.view("validation"), bench.config, choice={}, log=log)
        return self._parts[name][1]

    def _pool_folder(self, week: Split) -> Path:
        """The run's own pools, where a trial's settings make the same ones; others are kept apart from these."""
        own, key = super()._pool_folder(week), self._pooled(week)
        if self.base is None or key == self.base._pooled(week):
            return own
        return self.search_folder / "pools" / f"{own.name}_{key[:8]}"

    def _similar_folder(self, similar: str, first: Split) -> Path:
        own, key = super()._similar_folder(similar, first), self._similar_key(similar, first)
        if self.base is None or key == self.base._similar_key(similar, first):
            return own
        return self.search_folder / "similar" / own.parent.name / f"{similar}_{key[:8]}"

    def _run_trial(self, trial_id: str, values: dict[str, Any], budget: int | None) -> float:
        """Runs a trial, and returns the best objective of its epochs."""
        folder, tune, objective = self.search_folder, self.config.tune, self.plan.objective
        place = folder / f"trial_{trial_id}"
        former = TrialRecord.load(place)
        if former is not None and former.is_judged and (former.values, former.budget) == (values, budget):
            # Its process was killed before the search knew of it.
            return former.best(objective)[1]
        record = TrialRecord(values=values, budget=budget, attempts=(former.attempts if former else 0) + 1)
        # The pipeline's own settings, with which the first trial is made, are what others are compared with.
        stops = tune.stops_hopeless and self.plan.can_be_ended_early and int(trial_id) > 0
        min_trials = tune.min_trials if stops else None
        epochs = budget or (read_setting(self.config, self.plan.budget) if stops else None)
        watch = Watch(folder, trial_id, record, objective=objective, min_trials=min_trials, epochs=epochs)
        watch.keep()
        try:
            if record.attempts > tune.max_kills:
                raise RunError(
                    f"its process was killed {tune.max_kills} times while it ran: out of memory, perhaps. It is left out."
                )
            self._fit_trial(trial_id, values, budget, watch)
            record.status = "finished"
        except HopelessTrialError:
            record.status = "hopeless"
        except KeyboardInterrupt:
            record.attempts -= 1  # that was no fault of the trial's
            raise
        except Exception as error:
            record.status, record.error = "failed", f"{type(error).__name__}: {error}"
            (place / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            raise
        finally:
            watch.keep()
        _epoch, value = record.best(objective)
        return value

    def _fit_trial(
        self, trial_id: str, values: dict[str, Any], budget: int | None, watch: Callable[[dict[str, float]], None]
    ) -> None:
        # What a former trial has left behind makes room for this one.
        tf.keras.backend.clear_session()
        gc.collect()
        given = {} if budget is None else {self.plan.budget: budget}
        config = change(self.config, {**self.plan.complete(values), **given})
        name, bench = self.plan.recommender, self.with_config(config)
        bench.base = self
        log = replace(bench.log(name, "tune"), folder=self._board_folder / str(int(trial_id)))
        if not config.tensorboard.enabled:
            log = replace(log, folder=None)
        if self.plan.is_two_stage or name == "blend":
            # Several workers would write the same weeks.
            with exclusive_lock(self.folder / "ranked", waits=True):
                if self.plan.is_two_stage:
                    bench.ranker_weeks(name, bench.splits["test"])
                else:
                    num_weeks = config.blend.weeks + config.blend.validation_weeks
                    bench.pools(bench.splits["validation"], num_weeks=num_weeks)
        objective = self.plan.objective
        bench.judge_settings(
            name, objective=objective, watch=watch, fitted=lambda part: self._fit_part(bench, part), log=log
        )

    # the search

    def _check_held(self) -> None:
        """Refuses a folder that holds another search."""
        if other := find_differences(self.search_folder, self._wanted):
            raise InputError(
                f"{self.search_folder}: holds another search: {other} differ(s). Choose another --run-dir, or begin it anew with --force, "
                "which removes what it found."
            )

    def _take_folder(self, *, force: bool) -> None:
        """Takes up the search that the folder holds, or refuses it."""
        folder = self.search_folder
        if not force:
            self._check_held()
        if force:
            for left in (folder, self._board_folder):
                former = left.with_name(f".{left.name}.former")
                shutil.rmtree(former, ignore_errors=True)
                if left.exists():
                    left.rename(former)
                    shutil.rmtree(former)
        if read_held(folder) is None:
            hold(folder, self._wanted)
        elif kept := sum(record.status != "running" for record in read_trials(folder).values()):
            self._say(f"goes on: {kept} trial(s) of {folder} are kept")

    def _check_objective(self) -> None:
        """Refuses an objective that reports do not hold, before the first trial."""
        if self.plan.is_two_stage or self.plan.objective.is_of_customers:
            return
        view = self.view("validation")
        fallback = fit_recommender(self.config.export.fallback, view, self.config, choice={})
        told: dict[str, Any] = {
            "view": view,
            "tables": self.tables,
            "targets": self._targets("validation"),
            "config": self.config,
        }
        make_measure(self.plan.objective, **told)(fallback)

    def make_search(self, ended: threading.Event | None = None) -> Search:
        """Makes the search, as chief, worker or alone; a chief ends where `ended` is set."""
        tune = self.config.tune
        epochs = read_setting(self.config, self.plan.budget) if tune.algorithm == "hyperband" else 1
        space = make_space(tune, self.plan.own)
        figure = self.plan.objective.figure
        oracle = make_oracle(tune, space, objective=figure, max_epochs=epochs, seed=self.config.seed, ended=self._tell)
        return Search(oracle, self.search_folder, self._run_trial, settings=tune, objective=figure, ended=ended)

    def _tell(self, trial_id: str) -> None:
        """Shows how a trial ended."""
        record = TrialRecord.load(self.search_folder / f"trial_{trial_id}")
        assert record is not None
        found = (
            record.error
            if record.status == "failed"
            else f"{self.plan.objective.figure} {record.best(self.plan.objective)[1]:.4f}"
        )
        mark = {"failed": "failed: ", "hopeless": "ended early: "}.get(record.status, "")
        tune = self.config.tune
        done = sum(other.status != "running" for other in read_trials(self.search_folder).values())
        of_all = "" if tune.algorithm == "hyperband" else f" ({done} of {tune.max_trials})"
        self._say(
            f"  trial {int(trial_id)}{of_all}  {mark}{found}  {record.seconds:.0f} s  {self._in_words(record.values)}"
        )

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def tune(self, *, num_workers: int = 1, force: bool = False) -> None:
        """Searches, and writes `tune/<recommender>/leaderboard/`: the trials, what matters, and a pipeline file of the best.

        Args:
            num_workers: Processes that run trials side by side.
            force: Begin anew.

        Raises:
            InputError: The search cannot be run as it is declared.
            RunError: No trial succeeded, or too many in a row failed.
        """
        self.plan.check()
        check_environment()
        if is_worker():
            wait_for_chief(self._say)
            self._check_prepared()
            self._read()
            self.make_search().search()
            return
        if worker_id():
            check_port()
        if not force:
            self._check_held()
        self.prepare()
        self._check_objective()
        with exclusive_lock(self.search_folder.parent):
            self._take_folder(force=force)
            if num_workers > 1:
                arguments = ["tune", str(self.source), "--run-dir", str(self.folder)]
                arguments += [part for override in self.overrides for part in ("--set", override)]
                run_workers(
                    self._search,
                    arguments,
                    num_workers=num_workers,
                    progress=lambda: sum(record.attempts for record in read_trials(self.search_folder).values()),
                    logs=self.search_folder / "workers",
                    tell=self._say,
                )
            else:
                self._read()
                self._search()
            self._report()

    def _read(self) -> None:
        """Reads what trials share, once for all of them."""
        if not self.plan.is_two_stage:
            self.view("validation")

    def _search(self, ended: threading.Event | None = None) -> None:
        search = self.make_search(ended)
        # With workers it is in another thread that this one ends a little later than the search.
        self._oracle = search.oracle
        search.search()

    def _check_prepared(self) -> None:
        if stored_fingerprint(self.folder / "timelines") != self._prepared:
            raise InputError(
                f"{self.folder}: not prepared for this search. Start the chief first, with the same pipeline file and --run-dir; "
                "its workers share that folder."
            )
        other = find_differences(self.search_folder, self._wanted)
        if other:
            raise InputError(
                f"{self.search_folder}: the chief's is another search: {other} differ(s). A worker has the chief's pipeline file, --set and "
                "version of the package."
            )

    # what came of it

    def _report(self) -> None:
        config, board = self.config, make_leaderboard(self.search_folder, self.plan)
        if not board.trials:
            raise RunError(f"{self.search_folder}: no trial has ended. The same command goes on.")
        place, best = self.search_folder / "leaderboard", board.best
        with write_atomically(place) as partial:
            write_leaderboard(partial, board, title=config.name, algorithm=config.tune.algorithm, seed=config.seed)
            if best is not None:
                given = {} if best.budget is None else {self.plan.budget: best.budget}
                values = {**self.plan.complete(best.values), **given}
                write_pipeline(
                    self.source, partial / "best.toml", name=config.name, overrides=self.overrides, values=values
                )
        if config.tensorboard.enabled:
            write_hparams(
                self._board_folder,
                objective=board.objective,
                trials={trial.name: (_with_budget(trial), value) for trial, value in board.ranked},
            )
        self.messages.append(f"leaderboard: {place / 'leaderboard.html'}")
        if best is None:
            raise RunError(f"{board.sentence}; the last one: {board.trials[-1].error}. All are in {place}.")
        self._show(board)
        self.messages += [board.sentence, *board.hints, f"best settings: {place / 'best.toml'}"]
        if self._oracle is not None and self._oracle.gave_up:
            last = next(trial for trial in reversed(board.trials) if trial.status == "failed")
            raise RunError(
                f"{config.tune.max_failures} trials in a row failed, and the search was ended, e.g. trial {last.name}: "
                f"{last.error.rstrip('.')}. What went before is in {place}; with a higher `tune.max_failures` it goes on."
            )

    def _show(self, board: Leaderboard) -> None:
        table = Table(title=f"{board.recommender}, on {board.window}", box=rich.box.SIMPLE_HEAD, pad_edge=False)
        for column in ("trial", board.objective, "epoch", "settings"):
            table.add_column(column, overflow="fold")
        shown = [*board.ranked[:_NUM_SHOWN], *(found for found in board.ranked[_NUM_SHOWN:] if found[0] is board.own)]
        for trial, value in shown:
            mark = " (own)" if trial is board.own else ""
            table.add_row(
                trial.name + mark, f"{value:.4f}", str(trial.best_epoch), escape(self._in_words(trial.values))
            )
        self.console.print(table)
        how = [(status, sum(trial.status == status for trial in board.trials)) for status in ("hopeless", "failed")]
        words = {"hopeless": "ended early", "failed": "failed"}
        told = [f"{number} {words[status]}" for status, number in how if number]
        self.messages.append(", ".join([f"{len(board.trials)} trials, {len(shown)} shown above", *told]))

    def _in_words(self, values: Mapping[str, Any]) -> str:
        named = {name: values[name] for name in self.config.tune.space if name in values}
        return ", ".join(f"{name.rpartition('.')[2]} {format_value(value)}" for name, value in named.items())


def _with_budget(trial: JudgedTrial) -> dict[str, Any]:
    return {**trial.values, **({} if trial.budget is None else {BUDGET: trial.budget})}
