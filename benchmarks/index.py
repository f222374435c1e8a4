"""ScaNN against the exact index on trained embeddings: recall@100, and queries a second.

Usage: python benchmarks/index.py [--run-dir runs/complete_journey], after `make quickstart`
"""

import argparse
import time
from pathlib import Path

import numpy as np

import tfrs_fashion  # noqa: F401  (chooses Keras 2 before TensorFlow loads)

import tensorflow as tf  # isort: skip

from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.index.exact import Exact
from tfrs_fashion.index.scann import Scann
from tfrs_fashion.recommenders.kinds import load_recommender
from tfrs_fashion.run.run import Run
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.file import load_config

K = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/complete_journey"))
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement")
    options = parser.parse_args()
    run = Run(config=load_config("pipelines/complete_journey.toml"), folder=options.run_dir)
    run.train()
    view = run.view("test")
    model = load_recommender(options.run_dir / "models" / "two_tower")
    table = HistoryTable(view.timelines, view.profiles)
    customers = np.arange(FIRST_INDEX, len(view.now), dtype=np.int32)
    embed = tf.function(lambda index, now: model.embed(table(index), now))
    batches = [customers[start : start + 256] for start in range(0, len(customers), 256)]
    queries = np.concatenate([embed(batch, view.now[batch]).numpy() for batch in batches])
    candidate_embedding, article_index = model.in_store
    start = time.monotonic()
    scann = Scann(candidate_embedding, article_index, **run.config.index.model_dump(exclude={"kinds"}))
    print(
        f"{len(queries):,} queries, {candidate_embedding.shape} candidates, ScaNN built in {time.monotonic() - start:.1f} s"
    )
    indices = {"exact": Exact(candidate_embedding, article_index), "scann": scann}
    found, rates = {}, {}
    for name, index in indices.items():

        @tf.function(input_signature=(tf.TensorSpec([None, queries.shape[1]], tf.float32),))
        def answer(query: tf.Tensor, index: Exact | Scann = index) -> tf.Tensor:
            return index(query, k=tf.constant(K), exclude=tf.zeros([tf.shape(query)[0], 0], tf.int32))[0]

        found[name] = np.concatenate(
            [answer(queries[start : start + 256]).numpy() for start in range(0, len(queries), 256)]
        )
        for size in (1, 256):
            answer(queries[:size])
            start, asked = time.monotonic(), 0
            while time.monotonic() - start < options.seconds:
                place = asked % max(len(queries) - size, 1)
                answer(queries[place : place + size])
                asked += size
            rates[name, size] = asked / (time.monotonic() - start)
    shared = [len(np.intersect1d(a, b)) / K for a, b in zip(found["exact"], found["scann"], strict=True)]
    print(f"ScaNN recall@{K} against exact: {np.mean(shared):.4f}")
    for size in (1, 256):
        exact, approximate = rates["exact", size], rates["scann", size]
        print(f"batch {size}: exact {exact:,.0f}/s, ScaNN {approximate:,.0f}/s, {approximate / exact:.1f} times")


if __name__ == "__main__":
    main()
