"""A perceptron over baskets against two towers, judged on the test window by paired bootstrap.

    python benchmarks/compare_mlp_two_towers.py pipelines/complete_journey.toml

Each model chooses its epochs on the window before those that are judged, is fitted again on everything before each of
them, and ranks every article in store for every customer of that window; two towers rank, beside these, what the customer
bought in the last week and in the last month alone. `--windows` judges the last so many test windows and pools them, as
`ablate_features.py` does. Finished fits are kept in `mlp_two_towers/` of the run folder, so that a run that was stopped goes
on; `--force` begins anew.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ablate_features import K, make_windows
from rich.console import Console

import tfrs_fashion  # noqa: F401  (before TensorFlow)
from tfrs_fashion.config import load_config
from tfrs_fashion.data.split import Split, targets
from tfrs_fashion.evaluation.compare import bootstrap_interval, paired_difference
from tfrs_fashion.evaluation.metrics import customer_metrics
from tfrs_fashion.fitting import fit_recommender, make_validator, rank_customers
from tfrs_fashion.recommenders.factorization import Factorization
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.restricted import Restricted
from tfrs_fashion.recommenders.towers import TwoTower
from tfrs_fashion.run import Run
from tfrs_fashion.stage import code_fingerprint, fingerprint

REFERENCE = "repurchase"
COUNTED = ("popularity_7d", REFERENCE, "repurchase_7d", "repurchase_30d")
BASE = ("base_two_tower", "base_two_tower_one_hot", "base_two_tower_deep", "base_two_tower_one_hot_deep")
MODELS = ("basket_mlp", "basket_mlp_deep", *BASE, "two_tower")
RESTRICTED_DAYS = (7, 30)
METRICS = ("precision", "recall", "map")


def choose_epochs(run: Run, name: str, window: Split) -> dict[str, Any]:
    """Fits a model on what precedes a window and returns its best epoch there, and the figure."""
    view, wanted = run.view(window.name), targets(window, run.tables.transactions).execute()
    figures: list[float] = []
    judge = make_validator(view, wanted, k=K)

    def validate(recommender: Recommender) -> dict[str, float]:
        found = judge(recommender)
        figures.append(found[f"val_map@{K}"])
        return found

    fit_recommender(name, view, run.config, choice={}, validate=validate, console=run.console)
    return {"epochs": int(np.argmax(figures)) + 1, "validation": max(figures)}


def judge(run: Run, name: str, window: Split, choice: dict[str, Any]) -> pd.DataFrame:
    """Fits on everything before a window; returns the metrics of each customer who bought in it, by recommender."""
    view, wanted = run.view(window.name), targets(window, run.tables.transactions).execute()
    fitted = fit_recommender(name, view, run.config, choice=choice, console=run.console)
    asked = {name: fitted}
    if isinstance(fitted, TwoTower | Factorization):
        asked |= {f"{name}_{days}d": Restricted(fitted, days=days, name=name) for days in RESTRICTED_DAYS}
    customers = np.unique(wanted["customer_index"].to_numpy(dtype=np.int32))
    frames = []
    for label, recommender in asked.items():
        metrics = customer_metrics(rank_customers(recommender, view, customers, k=K), wanted, k=K)
        frames.append(metrics[[*METRICS]].reset_index(names="customer_index").assign(recommender=label))
    return pd.concat(frames)


def keep(path: Path, make: Callable[[], Any], *, force: bool) -> Any:
    """Reads what an earlier run has found, or finds and writes it."""
    if force or not path.is_file():
        path.write_text(json.dumps(make()), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def judge_windows(run: Run, name: str, windows: list[Split], kept: Path, *, force: bool) -> pd.DataFrame:
    """Chooses the epochs of a model and judges each window, as far as that was not done before; returns all rows."""
    choose_on, *judged = windows
    choice: dict[str, Any] = {}
    if name in MODELS:
        path = kept / f"chosen_on_{choose_on.name}.json"
        found = keep(path, lambda: choose_epochs(run, name, choose_on), force=force)
        run.console.print(f"{name}: {found['epochs']} epoch(s), {found['validation']:.4f} on validation")
        choice = {"epochs": found["epochs"]}
    frames = []
    for window in judged:
        path = kept / f"{window.name}.parquet"
        if force or not path.is_file():
            judge(run, name, window, choice).to_parquet(path)
        frames.append(pd.read_parquet(path))
    return pd.concat(frames).assign(epochs=choice.get("epochs", 0))


def table(rows: pd.DataFrame) -> str:
    """Lays the recommenders side by side, as Markdown; a customer of several windows counts once, by the mean."""
    head = ["epochs", *(f"{metric}@{K} (95%)" for metric in METRICS), f"map@{K} against {REFERENCE}"]
    lines = [f"| recommender | {' | '.join(head)} |", "| --- " * (len(head) + 1) + "|"]
    by_customer = rows.groupby(["recommender", "customer_index"])[[*METRICS]].mean()
    epochs = rows.groupby("recommender")["epochs"].first()
    for name in rows["recommender"].unique():
        own = by_customer.loc[name]
        cells = [str(epochs[name] or "")]
        for metric in METRICS:
            mean = bootstrap_interval(own[metric])
            cells.append(f"{mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})")
        paired = ""
        if name != REFERENCE and REFERENCE in epochs:
            difference = paired_difference(own["map"], by_customer.loc[REFERENCE]["map"])
            paired = f"{difference.relative:+.1%} ({difference.relative_low:+.1%} to {difference.relative_high:+.1%})"
        lines.append(f"| {name} | {' | '.join([*cells, paired])} |")
    return "\n".join([*lines, "", f"{rows['customer_index'].nunique():,} customers."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--only", action="append", choices=[*COUNTED, *MODELS], help="These recommenders alone.")
    parser.add_argument("--windows", type=int, default=1, help="Test windows to judge and pool.")
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.run_dir or Path("runs") / Path(arguments.pipeline).stem
    run = Run(config=load_config(arguments.pipeline, arguments.overrides), folder=folder, console=Console(width=120))
    run.prepare()
    windows = make_windows(run, arguments.windows)
    run.splits.update({window.name: window for window in windows})
    # What another program or other settings found is not taken for this one's.
    key = fingerprint(code_fingerprint(), run.config.model_dump(mode="json"))[:12]
    frames = []
    for name in arguments.only or [*COUNTED, *MODELS]:
        run.console.rule(name)
        kept = folder / "mlp_two_towers" / f"{name}_{key}"
        kept.mkdir(parents=True, exist_ok=True)
        frames.append(judge_windows(run, name, windows, kept, force=arguments.force))
    # Not by the console, which would break the lines of a table.
    print(table(pd.concat(frames)))


if __name__ == "__main__":
    main()
