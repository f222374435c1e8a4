"""The command `tune`: searches for better settings of a recommender, and writes a leaderboard and a pipeline file of the best."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import rich.box
from rich.markup import escape
from rich.table import Table

from tfrs_fashion.data.sources import source_files
from tfrs_fashion.evaluation.document import write_json
from tfrs_fashion.models.board import write_hparams
from tfrs_fashion.outputs import (
    code_fingerprint,
    exclusive_lock,
    files_fingerprint,
    fingerprint,
    stored_fingerprint,
    write_atomically,
)
from tfrs_fashion.recommenders.kinds import fit_recommender
from tfrs_fashion.run.objective import make_measure
from tfrs_fashion.schema import InputError, RunError
from tfrs_fashion.settings.file import write_pipeline
from tfrs_fashion.tuning.leaderboard import BUDGET, Leaderboard, write_leaderboard
from tfrs_fashion.tuning.oracle import TrialLoop, make_oracle
from tfrs_fashion.tuning.search import Search, TrialWorkspace
from tfrs_fashion.tuning.space import make_space
from tfrs_fashion.tuning.trials import read_trials
from tfrs_fashion.tuning.workers import check_environment, is_worker, run_workers, wait_for_chief

# Trials that the command shows.
_NUM_SHOWN = 10


def tune(
    workspace: TrialWorkspace, *, source: Path, overrides: Sequence[str] = (), num_workers: int = 1, force: bool = False
) -> None:
    """Searches as the section `[tune]` says, and writes `tune/<recommender>/leaderboard/`.

    Args:
        workspace: The run whose settings are searched.
        source: The pipeline file.
        overrides: What the command changed in it, `section.key=value` each.
        num_workers: The number of processes that run trials side by side.
        force: Whether to begin anew, and to remove what an earlier search has found.

    Raises:
        InputError: The search cannot be run as it is defined.
        RunError: No trial succeeded, or too many in a row failed.
    """
    search = Search(workspace)
    search.definition.check()
    check_environment()
    # Other settings than how long it may take must be the same for a search to be resumed.
    expected = _make_fingerprints(search)
    if is_worker():
        wait_for_chief(search.show)
        _check_chief(search, expected)
        _make_loop(search).search()
        return
    if not force:
        _check_resumable(search.folder, expected)
    workspace.prepare()
    _check_objective(search)
    with exclusive_lock(search.folder.parent):
        if force:
            for former in (search.folder, search.tensorboard_folder):
                if former.exists():
                    # A kill in the middle of the removal must leave no half of it in place.
                    removed = former.with_name(f".{former.name}.former")
                    shutil.rmtree(removed, ignore_errors=True)
                    shutil.rmtree(former.rename(removed))
        search.folder.mkdir(parents=True, exist_ok=True)
        write_json(search.folder / "search.json", {"fingerprints": expected})
        if kept := sum(record.status != "running" for record in read_trials(search.folder).values()):
            search.show(f"resumes: {kept} trial(s) of {search.folder} are kept")
        loop = _make_loop(search)
        if num_workers > 1:
            arguments = ["tune", str(source), "--run-dir", str(workspace.folder)]
            run_workers(
                loop.search,
                [*arguments, *(part for override in overrides for part in ("--set", override))],
                num_workers=num_workers,
                progress=lambda: sum(record.attempts for record in read_trials(search.folder).values()),
                logs=search.folder / "workers",
                show=search.show,
            )
        else:
            loop.search()
        _report(search, source, overrides, gave_up=loop.oracle.stop.gave_up)


def _make_fingerprints(search: Search) -> dict[str, str]:
    """Returns the fingerprints of everything that must be the same for a search to be resumed, or shared by a worker."""
    config, name, objective = search.workspace.config, search.definition.recommender, search.definition.objective
    settings = config.tune.model_dump(include={"algorithm", "factor", "num_initial_trials", "prune", "space"})
    files = files_fingerprint([*source_files(config.data), *search.workspace._vector_files])
    parts = {
        "the search ([tune])": (settings, objective.figure, objective.direction, config.tune.min_trials),
        f"the settings of {name}": config.settings_of(name),
        "the split or how it is evaluated": (config.split.model_dump(), config.evaluation.model_dump()),
        "the seed": config.seed,
        "the data": (config.data.model_dump(), files),
        "the code of the package": code_fingerprint(),
    }
    return {part: fingerprint("tune", name, value) for part, value in parts.items()}


def _find_differences(folder: Path, expected: dict[str, str]) -> str:
    """Names the parts in which the search that a folder holds differs from this one; empty if there is none."""
    try:
        stored = json.loads((folder / "search.json").read_text(encoding="utf-8"))["fingerprints"]
    except FileNotFoundError:
        is_empty = not (folder / "oracle.json").exists() and not any(folder.glob("trial_*"))
        stored = expected if is_empty else {}
    return ", ".join(name for name, part in expected.items() if stored.get(name) != part)


def _check_resumable(folder: Path, expected: dict[str, str]) -> None:
    if differences := _find_differences(folder, expected):
        raise InputError(
            f"{folder}: holds another search: {differences} differ(s). Choose another --run-dir, or begin it anew with --force, which "
            "removes what it found."
        )


def _check_chief(search: Search, expected: dict[str, str]) -> None:
    """Refuses to be a worker of another search."""
    workspace = search.workspace
    if stored_fingerprint(workspace.folder / "timelines") != workspace._prepared:
        raise InputError(
            f"{workspace.folder}: not prepared for this search. Start the chief first, with the same pipeline file and --run-dir; its "
            "workers share that folder."
        )
    if differences := _find_differences(search.folder, expected):
        raise InputError(
            f"{search.folder}: the chief runs another search: {differences} differ(s). A worker needs the chief's pipeline file, --set and "
            "version of the package."
        )


def _check_objective(search: Search) -> None:
    """Refuses an objective that reports do not have, before the first trial."""
    definition, workspace = search.definition, search.workspace
    if definition.ranker_settings is None and not definition.objective.is_of_customers:
        view = workspace.view("validation")
        fallback = fit_recommender(workspace.config.export.fallback, view, workspace.config, choice={})
        targets = workspace._targets("validation")
        make_measure(
            definition.objective, view=view, tables=workspace.tables, targets=targets, config=workspace.config
        )(fallback)


def _make_loop(search: Search) -> TrialLoop:
    config, definition = search.workspace.config, search.definition
    oracle = make_oracle(
        config.tune,
        make_space(config.tune, definition.own),
        objective=definition.objective.figure,
        max_epochs=definition.max_epochs or 1,
        seed=config.seed,
    )
    return TrialLoop(oracle, search.folder, search.run_trial, settings=config.tune, on_end=search.show_end)


def _report(search: Search, source: Path, overrides: Sequence[str], *, gave_up: bool) -> None:
    """Writes and shows what the search found."""
    config, board, messages = search.workspace.config, search.make_leaderboard(), search.workspace.messages
    if not board.trials:
        raise RunError(f"{search.folder}: no trial has ended. The same command resumes the search.")
    folder, best, definition = search.folder / "leaderboard", board.best, search.definition
    with write_atomically(folder) as partial:
        write_leaderboard(partial, board, title=config.name, algorithm=config.tune.algorithm, seed=config.seed)
        if best is not None:
            epochs = {} if best.budget is None else {definition.epochs_setting: best.budget}
            values = {**definition.complete(best.values), **epochs}
            write_pipeline(source, partial / "best.toml", name=config.name, overrides=overrides, values=values)
    if config.tensorboard.enabled:
        trials = {
            trial.name: ({**trial.values, **({} if trial.budget is None else {BUDGET: trial.budget})}, value)
            for trial, value in board.ranked
        }
        write_hparams(search.tensorboard_folder, objective=board.objective.figure, trials=trials)
    messages.append(f"leaderboard: {folder / 'leaderboard.html'}")
    if best is None:
        raise RunError(f"{board.sentence}; the last one: {board.trials[-1].error}. All are in {folder}.")
    _show(search, board)
    messages += [board.sentence, *board.hints, f"best settings: {folder / 'best.toml'}"]
    if gave_up:
        last = board.failed[-1]
        raise RunError(
            f"{config.tune.max_failures} trials in a row failed, which ended the search, e.g. trial {last.name}: "
            f"{last.error.rstrip('.')}. Earlier trials are in {folder}; with a higher `tune.max_failures` it goes on."
        )


def _show(search: Search, board: Leaderboard) -> None:
    """Shows the best trials, and the one with the pipeline's own settings."""
    table = Table(title=f"{board.recommender}, on {board.window}", box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for column in ("trial", board.objective.figure, "epoch", "settings"):
        table.add_column(column, overflow="fold")
    shown = [*board.ranked[:_NUM_SHOWN], *(pair for pair in board.ranked[_NUM_SHOWN:] if pair[0] is board.own)]
    for trial, value in shown:
        name, epoch = f"{trial.name}{' (own)' * (trial is board.own)}", str(trial.best(board.objective)[0])
        table.add_row(name, f"{value:.4f}", epoch, escape(search.describe_values(trial.values)))
    search.workspace.console.print(table)
    counts = {"pruned": sum(trial.status == "pruned" for trial in board.trials), "failed": len(board.failed)}
    words = [f"{count} {status}" for status, count in counts.items() if count]
    search.workspace.messages.append(", ".join([f"{len(board.trials)} trials, {len(shown)} shown above", *words]))
