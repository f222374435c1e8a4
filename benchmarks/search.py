"""Hyperband against random search over the same settings, for the same time: the best figure on validation, by seed.

    python benchmarks/search.py
    python benchmarks/search.py pipelines/complete_journey.toml --minutes 15 --seeds 1 2 3

Both search what the pipeline's `[tune]` names, from the defaults of the package: `recommender.two_tower.epochs` of `--epochs` looks at
validation. No trial begins when the time is over; one that has begun is finished. Trials are pruned, as by default. A search
that an earlier call left in the folder is begun anew. The defaults must lie in the space of the pipeline.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

import tfrs_fashion  # noqa: F401  (before TensorFlow)
from tfrs_fashion.settings.file import load_config, read_default
from tfrs_fashion.settings.tune import plain
from tfrs_fashion.tuning.search import Search, TrialWorkspace
from tfrs_fashion.tuning.tune import tune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", nargs="?", default="pipelines/complete_journey.toml")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    # The pipeline's own settings may be what a longer search has found: both begin from the defaults of the package.
    read = load_config(options.pipeline, options.overrides)
    defaults = {name: json.dumps(plain(read_default(read, name))) for name in read.tune.space}
    folder = options.run_dir or Path("runs") / f"{Path(options.pipeline).stem}_search"
    print(
        "| seed | algorithm | seconds | trials | of them whole | best | the defaults, after epochs |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for seed in options.seeds:
        for algorithm in ("random", "hyperband"):
            settings = {
                **defaults,
                "seed": seed,
                "tune.algorithm": algorithm,
                "tune.max_trials": 1000,
                "tune.num_sweeps": 100,
                "tune.max_minutes": options.minutes,
                "recommender.two_tower.epochs": options.epochs,
                "recommender.two_tower.steps_per_epoch": options.steps,
            }
            overrides = (*options.overrides, *(f"{key}={value}" for key, value in settings.items()))
            place = folder / f"{algorithm}_{seed}"
            workspace = TrialWorkspace(load_config(options.pipeline, overrides), place, console=Console(quiet=True))
            # What both need before their first trial is written first: their time begins after it.
            workspace.prepare()
            tune(workspace, source=Path(options.pipeline), overrides=overrides, force=True)
            leaderboard = Search(workspace).folder / "leaderboard" / "leaderboard.json"
            document = json.loads(leaderboard.read_text(encoding="utf-8"))
            trials = {trial["name"]: trial for trial in document["trials"]}
            whole = sum(len(trial["curve"]) == options.epochs for trial in trials.values())
            seconds = sum(trial["seconds"] for trial in trials.values())
            best, own = trials[document["best"]], trials[document["own"]]
            print(
                f"| {seed} | {algorithm} | {seconds:.0f} | {len(trials)} | {whole} | {best['objective']:.4f} | "
                f"{own['objective']:.4f}, {len(own['curve'])} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
