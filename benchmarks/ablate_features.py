"""What each kind of feature is worth: two towers with and without it, judged on the test window by paired bootstrap.

    python benchmarks/ablate_features.py pipelines/complete_journey.toml
    python benchmarks/ablate_features.py pipelines/rent_the_runway.toml --set data.path=FOLDER

Each variant chooses its epochs on the validation window, is fitted again on everything before the test window, and ranks
every article in store for every customer of the test window, once. Finished variants are kept in `ablation/` of the run
folder, so that a run that was stopped goes on; `--force` begins anew.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

import tfrs_fashion  # noqa: F401  (before TensorFlow)
from tfrs_fashion.config import load_config
from tfrs_fashion.data.split import targets
from tfrs_fashion.evaluation.compare import bootstrap_interval, paired_difference
from tfrs_fashion.evaluation.metrics import customer_metrics
from tfrs_fashion.fitting import fit_recommender, make_validator, rank_customers
from tfrs_fashion.run import Run

K = 12
NO_PROFILE = ["features.profile=[]", "features.profile_numbers=[]"]
NO_CONTENT = ["features.categorical=[]", "features.numbers=[]"]
NO_TEXT = ["features.num_text_buckets=0"]
NO_HISTORY = ["features.history=false"]
NO_WEEKS = ["features.article_weeks=false"]
# Ids alone, without what was bought: the towers of most tutorials. Nothing but ids to learn from, so none is dropped.
NO_BOUGHT = ["two_tower.history_articles=0", "two_tower.customer_dropout=0", "two_tower.article_dropout=0"]
REFERENCES = ("ids alone", "ids and bought ids")
VARIANTS: dict[str, list[str]] = {
    "ids alone": [*NO_PROFILE, *NO_CONTENT, *NO_TEXT, *NO_HISTORY, *NO_WEEKS, *NO_BOUGHT],
    "ids and bought ids": [*NO_PROFILE, *NO_CONTENT, *NO_TEXT, *NO_HISTORY, *NO_WEEKS],
    "all features": [],
    "without profile": NO_PROFILE,
    "without history features": NO_HISTORY,
    "without weekly article features": NO_WEEKS,
    "without article categories and numbers": [*NO_CONTENT, *NO_HISTORY],
    "without text": NO_TEXT,
    "embedding instead of one-hot": ["two_tower.categorical_encoding=embedding"],
    "deep instead of shallow": ["two_tower.hidden_dims=[256, 128]"],
}


def judge(pipeline: str, overrides: list[str], folder: Path, console: Console) -> pd.DataFrame:
    """Returns the metrics of each customer of the test window."""
    config = load_config(pipeline, overrides)
    run = Run(config=config, folder=folder, console=console)
    views = {name: run.view(name) for name in ("validation", "test")}
    wanted = {name: targets(run.splits[name], run.tables.transactions).execute() for name in views}
    validate = make_validator(views["validation"], wanted["validation"], k=K)
    chosen = fit_recommender("two_tower", views["validation"], config, choice={}, validate=validate, console=console)
    choice = {"epochs": chosen.epochs}
    fitted = fit_recommender("two_tower", views["test"], config, choice=choice, console=console)
    customers = np.unique(wanted["test"]["customer_index"].to_numpy(dtype=np.int32))
    candidates = rank_customers(fitted, views["test"], customers, k=K)
    has_history = np.diff(views["test"].timelines.row_splits) > 0
    known = np.zeros(customers.max() + 1, dtype=bool)
    known[2 : len(has_history) + 2] = has_history[: len(known) - 2]
    metrics = customer_metrics(candidates, wanted["test"], k=K)[["map", "recall"]]
    return metrics.assign(
        has_history=known[metrics.index], epochs=chosen.epochs, validation=max(chosen.curves["val_map@12"])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="These variants alone.")
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    console = Console(width=120)
    folder = arguments.run_dir or Path("runs") / Path(arguments.pipeline).stem
    Run(config=load_config(arguments.pipeline, arguments.overrides), folder=folder, console=console).prepare()
    kept = folder / "ablation"
    kept.mkdir(exist_ok=True)
    found: dict[str, pd.DataFrame] = {}
    for name in arguments.only or VARIANTS:
        path = kept / f"{name.replace(' ', '_')}.parquet"
        if arguments.force or not path.is_file():
            console.rule(name)
            start = time.monotonic()
            metrics = judge(arguments.pipeline, [*arguments.overrides, *VARIANTS[name]], folder, console)
            metrics.assign(seconds=time.monotonic() - start).to_parquet(path)
        found[name] = pd.read_parquet(path)
    console.print(table(found))


def table(found: dict[str, pd.DataFrame]) -> str:
    """Lays the variants side by side, as Markdown."""
    references = [name for name in REFERENCES if name in found]
    head = [f"val map@{K}", f"map@{K} (95%)", f"recall@{K}", *(f"map@{K} against {name}" for name in references)]
    head += [f"map@{K} with history", "without"]
    lines = [f"| two towers | {' | '.join(head)} |", "| --- " * (len(head) + 1) + "|"]
    for name, frame in found.items():
        mean = bootstrap_interval(frame["map"])
        cells = [f"{frame['validation'].iloc[0]:.4f}", f"{mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})"]
        cells.append(f"{frame['recall'].mean():.4f}")
        for reference in references:
            paired = paired_difference(frame["map"], found[reference]["map"])
            told = f"{paired.relative:+.1%} ({paired.relative_low:+.1%} to {paired.relative_high:+.1%})"
            cells.append("" if name == reference else told)
        parts = frame.groupby("has_history")["map"].mean()
        cells += [f"{parts.get(known, float('nan')):.4f}" for known in (True, False)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    counts = next(iter(found.values()))
    return "\n".join([*lines, "", f"{len(counts):,} customers, {int(counts['has_history'].sum()):,} with a history."])


if __name__ == "__main__":
    main()
