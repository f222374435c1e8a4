"""What each kind of feature is worth: two towers with and without it, judged on the test window by paired bootstrap.

    python benchmarks/ablate_features.py
    python benchmarks/ablate_features.py pipelines/rent_the_runway.toml --set data.path=FOLDER --windows 6

Each variant chooses its epochs on the window before those that are judged, is fitted again on everything before each of
them, and ranks every article in store for every customer of that window, once. `--windows` judges the last so many test
windows, one after the other, and pools them: a customer who bought in several counts once, by the mean over these. Finished
fits are kept in `ablation/` of the run folder, so that a run that was stopped goes on; `--force` begins anew. `--epochs`
trains all variants for so long instead, without choosing.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

import tfrs_fashion  # noqa: F401  (before TensorFlow)
from tfrs_fashion.data.split import Split, targets
from tfrs_fashion.evaluation.metrics.accuracy import measure_accuracy
from tfrs_fashion.evaluation.metrics.bootstrap import bootstrap_interval, paired_difference
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.outputs import code_fingerprint, fingerprint
from tfrs_fashion.recommenders.kinds import fit_by_name, fit_recommender
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.run.backtest import rolling_windows
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.run.objective import make_validator
from tfrs_fashion.run.run import Run
from tfrs_fashion.settings.file import load_config

K = 12
# Other recommenders and fallbacks may go by the very columns that are taken out.
TOWERS_ALONE = [
    "recommenders=['popularity_7d', 'two_tower']",
    "recommend.recommender=two_tower",
    "export.fallback=popularity_7d",
]
NO_PROFILE = ["features.profile=[]", "features.profile_numbers=[]"]
# Features of a history that need such a column go with it.
NO_ROLES = [f'features.roles.{role}=""' for role in ("colour", "garment_group", "section")]
NO_ROLES += [f"features.roles.{group}=[]" for group in ("women", "men", "kids")]
NO_CONTENT = ["features.categorical=[]", "features.numbers=[]", *NO_ROLES]
NO_TEXT = ["features.num_text_buckets=0"]
NO_HISTORY = ["features.history=false"]
NO_WEEKS = ["features.article_weeks=false"]
# Ids alone, without what was bought: the towers of most tutorials. Nothing but ids to learn from, so none is dropped.
NO_BOUGHT = [
    "recommender.two_tower.history_articles=0",
    "recommender.two_tower.customer_dropout=0",
    "recommender.two_tower.article_dropout=0",
]
REFERENCES = ("ids alone", "ids and bought ids")
VARIANTS: dict[str, list[str]] = {
    "ids alone": [*NO_PROFILE, *NO_CONTENT, *NO_TEXT, *NO_HISTORY, *NO_WEEKS, *NO_BOUGHT],
    "ids and bought ids": [*NO_PROFILE, *NO_CONTENT, *NO_TEXT, *NO_HISTORY, *NO_WEEKS],
    "all features": [],
    "without profile": NO_PROFILE,
    "without history features": NO_HISTORY,
    "without weekly article features": NO_WEEKS,
    "without article categories and numbers": NO_CONTENT,
    "without text": NO_TEXT,
    "embedding instead of one-hot": ["recommender.two_tower.categorical_encoding=embedding"],
    "quantiles instead of logarithms": ["recommender.two_tower.number_encoding=quantile"],
    "deep instead of shallow": ["recommender.two_tower.hidden_dims=[256, 128]"],
}


def judge(run: Run, window: Split, epochs: int) -> pd.DataFrame:
    """Fits on everything before a window; returns the metrics of each customer who bought in it."""
    view, wanted = run.view(window.name), targets(window, run.tables.transactions).execute()
    fitted = fit_by_name(
        "two_tower",
        view,
        run.config.recommender,
        seed=run.config.seed,
        choice={"epochs": epochs},
        log=TrainingLog(console=run.console),
    )
    customers = np.unique(wanted["customer_index"].to_numpy(dtype=np.int32))
    candidates = rank_customers(fitted, view, customers, k=K)
    has_history = np.diff(view.timelines.row_splits) > 0
    known = np.zeros(customers.max() + 1, dtype=bool)
    known[2 : len(has_history) + 2] = has_history[: len(known) - 2]
    metrics = measure_accuracy(candidates, wanted, k=K)[["map", "recall"]]
    return metrics.assign(has_history=known[metrics.index]).reset_index(names="customer_index")


def judge_variant(run: Run, windows: list[Split], kept: Path, *, epochs: int | None, force: bool) -> pd.DataFrame:
    """Chooses the epochs and judges each window, as far as that was not done before; returns all rows."""
    choose_on, *judged = windows
    if epochs is not None:
        return judge_windows(run, judged, kept, chosen={"epochs": epochs, "validation": float("nan")}, force=force)
    choice = kept / f"chosen_on_{choose_on.as_of:%Y-%m-%d}.json"
    if force or not choice.is_file():
        view, wanted = run.view(choose_on.name), targets(choose_on, run.tables.transactions).execute()
        validate = make_validator(view, wanted, k=K)
        log = TrainingLog(console=run.console)
        context = FitContext("two_tower", run.config.seed, validate=validate, log=log)
        fit_recommender(view, run.config.recommender["two_tower"], context)
        figures = context.curves[f"val_map@{K}"]
        chosen = {"epochs": int(np.argmax(figures)) + 1, "validation": max(figures)}
        choice.write_text(json.dumps(chosen), encoding="utf-8")
    return judge_windows(run, judged, kept, chosen=json.loads(choice.read_text(encoding="utf-8")), force=force)


def judge_windows(run: Run, judged: list[Split], kept: Path, *, chosen: dict[str, float], force: bool) -> pd.DataFrame:
    frames = []
    for window in judged:
        path = kept / f"{window.as_of:%Y-%m-%d}_{chosen['epochs']}_epochs.parquet"
        if force or not path.is_file():
            judge(run, window, int(chosen["epochs"])).to_parquet(path)
        frames.append(pd.read_parquet(path).assign(window=f"{window.as_of:%Y-%m-%d}", **chosen))
    return pd.concat(frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", nargs="?", default="pipelines/complete_journey.toml")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="These variants alone.")
    parser.add_argument("--windows", type=int, default=1, help="Test windows to judge and pool.")
    parser.add_argument("--epochs", type=int, help="Train for so many epochs instead of choosing them.")
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    console = Console(width=120)
    folder = arguments.run_dir or Path("runs") / Path(arguments.pipeline).stem
    overrides = [*TOWERS_ALONE, *arguments.overrides]
    whole = load_config(arguments.pipeline, overrides)
    Run(config=whole, folder=folder, console=console).prepare()
    found: dict[str, pd.DataFrame] = {}
    for name in arguments.only or VARIANTS:
        config = load_config(arguments.pipeline, [*overrides, *VARIANTS[name]])
        if VARIANTS[name] and config == whole:
            console.print(f"{name}: the pipeline is that already")
            continue
        console.rule(name)
        # What another program or other settings found is not taken for this one's.
        key = fingerprint(code_fingerprint(), config.model_dump(mode="json"))[:12]
        kept = folder / "ablation" / f"{name.replace(' ', '_')}_{key}"
        kept.mkdir(parents=True, exist_ok=True)
        run = Run(config=config, folder=folder, console=console)
        days = config.split.model_dump(include={"test_days", "validation_days"})
        windows = rolling_windows(run.splits["test"], num_windows=arguments.windows, **days)
        run.splits.update({window.name: window for window in windows})
        found[name] = judge_variant(run, windows, kept, epochs=arguments.epochs, force=arguments.force)
    # Not by the console, which would break the lines of a table.
    print(table(found))


def table(found: dict[str, pd.DataFrame]) -> str:
    """Lays the variants side by side, as Markdown."""
    references = [name for name in REFERENCES if name in found]
    head = [f"val map@{K}", f"map@{K} (95%)", f"recall@{K}", *(f"map@{K} against {name}" for name in references)]
    head += [f"map@{K} with history", "without"]
    lines = [f"| two towers | {' | '.join(head)} |", "| --- " * (len(head) + 1) + "|"]
    by_customer = {name: rows.groupby("customer_index")[["map", "recall"]].mean() for name, rows in found.items()}
    for name, frame in by_customer.items():
        mean = bootstrap_interval(frame["map"])
        validation = found[name]["validation"].iloc[0]
        cells = [
            "" if np.isnan(validation) else f"{validation:.4f}",
            f"{mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})",
        ]
        cells.append(f"{frame['recall'].mean():.4f}")
        for reference in references:
            paired = paired_difference(frame["map"], by_customer[reference]["map"])
            told = f"{paired.relative:+.1%} ({paired.relative_low:+.1%} to {paired.relative_high:+.1%})"
            cells.append("" if name == reference else told)
        parts = found[name].groupby("has_history")["map"].mean()
        cells += [f"{parts.get(known, float('nan')):.4f}" for known in (True, False)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    rows = next(iter(found.values()))
    counts = (
        f"{rows['customer_index'].nunique():,} customers in {rows['window'].nunique()} window(s) from "
        f"{rows['window'].min()} on, who bought in {len(rows):,}, with a history in {int(rows['has_history'].sum()):,}."
    )
    return "\n".join([*lines, "", counts])


if __name__ == "__main__":
    main()
