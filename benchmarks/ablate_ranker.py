"""What each group of features is worth to a ranker, and which generator's rank matters: left out one at a time.

    python benchmarks/ablate_ranker.py
    python benchmarks/ablate_ranker.py pipelines/complete_journey.toml --ranker network --name two_stage

Rankers learn from the weeks of `two_stage_lightgbm` but the last one, and are judged on that: the test window is not looked at. Rounds
(or epochs) are chosen once, with all features, by that same week, so that all figures are a little high; differences are paired
over its customers. How long the first choice and fit took is told as well.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

import tfrs_fashion  # noqa: F401  (before TensorFlow)
from tfrs_fashion.evaluation.metrics.accuracy import measure_accuracy
from tfrs_fashion.evaluation.metrics.bootstrap import bootstrap_interval, paired_difference
from tfrs_fashion.features.article_weeks import FEATURES
from tfrs_fashion.features.pair_lookups import PRICE_FEATURES
from tfrs_fashion.recommenders.two_stage.ranker_week import RankerWeek, score_week
from tfrs_fashion.run.ranker_weeks import best_articles
from tfrs_fashion.run.run import Run
from tfrs_fashion.settings.file import load_config

K = 12


def group_of(name: str) -> str:
    """The group that a feature belongs to."""
    first, _space, rest = name.partition(" ")
    if first in ("rank", "score"):
        return f"generator {rest}"
    if name in ("best rank", "num_generators"):
        return "all generators together"
    if first in ("similarity", "customer"):
        return first
    if name in PRICE_FEATURES:
        return "price, age and season"
    if name in FEATURES:
        return "the article's weeks"
    return f"history of the {first}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", nargs="?", default="pipelines/complete_journey.toml")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--name", default="two_stage_lightgbm")
    parser.add_argument("--ranker", choices=("lightgbm", "network"), default="lightgbm")
    options = parser.parse_args()
    folder = options.run_dir or Path("runs") / Path(options.pipeline).stem
    console = Console(highlight=False, soft_wrap=True)
    run = Run(config=load_config(options.pipeline, options.overrides), folder=folder, console=console)
    run.prepare()
    split = run.splits["test"]
    last, *earlier = run.ranker_weeks(options.name, split)
    names = run.feature_names(options.name, split)
    week = run._stacked_weeks(options.name, split)[0][0]
    wanted, view = run._targets_of(week), run._make_view(split)
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(group_of(name), []).append(place)

    def keep(found: RankerWeek, places: np.ndarray) -> RankerWeek:
        return replace(found, features=found.features[:, places])

    def fit(places: np.ndarray, length: int | None) -> tuple[pd.Series, int]:
        """Each customer's AP, and how long the ranker learned."""
        judged = keep(last, places)
        weeks = [keep(found, places) for found in earlier]
        told = {"held_out": (judged, run_judge(judged))} if length is None else {"length": length}
        ranker, chosen = run._fit_ranker(options.name, options.ranker, weeks, view, **told)
        if length is None:
            return fit(places, chosen)
        return metrics(judged, score_week(ranker, judged)), chosen

    def metrics(judged: RankerWeek, score: np.ndarray) -> pd.Series:
        return measure_accuracy(best_articles(judged, score, k=K), wanted, k=K)["map"]

    def run_judge(judged: RankerWeek):
        return lambda score: {f"val_map@{K}": float(metrics(judged, score).mean())}

    everything = np.arange(len(names))
    start = time.monotonic()
    whole, length = fit(everything, None)
    print(f"chosen and fitted from {len(earlier)} weeks in {time.monotonic() - start:.0f} s, two fits")
    mean = bootstrap_interval(whole)
    print(
        f"{options.ranker}, {length} long, {len(names)} features, week from {week.as_of:%Y-%m-%d}, {len(whole):,} customers"
    )
    print(f"| left out | features | map@{K} | against all |\n| --- | ---: | ---: | ---: |")
    print(f"| nothing | {len(names)} | {mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f}) | |", flush=True)
    generators = [place for name, places in groups.items() if "generator" in name for place in places]
    for name, places in {**groups, "everything of generators": generators}.items():
        found, _length = fit(np.setdiff1d(everything, places), length)
        paired = paired_difference(found, whole)
        told = f"{paired.relative:+.1%} ({paired.relative_low:+.1%} to {paired.relative_high:+.1%})"
        print(f"| {name} | {len(places)} | {found.mean():.4f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
