"""The `tfrs-fashion` command: one short function a verb."""

import contextlib
import gc
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from tfrs_fashion import __version__
from tfrs_fashion.schema import InputError

if TYPE_CHECKING:
    from tfrs_fashion.run.backtest import Backtest

app = typer.Typer(
    help="Recommendations for fashion retail. A verb takes a pipeline file and does the stages before its own; `experiments`, "
    "`compare` and `mlflow` read what runs recorded.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Changed settings that `compare` shows.
_NUM_CHANGES = 12
# What is printed is text: `:x:` in a path is no picture.
console = Console(emoji=False)
errors = Console(stderr=True, soft_wrap=True, emoji=False)

Pipeline = Annotated[Path, typer.Argument(metavar="PIPELINE.toml", help="The pipeline file.", show_default=False)]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting; may be repeated.")
]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="Where outputs go; runs/<pipeline> by default.", show_default=False)
]
Experiments = Annotated[Path, typer.Option("--experiments", help="Where runs record themselves: beside their folders.")]
Force = Annotated[bool, typer.Option("--force", help="Repeat the stage even if it is up to date.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _show_version(asked: bool) -> None:
    if asked:
        console.print(f"tfrs-fashion {__version__}", markup=False, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What goes before a verb."""


def _do(
    pipeline: Path,
    overrides: list[str] | None,
    run_dir: Path | None,
    force: bool,
    debug: bool,
    work: "Callable[[Backtest], None]",
    alone: bool = True,
) -> None:
    """Runs a verb of a pipeline, by default as the only process of its run folder; see `_guard`."""
    _guard(debug, lambda: _work(pipeline, overrides, run_dir, force, work, alone))


def _guard(debug: bool, work: Callable[[], None]) -> None:
    """Runs a verb: bad input or usage exits with 2, another failure with 1, each with one message."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0" if debug else "3"  # errors are raised; the rest is noise
    code = 0
    try:
        work()
    except KeyboardInterrupt:
        errors.print("interrupted: what is finished is kept; the same command goes on from there", markup=False)
        code = 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        words = str(error).strip() or type(error).__name__
        is_input = isinstance(error, InputError)
        errors.print(f"error: {words}" if is_input else f"failed: {_first_lines(words)}", markup=False)
        code = 2 if is_input else 1
    if code:
        # Raised here, where the error and the frames that it held are gone; collected, since DuckDB complains at exit
        # about connections that are still referred to.
        gc.collect()
        raise typer.Exit(code)


def _work(
    pipeline: Path,
    overrides: list[str] | None,
    run_dir: Path | None,
    force: bool,
    work: "Callable[[Backtest], None]",
    alone: bool,
) -> None:
    from tfrs_fashion.outputs import exclusive_lock
    from tfrs_fashion.settings.pipeline import load_config

    config = load_config(pipeline, overrides or ())
    folder = run_dir or Path("runs") / config.name
    with exclusive_lock(folder) if alone else contextlib.nullcontext():
        with console.status("loading TensorFlow"):
            from tfrs_fashion.run.backtest import Backtest
        run = Backtest(config=config, folder=folder, force=force, console=console)
        work(run)
        for line in dict.fromkeys(run.messages):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _first_lines(words: str) -> str:
    lines = words.splitlines()
    return "\n".join(lines[:5]) + ("\n(--debug shows the traceback)" if len(lines) > 5 else "")


@app.command()
def run(
    pipeline: Pipeline, set_: Set = None, run_dir: RunDir = None, force: Force = False, debug: Debug = False
) -> None:
    """Do everything: tables, models, SavedModels, report, release, recommendations."""
    _do(pipeline, set_, run_dir, force, debug, lambda run: run.everything())


@app.command()
def prepare(
    pipeline: Pipeline, set_: Set = None, run_dir: RunDir = None, force: Force = False, debug: Debug = False
) -> None:
    """Read, clean and check the source; write tables and timelines."""
    _do(pipeline, set_, run_dir, force, debug, lambda run: run.prepare(force=force))


@app.command()
def explore(
    pipeline: Pipeline, set_: Set = None, run_dir: RunDir = None, force: Force = False, debug: Debug = False
) -> None:
    """Look at the tables: features, missing values, assortment, purchases, customers; write exploration.html."""
    _do(pipeline, set_, run_dir, force, debug, lambda run: run.explore(force=force))


@app.command()
def train(
    pipeline: Pipeline, set_: Set = None, run_dir: RunDir = None, force: Force = False, debug: Debug = False
) -> None:
    """Choose on validation, then fit on everything before the test cutoff."""
    _do(pipeline, set_, run_dir, force, debug, lambda run: run.train(force=force))


@app.command()
def tune(
    pipeline: Pipeline,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run trials side by side.")] = 1,
    ends_with_parent: Annotated[int | None, typer.Option("--ends-with-parent", hidden=True)] = None,
    set_: Set = None,
    run_dir: RunDir = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Search for better settings of one recommender, as its section tune says; write a leaderboard and a pipeline file of the best."""
    from tfrs_fashion.tuning.workers import end_with_parent, is_worker

    if ends_with_parent is not None:
        end_with_parent(ends_with_parent)

    def work(run: "Backtest") -> None:
        from tfrs_fashion.tuning.search import TrialWorkspace
        from tfrs_fashion.tuning.tune import tune as search

        workspace = TrialWorkspace(config=run.config, folder=run.folder, console=run.console, messages=run.messages)
        search(workspace, source=pipeline, overrides=tuple(set_ or ()), num_workers=workers, force=force)

    # A worker shares the run folder of its chief.
    _do(pipeline, set_, run_dir, force, debug, work, alone=not is_worker())


@app.command()
def export(
    pipeline: Pipeline, set_: Set = None, run_dir: RunDir = None, force: Force = False, debug: Debug = False
) -> None:
    """Write the fitted recommenders as SavedModels, into the run folder."""
    _do(pipeline, set_, run_dir, force, debug, lambda run: run.export(force=force))


@app.command()
def evaluate(
    pipeline: Pipeline, set_: Set = None, run_dir: RunDir = None, force: Force = False, debug: Debug = False
) -> None:
    """Judge the SavedModels on the test targets; write metrics.json and report.html."""
    _do(pipeline, set_, run_dir, force, debug, lambda run: run.evaluate(force=force))


@app.command()
def backtest(
    pipeline: Pipeline,
    windows: Annotated[int, typer.Option(min=1, help="The test window and those before it; of 1, any split.")] = 4,
    set_: Set = None,
    run_dir: RunDir = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Fit everything anew before each of the last windows and judge it there; write backtest.html, pooled."""
    _do(pipeline, set_, run_dir, force, debug, lambda run: run.backtest(num_windows=windows, force=force))


@app.command()
def relevance(
    pipeline: Pipeline, set_: Set = None, run_dir: RunDir = None, force: Force = False, debug: Debug = False
) -> None:
    """Tell how often customers buy an article (low, medium, high), as one study did and honestly; write relevance.json."""

    def work(run: "Backtest") -> None:
        from tfrs_fashion.run.relevance import Relevance

        told = Relevance(config=run.config, folder=run.folder, console=run.console, messages=run.messages)
        told.relevance(force=force)

    _do(pipeline, set_, run_dir, force, debug, work)


@app.command()
def explain(
    pipeline: Pipeline,
    customer: Annotated[str, typer.Option("--customer", help="The customer's id.", show_default=False)],
    article: Annotated[
        list[str] | None, typer.Option("--article", help="An article's id; may be repeated. The best one by default.")
    ] = None,
    recommender: Annotated[str, typer.Option("--recommender", help="One of kind two_stage.")] = "two_stage",
    set_: Set = None,
    run_dir: RunDir = None,
    debug: Debug = False,
) -> None:
    """Say why an article stands where it does in a customer's list: what each feature adds to the odds, in words."""

    def work(run: "Backtest") -> None:
        from tfrs_fashion.run.explain import explain

        explain(run, recommender=recommender, customer_id=customer, article_ids=article or [])

    _do(pipeline, set_, run_dir, False, debug, work)


@app.command()
def release(
    pipeline: Pipeline, set_: Set = None, run_dir: RunDir = None, force: Force = False, debug: Debug = False
) -> None:
    """Fit on all data with the settings that were judged; write a new version into saved_models/."""
    _do(pipeline, set_, run_dir, force, debug, lambda run: run.release(force=force))


@app.command()
def recommend(
    pipeline: Pipeline,
    customers: Annotated[
        Path | None,
        typer.Option(
            help="File of customer ids: one a line, or CSV or Parquet with a column customer_id, or the pipeline's own."
        ),
    ] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Articles a customer; recommend.k by default.")] = None,
    exclude_bought: Annotated[
        bool | None,
        typer.Option("--exclude-bought/--include-bought", help="Leave out what the customer bought before."),
    ] = None,
    recommender: Annotated[str | None, typer.Option(help="Which artifact; recommend.recommender by default.")] = None,
    format_: Annotated[
        Literal["tables", "kaggle"],
        typer.Option("--format", help="`tables`: Parquet and CSV. `kaggle`: a submission, 12 articles for everybody."),
    ] = "tables",
    set_: Set = None,
    run_dir: RunDir = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Write recommendations for every customer, or for those in a file, to Parquet and CSV."""
    if format_ == "kaggle" and (customers is not None or k not in (None, 12)):
        raise typer.BadParameter("a submission is 12 articles for every customer: leave out --customers and --k.")
    given = {"recommend.k": k, "recommend.recommender": recommender}
    overrides = [*(set_ or ()), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    if exclude_bought is not None:
        overrides.append(f"recommend.exclude_bought={str(exclude_bought).lower()}")

    def work(run: "Backtest") -> None:
        if format_ == "kaggle":
            run.submit(force=force)
        else:
            run.recommend(customers=customers, force=force)

    _do(pipeline, overrides, run_dir, force, debug, work)


@app.command()
def experiments(folder: Experiments = Path("runs/experiments"), debug: Debug = False) -> None:
    """List what was evaluated, newest last: one record each time a report was written."""

    def work() -> None:
        from tfrs_fashion.experiments.log import experiments_table, read_experiments

        console.print(experiments_table(read_experiments(folder)))

    _guard(debug, work)


@app.command()
def mlflow(
    tracking_uri: Annotated[
        str,
        typer.Argument(metavar="URI", help="A tracking server or database: sqlite:///mlflow.db.", show_default=False),
    ],
    folder: Experiments = Path("runs/experiments"),
    debug: Debug = False,
) -> None:
    """Copy what was evaluated to MLflow: one run a record; what is there already is left alone."""

    def work() -> None:
        from tfrs_fashion.experiments.mlflow import export_experiments

        written, known = export_experiments(folder, tracking_uri)
        console.print(f"{written:,} run(s) written, {known:,} already there", markup=False, highlight=False)

    _guard(debug, work)


@app.command()
def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="An id, the beginning of one, or a run folder.", show_default=False)
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="What A is compared with.", show_default=False)],
    folder: Experiments = Path("runs/experiments"),
    debug: Debug = False,
) -> None:
    """Lay two experiments side by side: what was changed from A to B and what that did; write comparison.html."""

    def work() -> None:
        from tfrs_fashion.experiments.log import compare_experiments

        document, page = compare_experiments(folder, a, b)
        changes = document["changes"]["settings"]
        told = [f"{change['name']}: {change['a']} -> {change['b']}" for change in changes[:_NUM_CHANGES]]
        if len(changes) > _NUM_CHANGES:
            told.append(f"and {len(changes) - _NUM_CHANGES} settings more")
        verdict = document["verdict"]
        for line in (*told, verdict["headline"], *verdict["reasons"], f"comparison: {page}"):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    _guard(debug, work)


def main() -> None:
    """Runs the command."""
    app()


if __name__ == "__main__":
    main()
