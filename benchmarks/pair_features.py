"""Features of pairs: how long ten million take, on all cores.

The shop is The Complete Journey's, as of the test cutoff: 200 candidates by chance, half of them bought before, for each
customer, over and over until there were so many pairs. Ranks and similarities are no part of it: they come with the candidates.

Usage: python benchmarks/pair_features.py [--pairs 10_000_000] [--batch-size 256]
"""

import argparse
import time
from pathlib import Path

import numpy as np
from rich.console import Console

import tfrs_fashion  # noqa: F401  (before TensorFlow)

import tensorflow as tf  # isort: skip

from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.pair_lookups import make_pair_lookups
from tfrs_fashion.features.pairs import PairFeatureLayer
from tfrs_fashion.run.run import Run
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.file import load_config

GROUPS = ("product_category", "product_type", "department", "brand")
WIDTH = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", nargs="?", default="pipelines/complete_journey.toml")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/complete_journey"))
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--batch-size", type=int, default=256)
    options = parser.parse_args()
    run = Run(config=load_config(options.pipeline), folder=options.run_dir, console=Console(highlight=False))
    run.prepare()
    view = run.view("test")
    groups = [name for name in GROUPS if name in view.tables.articles.columns]
    start = time.monotonic()
    lookups = make_pair_lookups(view, groups)
    print(f"look-ups for {len(groups)} groups: {time.monotonic() - start:.1f} s")
    layer, table = PairFeatureLayer(lookups), HistoryTable(view.timelines, view.profiles)
    now = tf.constant(view.now)

    @tf.function(input_signature=(tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, WIDTH], tf.int32)))
    def describe(customer_index: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
        row = tf.repeat(tf.range(tf.size(customer_index, tf.int64)), WIDTH)
        return layer(table(customer_index), tf.gather(now, customer_index), row, tf.reshape(article_index, [-1]))

    random, splits = np.random.default_rng(1), view.timelines.row_splits
    has_history = np.flatnonzero(np.diff(splits) > 0)
    done, seconds = 0, 0.0
    while done < options.pairs:
        rows = random.choice(has_history, options.batch_size)
        article = random.integers(FIRST_INDEX, len(lookups.article), (len(rows), WIDTH)).astype(np.int32)
        for place, customer in enumerate(rows):
            own = view.timelines.article_index[splits[customer] : splits[customer + 1]]
            article[place, : WIDTH // 2] = random.choice(own, WIDTH // 2)
        start = time.monotonic()
        found = describe(tf.constant((rows + FIRST_INDEX).astype(np.int32)), tf.constant(article))
        found.numpy()
        seconds += time.monotonic() - start
        done += len(found)
    print(f"{done:,} pairs, {len(lookups.names)} features: {seconds:.1f} s, {done / seconds:,.0f} pairs a second")


if __name__ == "__main__":
    main()
