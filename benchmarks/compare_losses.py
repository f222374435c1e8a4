"""Which loss, over how many negatives: the dynamic model of Zalando's study with each, judged on the validation window.

    python benchmarks/compare_losses.py
    python benchmarks/compare_losses.py pipelines/rent_the_runway.toml --set data.path=FOLDER --epochs 10

Fashion DNA is fitted once, then `lstm_dna` over its vectors for so many epochs with every loss and every number of negatives,
from the same seed. Every article in store is ranked for every customer who bought, at the first purchase of the window; who
has no history is answered too. The test window is not looked at. By default the shop is generated.

Source: the losses of Heinz, Bracher and Vollgraf 2017, eq. 2.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

import tfrs_fashion  # noqa: F401  (before TensorFlow)
from tfrs_fashion.data.split import first_purchase_seconds
from tfrs_fashion.evaluation.metrics.target_ranks import find_rankable, measure_target_ranks
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.kinds import fit_by_name, fit_recommender
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.run.inference import rank_targets
from tfrs_fashion.run.objective import make_validator
from tfrs_fashion.run.run import Run
from tfrs_fashion.settings.file import load_config

K = 12
MODEL, VECTORS = "lstm_dna", "fashion_dna"
LSTM_DNA = [
    f"recommender.{MODEL}.kind=sequential",
    f"recommender.{MODEL}.tower=lstm",
    f"recommender.{MODEL}.hidden_dim=256",
    f"recommender.{MODEL}.vectors_of={VECTORS}",
    f'recommender.{MODEL}.event_features=["gap", "season"]',
]
LOSSES = ("sampled_sigmoid", "sampled_softmax", "sigmoid_rank", "calibrated_sigmoid")
NUM_NEGATIVES = (1, 5, 20, 50, 100)
# A shop that is generated in seconds.
SMALL = [
    "data.num_customers=20000",
    "data.num_articles=6000",
    "data.num_transactions=300000",
    "split.validation_days=8",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", nargs="?", default="pipelines/hm_scale.toml")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/compare_losses"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=LOSSES)
    parser.add_argument("--num-negatives", nargs="+", type=int, default=list(NUM_NEGATIVES))
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    log = TrainingLog(console=console)
    overrides = ["split.never_sold_in_store=true", *LSTM_DNA, f"recommender.{MODEL}.epochs={options.epochs}"]
    overrides += options.overrides
    if options.pipeline == parser.get_default("pipeline"):
        overrides = [*SMALL, *overrides]
    run = Run(config=load_config(options.pipeline, overrides), folder=options.run_dir, log=log)
    run.prepare()
    view, wanted = run.view("validation"), run._targets("validation")
    now = first_purchase_seconds(view.split, run.tables.transactions, view.now)
    rankable = find_rankable(wanted, view.articles.in_store)
    seed = run.config.seed
    styles = fit_by_name(VECTORS, view, run.config.recommender, seed=seed, log=log)
    validate = make_validator(view, wanted, k=K)
    head = ["loss", "n", "AUC", "10%", "50%", "90%", f"map@{K}", f"recall@{K}", "seconds"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for loss in options.losses:
        for number in options.num_negatives:
            settings = {"loss": loss, "num_negatives": number}
            start = time.monotonic()
            tower = run.config.recommender[MODEL].model_copy(update=settings)
            fitted = fit_recommender(view, tower, FitContext(MODEL, seed, part=lambda _name: styles, log=log))
            seconds = time.monotonic() - start
            lists = validate(fitted)
            ranks = rank_targets(fitted, replace(view, now=now), rankable, seed=run.config.seed)
            found = measure_target_ranks(ranks)
            auc = found["auc"]
            reached = [f"{found[f'rank_q{share}'].value:,.0f}" for share in (10, 50, 90)]
            cells = [f"`{loss}`", str(number), f"{auc.value:.4f} ({auc.low:.4f} to {auc.high:.4f})", *reached]
            cells += [f"{lists[f'val_map@{K}']:.4f}", f"{lists[f'val_recall@{K}']:.4f}", f"{seconds:.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
            # What was found so far stands in the log of a run that is stopped.
            print("\n".join(lines), flush=True)
    print(
        f"{rankable['customer_index'].nunique():,} customers, {len(rankable):,} purchases, {len(view.articles.in_store):,} articles"
    )


if __name__ == "__main__":
    main()
