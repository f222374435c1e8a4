"""The exported sequential tower: how long one history of 50 takes on one core, and how long embedding a million customers.

The pipeline is exported with one epoch of training, since weights do not change what an answer costs. One request asks the
signature `by_history` for 12 articles from 50 events, with TensorFlow on one thread; beside it, in the same process, a Keras
LSTM as a tutorial exports it (Embedding, LSTM, the softmax over all articles, top k) answers the same history. Then the
signature `embed` answers the customers of the pipeline, over and over, until there were a million, on all cores.

Usage: python benchmarks/serve_sequential.py [--data data/amazon] [--tower gru]
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console

import tfrs_fashion  # noqa: F401  (chooses Keras 2 before TensorFlow loads)

LENGTH, DIM, K = 50, 128, 12
EMBEDDED = 1_000_000


def export(options: argparse.Namespace) -> Path:
    """Trains for an epoch and exports; returns the artifact's folder."""
    from tfrs_fashion.run.run import Run
    from tfrs_fashion.settings.file import load_config

    tower = options.tower
    settings = [
        f"data.path={options.data}",
        f'recommenders=["popularity_all", "{tower}"]',
        f"recommender.{tower}.epochs=1",
    ]
    settings += [f"recommend.recommender={tower}", 'index.kinds=["exact"]']
    config = load_config("pipelines/amazon_beauty.toml", settings)
    run = Run(config=config, folder=options.run_dir, console=Console(highlight=False))
    run.export()
    return run._artifact(tower)


def read_ids(artifact: Path, name: str) -> np.ndarray:
    return np.array((artifact / "assets" / f"{name}.txt").read_text(encoding="utf-8").splitlines(), dtype=object)


def tell(name: str, milliseconds: list[float]) -> None:
    median, high = np.percentile(milliseconds, (50, 99))
    print(f"{name:<28} median {median:5.2f} ms   p99 {high:5.2f} ms   {len(milliseconds):,} requests")


def time_one_by_one(artifact: Path, *, seconds: float) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    articles = read_ids(artifact, "article_ids")
    ask = tf.saved_model.load(str(artifact)).signatures["by_history"]
    bought = np.random.default_rng(1).choice(articles, LENGTH)
    num_profile, num_numbers = (
        ask.structured_input_signature[1][name].shape[1] for name in ("profile", "profile_numbers")
    )
    request = {
        "article_ids": tf.constant([bought.tolist()]),
        "times": tf.constant([[86_400 * day for day in range(LENGTH)]], tf.int64),
        "prices": tf.fill([1, LENGTH], float("nan")),
        "quantities": tf.ones([1, LENGTH], tf.int32),
        "discounts": tf.fill([1, LENGTH], float("nan")),
        "sales_channel_ids": tf.zeros([1, LENGTH], tf.int32),
        "store_ids": tf.fill([1, LENGTH], ""),
        "profile": tf.fill([1, num_profile], ""),
        "profile_numbers": tf.fill([1, num_numbers], float("nan")),
        "now": tf.constant([86_400 * LENGTH], tf.int64),
        "exclude": tf.fill([1, 0], ""),
        "k": tf.constant([K], tf.int32),
    }
    size = len(articles) + 2
    embedding, lstm = tf.keras.layers.Embedding(size, DIM, mask_zero=True), tf.keras.layers.LSTM(DIM)
    dense = tf.keras.layers.Dense(size)

    @tf.function(input_signature=(tf.TensorSpec([None, LENGTH], tf.int32),))
    def stock(article_index: tf.Tensor) -> tf.Tensor:
        embedded = embedding(article_index)
        return tf.math.top_k(dense(lstm(embedded, mask=embedding.compute_mask(article_index))), k=K).indices

    history = tf.constant(np.random.default_rng(2).integers(2, size, (1, LENGTH)), tf.int32)
    timed = {"stock": lambda: stock(history), "ours": lambda: ask(**request)}
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for answer in timed.values():
        for _ in range(20):
            answer()
    until = time.monotonic() + seconds
    # In turns, so that a busy moment of the machine meets both.
    while time.monotonic() < until:
        for name, answer in timed.items():
            start = time.perf_counter()
            answer()
            taken[name].append(1000 * (time.perf_counter() - start))
    tell(f"{artifact.parent.name}, by_history, one core", taken["ours"])
    tell("stock Keras LSTM, one core", taken["stock"])
    print(f"times the stock LSTM, medians: {np.median(taken['ours']) / np.median(taken['stock']):.2f}")


def embed_all(artifact: Path) -> None:
    import tensorflow as tf

    embed = tf.saved_model.load(str(artifact)).signatures["embed"]
    customers = read_ids(artifact, "customer_ids").tolist()
    batches = [tf.constant(customers[start : start + 1024]) for start in range(0, len(customers), 1024)]
    embed(customer_id=batches[0])
    start, done = time.monotonic(), 0
    while done < EMBEDDED:
        for batch in batches:
            done += int(embed(customer_id=batch)["embeddings"].shape[0])
    seconds = time.monotonic() - start
    print(f"embed: {done:,} customers in {seconds:.0f} s on {os.cpu_count()} cores: {done / seconds:,.0f} a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/amazon"))
    parser.add_argument("--tower", default="gru")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/serve_sequential"))
    parser.add_argument("--seconds", type=float, default=20.0, help="of requests one by one")
    parser.add_argument("--stage", choices=("export", "requests", "embed"), help="a process of its own for each")
    options = parser.parse_args()
    artifact = options.run_dir / "saved_models" / options.tower / "1"
    match options.stage:
        case "export":
            export(options)
        case "requests":
            time_one_by_one(artifact, seconds=options.seconds)
        case "embed":
            embed_all(artifact)
        case None:
            # Threads are set before TensorFlow starts, so each stage is a process.
            for stage in ("export", "requests", "embed"):
                subprocess.run([sys.executable, *sys.argv, "--stage", stage], check=True)


if __name__ == "__main__":
    main()
