"""Time to a validation recall: this package's two towers against the loop of TFRS's retrieval tutorial.

The peer is the tutorial as it stands: StringLookup and Embedding in each tower, in-batch softmax over single purchases,
Adagrad, `fit` without metrics. Both see the rows before the validation window of The Complete Journey, and are judged
on the same customers and in-store articles; only training is timed. The question is how long ours takes to reach the
best recall@12 that the peer was seen with, and where ours ends.

Usage: python benchmarks/train_two_tower.py [--run-dir runs/complete_journey] [--epochs 3] [--batch-size 2048]
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import tfrs_fashion  # noqa: F401  (chooses Keras 2 before TensorFlow loads)

import tensorflow as tf  # isort: skip
import tensorflow_recommenders as tfrs  # isort: skip
from rich.console import Console

from tfrs_fashion.data.split import targets
from tfrs_fashion.evaluation.metrics.accuracy import measure_accuracy
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.kinds import fit_recommender
from tfrs_fashion.recommenders.recommender import FitContext, Recommender
from tfrs_fashion.run.objective import make_validator
from tfrs_fashion.run.run import Run
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.file import load_config

K = 12
LOOKS_AN_EPOCH = 4
Curve = list[tuple[float, dict[str, float]]]


class Stopwatch(tf.keras.callbacks.Callback):
    """Judges the model every few steps, off the clock."""

    def __init__(self, judge: Callable[[], dict[str, float]], every: int) -> None:
        super().__init__()
        self.curve: Curve = []
        self._judge, self._every = judge, every
        self._seconds, self._steps = 0.0, 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._steps += 1
        if self._steps % self._every == 0:
            self._seconds += time.monotonic() - self._start
            self.curve.append((self._seconds, self._judge()))
            self._start = time.monotonic()


class Tutorial(tfrs.Model):
    """The model of https://www.tensorflow.org/recommenders/examples/basic_retrieval."""

    def __init__(self, customers: np.ndarray, articles: np.ndarray, dim: int) -> None:
        super().__init__()

        def tower(ids: np.ndarray) -> tf.keras.Model:
            lookup = tf.keras.layers.StringLookup(vocabulary=list(ids), mask_token=None)
            return tf.keras.Sequential([lookup, tf.keras.layers.Embedding(len(ids) + 1, dim)])

        self.query_tower, self.candidate_tower = tower(customers), tower(articles)
        self.task = tfrs.tasks.Retrieval()

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        queries = self.query_tower(features["customer_id"])
        return self.task(queries, self.candidate_tower(features["article_id"]), compute_metrics=False)


def run_tutorial(view: View, judged: pd.DataFrame, *, epochs: int, batch_size: int, dim: int) -> Curve:
    tf.keras.utils.set_random_seed(1)
    frame = view.transactions.select("customer_id", "article_id").execute().astype(str)
    rows = tf.data.Dataset.from_tensor_slices({name: frame[name].to_numpy() for name in frame})
    dataset = rows.cache().shuffle(100_000, seed=1).batch(batch_size).prefetch(tf.data.AUTOTUNE)
    model = Tutorial(view.timelines.customer_id, view.articles.article_id, dim)
    customers = np.unique(judged["customer_index"].to_numpy())
    customer_id = tf.constant(view.timelines.customer_id[customers - FIRST_INDEX].astype(str))
    article_id = tf.constant(view.articles.article_id[view.articles.in_store - FIRST_INDEX].astype(str))

    def judge() -> dict[str, float]:
        queries, articles = model.query_tower(customer_id).numpy(), model.candidate_tower(article_id)
        batches = np.array_split(queries, len(queries) // 128 + 1)
        scores = (tf.matmul(batch, articles, transpose_b=True) for batch in batches)
        positions = np.concatenate([tf.math.top_k(batch, K).indices for batch in scores])
        candidates = pd.DataFrame(
            {
                "customer_index": np.repeat(customers, K),
                "article_index": view.articles.in_store[positions].ravel(),
                "rank": np.tile(np.arange(1, K + 1), len(customers)),
            }
        )
        means = measure_accuracy(candidates, judged, k=K).mean()
        return {f"val_map@{K}": float(means["map"]), f"val_recall@{K}": float(means["recall"])}

    model.compile(optimizer=tf.keras.optimizers.Adagrad(0.1))
    stopwatch = Stopwatch(judge, every=len(frame) // batch_size // LOOKS_AN_EPOCH)
    model.fit(dataset, epochs=epochs, verbose=0, callbacks=[stopwatch])
    return stopwatch.curve


def run_ours(run: Run, judged: pd.DataFrame) -> Curve:
    view, config = run.view("validation"), run.config
    validate = make_validator(view, judged, k=K)
    settings = config.recommender["two_tower"]
    steps = settings.epochs * settings.steps_per_epoch
    if not steps:
        raise SystemExit("this benchmark needs recommender.two_tower.steps_per_epoch in the pipeline")
    looks = 20
    changed = {"steps_per_epoch": steps // looks, "epochs": looks, "patience": looks}
    curve: Curve = []
    clock = {"seconds": 0.0, "start": 0.0}

    def judge(recommender: Recommender) -> dict[str, float]:
        clock["seconds"] += time.monotonic() - clock["start"]
        figures = validate(recommender)
        curve.append((clock["seconds"], figures))
        clock["start"] = time.monotonic()
        return figures

    # Preparing batches and tracing are part of what it takes, so the clock starts before the fit.
    clock["start"] = time.monotonic()
    fit_recommender(view, settings.model_copy(update=changed), FitContext("two_tower", config.seed, validate=judge))
    return curve


def show(console: Console, name: str, curve: Curve) -> None:
    for seconds, figures in curve:
        console.print(
            f"{name:<9} {seconds:7.1f} s  " + "  ".join(f"{key} {value:.4f}" for key, value in figures.items())
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/complete_journey"))
    parser.add_argument("--epochs", type=int, default=3, help="of the peer")
    parser.add_argument("--batch-size", type=int, default=2048, help="of the peer")
    parser.add_argument("--dim", type=int, default=64, help="of the peer")
    options = parser.parse_args()
    console = Console(highlight=False)
    run = Run(config=load_config("pipelines/complete_journey.toml"), folder=options.run_dir, console=console)
    run.prepare()
    view = run.view("validation")
    judged = targets(run.splits["validation"], run.tables.transactions).execute()
    judged = judged[judged["customer_index"] < len(view.now)]
    peer = run_tutorial(view, judged, epochs=options.epochs, batch_size=options.batch_size, dim=options.dim)
    show(console, "tutorial", peer)
    ours = run_ours(run, judged)
    show(console, "ours", ours)
    recall = f"val_recall@{K}"
    peer_seconds, goal = max(((seconds, figures[recall]) for seconds, figures in peer), key=lambda look: look[1])
    reached = next((seconds for seconds, figures in ours if figures[recall] >= goal), None)
    if reached is None:
        raise SystemExit(f"ours never reached the peer's {recall} of {goal:.4f}")
    console.print(
        f"{recall} {goal:.4f}: tutorial {peer_seconds:.1f} s, ours {reached:.1f} s, "
        f"{peer_seconds / reached:.1f} times faster; ours ends at {ours[-1][1][recall]:.4f} after {ours[-1][0]:.1f} s"
    )


if __name__ == "__main__":
    main()
