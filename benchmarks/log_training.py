"""What TensorBoard's log costs: the same training with it and without, in turns.

    python benchmarks/log_training.py
    python benchmarks/log_training.py pipelines/complete_journey.toml --recommender two_tower --repeats 3

A fit holds the preparation of its batches and training; judging on validation, which follows each epoch, is not counted. With the log
it writes scalars, norms and histograms as well. The embedding projector, which is written once a model, is timed by itself.
The first fit of all warms up, and is left out.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

import tfrs_fashion  # noqa: F401  (before TensorFlow)
from tfrs_fashion.evaluation.report.projector import write_projector
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.indexed_tower import IndexedTower
from tfrs_fashion.recommenders.kinds import fit_by_name
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.objective import make_validator
from tfrs_fashion.run.projector_tables import project
from tfrs_fashion.run.run import Run
from tfrs_fashion.settings.file import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", nargs="?", default="pipelines/complete_journey.toml")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--recommender", default="two_tower")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    folder = options.run_dir or Path("runs") / Path(options.pipeline).stem
    config = load_config(options.pipeline, options.overrides)
    run = Run(config=config, folder=folder, console=Console(highlight=False, soft_wrap=True))
    run.prepare()
    view = run.view("validation")
    measure = make_validator(view, run._targets("validation"), k=config.evaluation.k)
    place = Path(tempfile.mkdtemp())
    judging = 0.0

    def judge(recommender: Recommender) -> dict[str, float]:
        nonlocal judging
        start = time.perf_counter()
        figures = measure(recommender)
        judging += time.perf_counter() - start
        return figures

    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * options.repeats + 1):
        is_logged = number % 2 == 0
        log = TrainingLog(folder=place / str(number) if is_logged else None, settings="{}")
        judging, start = 0.0, time.perf_counter()
        fitted = fit_by_name(options.recommender, view, config.recommender, seed=config.seed, validate=judge, log=log)
        took = time.perf_counter() - start - judging
        shown = "warms up" if number == 0 else "with the log" if is_logged else "without"
        print(f"{shown}: {took:.2f} s", flush=True)
        if number:
            seconds[is_logged].append(took)
    with_log, without = (np.array(seconds[which]) for which in (True, False))
    cost = with_log.mean() / without.mean() - 1.0
    # Fits stand in turns: each with the log is compared with the one before it.
    paired = with_log / without - 1.0
    print(
        f"with the log {with_log.mean():.2f} s, without {without.mean():.2f} s: {cost:+.1%} ({', '.join(f'{value:+.1%}' for value in paired)})"
    )
    size = sum(path.stat().st_size for path in (place / "2").rglob("*") if path.is_file())
    print(f"a log of {size / 1e3:.0f} kB")
    if isinstance(fitted, IndexedTower):
        start = time.perf_counter()
        write_projector(place / "projector", project(fitted, view, run.tables, config=config))
        print(f"projector: {time.perf_counter() - start:.1f} s")
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
