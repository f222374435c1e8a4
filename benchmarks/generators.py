"""Candidate generators against the package implicit on the same purchases, and how long counting takes at H&M's size.

    python benchmarks/generators.py [--pipeline pipelines/complete_journey.toml] [--run-dir runs/complete_journey]
    python benchmarks/generators.py --full [--rows 31788324]

The first fits item-kNN by cosine and by BM25 both ways on everything before the validation window, lets one and the same
recommender answer from either table of neighbours, and judges the lists; implicit's own `recommend` is timed too. Factors
(ALS, BPR) are implicit's in both, so there is nothing to compare. The second invents H&M's files at their largest size and
fits what counts pairs of articles; it prints seconds and the highest memory of the process.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import tfrs_fashion  # noqa: F401  (before TensorFlow)
from tfrs_fashion.evaluation.metrics.accuracy import measure_accuracy
from tfrs_fashion.features.purchase_matrices import customer_matrix
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.kinds import fit_by_name
from tfrs_fashion.recommenders.neighbours import Neighbours
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.inference import rank_customers
from tfrs_fashion.run.run import Run
from tfrs_fashion.settings.file import load_config

PIPELINES = Path(__file__).parent.parent / "pipelines"
FULL = ("item_knn", "item_knn_bm25", "co_visitation", "basket_pairs", "customer_knn", "graph_filter")
DEPTH, FULL_ROWS = 200, 31_788_324


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Returns the result, the seconds on the clock and those of the processor."""
    start, used = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - start, time.process_time() - used


def fit_implicit(view: View, similarity: str, *, num_neighbours: int, settings: Any) -> tuple[Any, Neighbours]:
    """Fits implicit's neighbours on the same matrix, and puts them where ours would be."""
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender

    # One more: an article is its own nearest neighbour, which ours counts too.
    model = (
        CosineRecommender(K=num_neighbours) if similarity == "cosine" else BM25Recommender(num_neighbours, 1.2, 0.75)
    )
    matrix = customer_matrix(view)
    model.fit(matrix, show_progress=False)
    found = model.similarity.tocsr()
    neighbour = np.zeros((found.shape[0], num_neighbours), np.int32)
    weight = np.zeros((found.shape[0], num_neighbours), np.float32)
    in_store = np.zeros(found.shape[0], bool)
    in_store[view.articles.in_store] = True
    for row in range(found.shape[0]):
        cells = slice(found.indptr[row], found.indptr[row + 1])
        order = np.lexsort([found.indices[cells], -found.data[cells]])[:num_neighbours]
        chosen = found.indices[cells][order]
        neighbour[row, : len(chosen)] = np.where(in_store[chosen], chosen, 0)
        weight[row, : len(chosen)] = np.where(in_store[chosen], found.data[cells][order], 0.0)
    return model, Neighbours(
        neighbour,
        weight,
        history_articles=settings.history_articles,
        half_life_days=settings.half_life_days,
        kind="item_knn",
        name=f"implicit_{similarity}",
    )


def against_implicit(pipeline: Path, folder: Path) -> None:
    """Fits both, answers from both, and judges both on the validation window."""
    run = Run(config=load_config(pipeline), folder=folder, console=Console(width=120))
    run.prepare()
    view, wanted = run.view("validation"), run._targets("validation")
    customers = np.unique(wanted["customer_index"].to_numpy(np.int32))

    def judge(name: str, recommender: Recommender, fitted: float, processor: float, **more: float) -> None:
        answers, seconds, _used = timed(lambda: rank_customers(recommender, view, customers, k=DEPTH))
        means = {k: measure_accuracy(answers, wanted, k=k).mean() for k in (12, DEPTH)}
        told = "  ".join(f"{label} {value:.1f} s" for label, value in more.items())
        print(
            f"{name:24} fit {fitted:6.1f} s (processor {processor:6.1f})  map@12 {means[12]['map']:.4f}  "
            f"recall@12 {means[12]['recall']:.4f}  recall@{DEPTH} {means[DEPTH]['recall']:.4f}  "
            f"answers {seconds:.1f} s  {told}",
            flush=True,
        )

    for name in ("item_knn", "item_knn_bm25"):
        settings = run.config.recommender[name]
        ours, seconds, processor = timed(
            lambda name=name: fit_by_name(name, view, run.config.recommender, seed=run.config.seed)
        )
        judge(name, ours, seconds, processor)
        (model, theirs), seconds, processor = timed(
            lambda settings=settings: fit_implicit(
                view, settings.similarity, num_neighbours=settings.num_neighbours, settings=settings
            )
        )
        rows = customer_matrix(view)[customers[customers < len(view.now)]]
        known = customers[customers < len(view.now)]
        _found, own, _used = timed(
            lambda model=model, known=known, rows=rows: model.recommend(
                known, rows, N=DEPTH, filter_already_liked_items=False
            )
        )
        judge(theirs.name, theirs, seconds, processor, **{"its own recommend": own})


def at_full_size(rows: int, folder: Path) -> None:
    """Fits what counts pairs of articles on as many rows as H&M has."""
    share = rows / FULL_ROWS
    sizes = {
        "num_transactions": rows,
        "num_customers": round(1_371_980 * share),
        "num_articles": min(105_542, max(1000, round(105_542 * share**0.5))),
    }
    overrides = [f"data.{name}={size}" for name, size in sizes.items()]
    run = Run(config=load_config(PIPELINES / "hm_scale.toml", overrides), folder=folder, console=Console(width=120))
    run.prepare()
    view, seconds, _used = timed(lambda: run.view("test"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"view of {len(view.timelines.time):,} events: {seconds:.1f} s, {memory:.1f} GiB so far", flush=True)
    for name in FULL:
        _fitted, seconds, processor = timed(
            lambda name=name: fit_by_name(name, view, run.config.recommender, seed=run.config.seed)
        )
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{name:24} fit {seconds:6.1f} s (processor {processor:6.1f}), {memory:.1f} GiB at most so far", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=Path, default=PIPELINES / "complete_journey.toml")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--full", action="store_true", help="Counting at H&M's size instead.")
    parser.add_argument("--rows", type=int, default=FULL_ROWS)
    options = parser.parse_args()
    if options.full:
        at_full_size(options.rows, options.run_dir or Path("runs/generators_full"))
    else:
        against_implicit(options.pipeline, options.run_dir or Path("runs") / options.pipeline.stem)


if __name__ == "__main__":
    main()
