"""The search over a run's settings: trials, each fitted as `train` fits to choose and judged on the validation window."""

import gc
import json
import shutil
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import rich.box
import tensorflow as tf
from rich.markup import escape
from rich.table import Table

from tfrs_fashion.config import PipelineConfig
from tfrs_fashion.data.sources import source_files
from tfrs_fashion.evaluation.leaderboard import JudgedTrial, Leaderboard, format_value, write_leaderboard
from tfrs_fashion.fitting import fit_recommender
from tfrs_fashion.models.board import write_hparams
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.objective import Objective, make_measure
from tfrs_fashion.pipeline_file import change, read_setting, write_pipeline
from tfrs_fashion.ranking_sections import TwoStageConfig
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.schema import InputError, RunError
from tfrs_fashion.search import Search, is_worker, make_oracle, make_space
from tfrs_fashion.stage import files_fingerprint, fingerprint, only_one, stored_fingerprint, write_whole
from tfrs_fashion.training import Training
from tfrs_fashion.trials import HopelessTrialError, TrialRecord, Watch, read_trials
from tfrs_fashion.tune_sections import plain
from tfrs_fashion.workers import run_workers

# Settings that a search may not touch: what is judged would be another thing from trial to trial, or would be prepared anew.
_TUNABLE = ("two_tower", "generators", "blend", "features")
_PREPARED = (
    "features.profile",
    "features.profile_numbers",
    "features.images",
    "features.sentence_encoder",
    "features.roles",
)


@dataclass
class Tune(Training):
    """One search in one run folder.

    Attributes:
        source: The pipeline file.
        overrides: What the command changed in it.
    """

    source: Path = Path()
    overrides: tuple[str, ...] = ()

    @property
    def recommender(self) -> str:
        """The recommender whose settings are searched."""
        return self.config.tune.recommender or self.config.servable[self.config.recommend.recommender][0]

    @property
    def objective(self) -> Objective:
        """What settings are chosen by."""
        tune = self.config.tune
        return Objective(tune.objective or f"map@{self.config.evaluation.k}", tune.direction)

    @property
    def search_folder(self) -> Path:
        """Where the search keeps its state."""
        return self.folder / "tune" / self.recommender

    # what is searched

    @cached_property
    def _budget(self) -> str:
        """The setting that says how many epochs (of trees: rounds) a trial has; empty where there is none."""
        name = self.recommender
        if name == "two_tower":
            return "two_tower.epochs"
        made = self.config.generators.get(name)
        if isinstance(made, TwoStageConfig):
            kind = "network.epochs" if made.rankers == ("network",) else "lightgbm.rounds"
            return f"generators.{name}.{kind}"
        return f"generators.{name}.epochs" if hasattr(made, "epochs") else ""

    def check(self) -> None:
        """Refuses a search that could not be run, before anything is prepared.

        Raises:
            InputError: Saying which setting of the search is wrong.
        """
        tune, config = self.config.tune, self.config
        known = [*config.fitted, *config.generators, "two_tower", "blend"]
        if self.recommender not in known:
            raise InputError(
                f"tune.recommender: nothing makes `{self.recommender}`; known are {', '.join(dict.fromkeys(known))}."
            )
        if not tune.space:
            raise InputError(
                "tune.space: nothing to search. Name settings of the pipeline there and what each may be, e.g. "
                '"two_tower.learning_rate" = {type = "float", low = 0.001, high = 0.02, log = true}.'
            )
        for name, parameter in tune.space.items():
            if name.partition(".")[0] not in _TUNABLE or name.startswith(_PREPARED):
                raise InputError(
                    f"tune.space: `{name}` cannot be searched. Settings of {', '.join(_TUNABLE)} can, but for what tables and vectors "
                    f"are prepared from ({', '.join(_PREPARED)}); others would change what trials are judged by."
                )
            read_setting(config, name)
            for value in parameter.values or (parameter.low, parameter.high):
                assert value is not None
                change(
                    config, {name: int(value) if parameter.type == "int" and isinstance(value, float) else plain(value)}
                )
        if tune.algorithm == "hyperband":
            if not self._budget:
                raise InputError(
                    f'tune.algorithm: "hyperband" gives trials epochs, and `{self.recommender}` has none; choose another.'
                )
            if self._budget in tune.space:
                raise InputError(f"tune.space: `{self._budget}` is what Hyperband gives its trials; leave it out.")
            if read_setting(config, self._budget) < tune.factor:
                raise InputError(
                    f"{self._budget}: {read_setting(config, self._budget)}, and Hyperband begins with a {tune.factor}th of it "
                    "(`tune.factor`); raise it, or choose another `tune.algorithm`."
                )
        make_space(tune, self._own)

    @property
    def _own(self) -> dict[str, Any]:
        return {name: read_setting(self.config, name) for name in self.config.tune.space}

    @property
    def _wanted(self) -> str:
        """The fingerprint of what must be the same for a search to go on: all but how long it may take."""
        config = self.config
        searched = config.tune.model_dump(
            exclude={"max_trials", "max_minutes", "num_sweeps", "max_failures", "max_kills"}
        )
        told = (
            config.settings_of(self.recommender),
            config.split.model_dump(),
            config.evaluation.model_dump(),
            config.seed,
        )
        data = (config.data.model_dump(), files_fingerprint(source_files(config.data)))
        return fingerprint("tune", self.recommender, searched, told, data)

    # trials

    @cached_property
    def _parts(self) -> dict[str, Recommender]:
        return {}

    def _fit_part(self, config: PipelineConfig, name: str) -> Recommender:
        """Fits what a recommender is made from; once, where trials differ in other settings."""
        key = fingerprint(config.settings_of(name))
        if key not in self._parts:
            view = self.with_config(config).view("validation")
            self._parts[key] = fit_recommender(name, view, config, choice={}, log=TrainingLog(console=self.console))
        return self._parts[key]

    def _run_trial(self, trial_id: str, values: dict[str, Any], budget: int | None) -> float:
        """Runs a trial, and returns the best objective of its epochs."""
        folder, tune, objective = self.search_folder, self.config.tune, self.objective
        place = folder / f"trial_{trial_id}"
        former = TrialRecord.load(place)
        record = TrialRecord(values=values, budget=budget, attempts=(former.attempts if former else 0) + 1)
        # What is judged once, at its end, cannot be ended early.
        stops = tune.stops_hopeless and self._budget.endswith(".epochs")
        min_trials = tune.min_trials if stops else None
        watch = Watch(folder, trial_id, record, objective=objective, min_trials=min_trials)
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
        given = {} if budget is None else {self._budget: budget}
        config = change(self.config, {**values, **given})
        bench = self.with_config(config)
        log = bench.log(self.recommender, "tune")
        if log.folder is not None:
            log = replace(log, folder=self.folder / "tensorboard" / "tune" / self.recommender / trial_id)
        if isinstance(config.generators.get(self.recommender), TwoStageConfig):
            # Several workers would write the same weeks.
            with only_one(self.folder / "ranked", waits=True):
                bench.ranker_weeks(self.recommender, bench.splits["test"])
        bench.judge_settings(
            self.recommender,
            objective=self.objective,
            watch=watch,
            fitted=lambda part: self._fit_part(config, part),
            log=log,
        )

    # the search

    def _check_folder(self, *, force: bool) -> None:
        """Takes up the search that the folder holds, or refuses it."""
        folder = self.search_folder
        try:
            held = json.loads((folder / "search.json").read_text(encoding="utf-8"))["fingerprint"]
        except FileNotFoundError:
            held = None
        except (ValueError, KeyError):
            held = "unreadable"
        if held not in (None, self._wanted) and not force:
            raise InputError(
                f"{folder}: holds a search over other settings or data. Choose another --run-dir, or begin it anew with --force, which "
                "removes what it found."
            )
        if force and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if held is None or force:
            (folder / "search.json").write_text(json.dumps({"fingerprint": self._wanted}), encoding="utf-8")

    def _check_objective(self) -> None:
        """Refuses an objective that reports do not hold, before the first trial."""
        made = self.config.generators.get(self.recommender)
        if isinstance(made, TwoStageConfig) or self.objective.is_of_customers:
            return
        view = self.view("validation")
        fallback = fit_recommender(self.config.export.fallback, view, self.config, choice={})
        told: dict[str, Any] = {
            "view": view,
            "tables": self.tables,
            "targets": self._targets("validation"),
            "config": self.config,
        }
        make_measure(self.objective, **told)(fallback)

    def make_search(self) -> Search:
        """Makes the search, as chief, worker or alone."""
        tune = self.config.tune
        epochs = read_setting(self.config, self._budget) if tune.algorithm == "hyperband" else 1
        space = make_space(tune, self._own)
        figure = self.objective.figure
        oracle = make_oracle(tune, space, objective=figure, max_epochs=epochs, seed=self.config.seed, ended=self._tell)
        return Search(oracle, self.search_folder, self._run_trial, settings=tune, objective=figure)

    def _tell(self, trial_id: str) -> None:
        """Shows how a trial ended."""
        record = TrialRecord.load(self.search_folder / f"trial_{trial_id}")
        assert record is not None
        found = f"{self.objective.figure} {record.best(self.objective)[1]:.4f}" if record.curve else record.error[:60]
        mark = {"failed": "failed: ", "hopeless": "stopped early: "}.get(record.status, "")
        self.console.print(
            f"  trial {trial_id}  {mark}{found}  {record.seconds:.0f} s  {_in_words(record.values)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def tune(self, *, num_workers: int = 1, force: bool = False) -> None:
        """Searches, and writes `tune/<recommender>/leaderboard/`: the trials, what matters, and a pipeline file of the best.

        Args:
            num_workers: Processes that run trials side by side.
            force: Begin anew.

        Raises:
            InputError: The search cannot be run as it is declared.
            RunError: No trial succeeded, or too many in a row failed.
        """
        self.check()
        if is_worker():
            self._check_prepared()
            self.make_search().search()
            return
        self.prepare()
        self._check_objective()
        with only_one(self.search_folder.parent):
            self._check_folder(force=force)
            if num_workers > 1:
                arguments = ["tune", str(self.source), "--run-dir", str(self.folder)]
                arguments += [part for override in self.overrides for part in ("--set", override)]
                search = self.make_search
                run_workers(
                    lambda: search().search(), arguments, num_workers=num_workers, logs=self.search_folder / "workers"
                )
            else:
                self.make_search().search()
            self._report()

    def _check_prepared(self) -> None:
        if stored_fingerprint(self.folder / "timelines") != self._prepared:
            raise InputError(
                f"{self.folder}: not prepared for this search. Start the chief first, with the same pipeline file and --run-dir; "
                "its workers share that folder."
            )

    # what came of it

    def _leaderboard(self) -> Leaderboard:
        objective, tune, found = self.objective, self.config.tune, read_trials(self.search_folder)
        trials = [
            JudgedTrial(
                name=name,
                values=record.values,
                budget=record.budget,
                curve=tuple(objective.read(figures) for figures in record.curve),
                best_epoch=record.best(objective)[0] if record.curve else 0,
                objective=record.best(objective)[1] if record.curve and record.status != "failed" else None,
                seconds=record.seconds,
                status=record.status,
                error=record.error,
            )
            for name, record in found.items()
            if record.status != "running"
        ]
        return Leaderboard(
            recommender=self.recommender,
            objective=objective.figure,
            direction=objective.direction,
            is_log={name: parameter.log for name, parameter in tune.space.items()},
            trials=trials,
            whole=read_setting(self.config, self._budget) if tune.algorithm == "hyperband" else None,
        )

    def _report(self) -> None:
        config, board = self.config, self._leaderboard()
        if not board.trials:
            raise RunError(f"{self.search_folder}: no trial has ended. The same command goes on.")
        place, best = self.search_folder / "leaderboard", board.best
        with write_whole(place) as partial:
            write_leaderboard(partial, board, title=config.name, algorithm=config.tune.algorithm, seed=config.seed)
            if best is not None:
                values = {**best.values, **({} if best.budget is None else {self._budget: best.budget})}
                write_pipeline(
                    self.source, partial / "best.toml", name=config.name, overrides=self.overrides, values=values
                )
        if config.tensorboard.enabled:
            write_hparams(
                self.folder / "tensorboard" / "tune" / self.recommender,
                objective=board.objective,
                trials={trial.name: (trial.values, value) for trial, value in board.ranked},
            )
        self.messages.append(f"leaderboard: {place / 'leaderboard.html'}")
        if best is None:
            raise RunError(f"{board.sentence}; the last one: {board.trials[-1].error}. All are in {place}.")
        self._show(board)
        self.messages += [board.sentence, f"best settings: {place / 'best.toml'}"]
        if board.num_failed_last >= config.tune.max_failures:
            raise RunError(
                f"{board.num_failed_last} trials in a row failed, and the search was ended (`tune.max_failures`); the last one: "
                f"{board.trials[-1].error}. What went before is in {place}."
            )

    def _show(self, board: Leaderboard) -> None:
        table = Table(title=f"{board.recommender}, on validation", box=rich.box.SIMPLE_HEAD, pad_edge=False)
        for column in ("trial", board.objective, "epoch", "settings"):
            table.add_column(column, overflow="fold")
        for trial, value in board.ranked[:10]:
            mark = " (own)" if trial is board.own else ""
            table.add_row(trial.name + mark, f"{value:.4f}", str(trial.best_epoch), escape(_in_words(trial.values)))
        self.console.print(table)


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.rpartition('.')[2]} {format_value(value)}" for name, value in values.items())
