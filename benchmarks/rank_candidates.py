"""Putting 200 candidates of one customer in order, on one core: features of pairs, similarities and rankers, as an artifact does.

Two stages are fitted by the pipeline (weights do not change what an answer costs, so one epoch is enough for a network), then each
customer's own candidates are described and scored, one customer at a time, with TensorFlow on one thread; and the same customers
are asked of the whole recommender, whose generators come first.

Usage: python benchmarks/rank_candidates.py [pipelines/complete_journey.toml] [--name two_stage]
"""

import argparse
import time
from pathlib import Path

import numpy as np
from rich.console import Console

import tfrs_fashion  # noqa: F401  (before TensorFlow)

import tensorflow as tf  # isort: skip

from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.recommenders.two_stage.two_stage import DescribedPairs, TwoStage
from tfrs_fashion.run.run import Run
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.file import load_config

NUM_CUSTOMERS, NUM_ROUNDS = 100, 3


def tell(name: str, milliseconds: list[float]) -> None:
    median, high = np.percentile(milliseconds, (50, 99))
    print(f"{name:<44} median {median:6.2f} ms   p99 {high:6.2f} ms   {len(milliseconds):,} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", nargs="?", default="pipelines/complete_journey.toml")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/rank_candidates"))
    parser.add_argument("--name", default="two_stage")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    settings = [
        f'recommenders=["popularity_7d", "{options.name}"]',
        f"recommend.recommender={options.name}",
        f"recommender.{options.name}.network.epochs=1",
        f"recommender.{options.name}.weeks=2",
        f"recommender.{options.name}.blend_weeks=1",
        *options.overrides,
    ]
    run = Run(config=load_config(options.pipeline, settings), folder=options.run_dir, console=Console(highlight=False))
    run.train()
    two_stage = run._load(options.name)
    assert isinstance(two_stage, TwoStage)
    view = run.view("test")
    table = HistoryTable(view.timelines, view.profiles)
    cutoff, width = tf.constant(view.now), len(two_stage.describer.generators)

    @tf.function(input_signature=(tf.TensorSpec([1], tf.int32),), autograph=False)
    def find(customer: tf.Tensor) -> DescribedPairs:
        exclude = tf.zeros([1, 0], tf.int32)
        return two_stage.candidates(table(customer), now=tf.gather(cutoff, customer), exclude=exclude)

    @tf.function(input_signature=(tf.TensorSpec([1], tf.int32), tf.TensorSpec([None], tf.int32)), autograph=False)
    def rank(customer: tf.Tensor, article: tf.Tensor) -> tf.Tensor:
        row = tf.zeros_like(article, tf.int64)
        said = tf.ones([tf.size(article), width])
        features = two_stage.describer(table(customer), tf.gather(cutoff, customer), row, article, said, said)
        return two_stage.score(DescribedPairs(row, article, tf.repeat(customer, tf.size(article)), said, features))

    @tf.function(input_signature=(tf.TensorSpec([1], tf.int32),), autograph=False)
    def answer(customer: tf.Tensor) -> tf.Tensor:
        exclude = tf.zeros([1, 0], tf.int32)
        now = tf.gather(cutoff, customer)
        return two_stage(table(customer), now=now, k=tf.constant(12), exclude=exclude).article_index

    random = np.random.default_rng(1)
    rows = random.choice(np.flatnonzero(np.diff(view.timelines.row_splits) > 0), NUM_CUSTOMERS, replace=False)
    customers = [tf.constant([row + FIRST_INDEX], tf.int32) for row in rows]
    candidates = [find(customer).article_index for customer in customers]
    print(f"{np.mean([len(found) for found in candidates]):.0f} candidates, {len(two_stage.describer.names)} features")
    taken: dict[str, list[float]] = {"features and rankers of the candidates": [], "generators, blend and the same": []}
    for number in range(NUM_ROUNDS + 1):
        for customer, article in zip(customers, candidates, strict=True):
            work = (lambda: rank(customer, article), lambda: answer(customer))  # noqa: B023  (called at once)
            for name, call in zip(taken, work, strict=True):
                start = time.perf_counter()
                call().numpy()
                if number:
                    taken[name].append(1000 * (time.perf_counter() - start))
    for name, milliseconds in taken.items():
        tell(name, milliseconds)


if __name__ == "__main__":
    main()
