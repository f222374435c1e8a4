"""Sequences a second in training: this package's GRU against the plain Keras layer over histories padded to 50.

Both learn next purchases of Amazon Beauty by the softmax over all articles, with a GRU of the same width, dropout and Adam,
from what comes before the validation purchase; each is judged after every epoch, off the clock, by the rank of that
purchase among all articles. The peer is what a tutorial writes: Embedding with `mask_zero`, GRU, Dense, `fit`. A second peer
takes the logits at the steps that count alone, which is the least that one would do about it.

Then, for fewer epochs: ours with windows put together by chance and not by length, and with shorter histories; and, if asked for, the
padded peer under XLA, which takes long. Ours is not compiled by it: how many targets and articles a batch holds is known only when
it is there.

Usage: python benchmarks/train_sequential.py [--data data/amazon] [--epochs 6] [--side-epochs 2] [--batch-events 512] [--xla]
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np

import tfrs_fashion  # noqa: F401  (chooses Keras 2 before TensorFlow loads)

import tensorflow as tf  # isort: skip
from rich.console import Console

from tfrs_fashion.features.sequences import Windows
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders import sequential
from tfrs_fashion.recommenders.recommender import FitContext, Recommender
from tfrs_fashion.run.objective import make_validator
from tfrs_fashion.run.run import Run
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.file import load_config
from tfrs_fashion.settings.sequences import SequentialConfig

LENGTH, DIM, DROPOUT, K = 50, 128, 0.4, 10


def pad_histories(view: View) -> np.ndarray:
    """`[num_customers, LENGTH + 1]` int32, each customer's last articles behind zeros."""
    padded = np.zeros((view.timelines.num_customers, LENGTH + 1), np.int32)
    splits = view.timelines.row_splits
    for row in range(len(padded)):
        last = view.timelines.article_index[splits[row] : splits[row + 1]][-LENGTH - 1 :]
        padded[row, len(padded[row]) - len(last) :] = last
    return padded


class Plain(tf.keras.Model):
    """Embedding, GRU, Dense."""

    def __init__(self, size: int, *, takes_steps: bool) -> None:
        super().__init__()
        self.embedding = tf.keras.layers.Embedding(size, DIM, mask_zero=True)
        self.gru = tf.keras.layers.GRU(DIM, return_sequences=True)
        self.dropout = tf.keras.layers.Dropout(DROPOUT)
        self.dense = tf.keras.layers.Dense(size)
        self._takes_steps = takes_steps

    def call(self, article_index: tf.Tensor, training: bool = False) -> tf.Tensor:
        embedded = self.dropout(self.embedding(article_index), training=training)
        mask = self.embedding.compute_mask(article_index)
        return self.dropout(self.gru(embedded, mask=mask), training=training)

    def train_step(self, data: tf.Tensor) -> dict[str, tf.Tensor]:
        read, wanted = data[:, :-1], data[:, 1:]
        counts = read > 0
        with tf.GradientTape() as tape:
            hidden = self(read, training=True)
            if self._takes_steps:
                hidden, wanted = hidden[counts], wanted[counts]
                weight = tf.ones_like(wanted, tf.float32)
            else:
                weight = tf.cast(counts, tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, self.dense(hidden))
            loss = tf.reduce_sum(losses * weight) / tf.reduce_sum(weight)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return {"loss": loss}


def judge_plain(model: Plain, histories: np.ndarray, target: np.ndarray) -> dict[str, float]:
    ranks = []
    for start in range(0, len(histories), 256):
        logits = model.dense(model(tf.constant(histories[start : start + 256]))[:, -1]).numpy()
        logits[:, :FIRST_INDEX] = -np.inf
        wanted = target[start : start + 256]
        ranks.append((logits > logits[np.arange(len(wanted)), wanted][:, np.newaxis]).sum(axis=1))
    rank = np.concatenate(ranks)
    return {"hit_rate": float((rank < K).mean()), "map": float(np.where(rank < K, 1 / (rank + 1), 0).mean())}


def run_plain(
    console: Console, run: Run, *, epochs: int, batch_size: int, takes_steps: bool = False, xla: bool = False, name: str
) -> float:
    tf.keras.utils.set_random_seed(1)
    view, judged = run.view("validation"), run._targets("validation")
    padded = pad_histories(view)
    learned = padded[(padded > 0).sum(axis=1) > 1]
    histories = padded[judged["customer_index"].to_numpy() - FIRST_INDEX][:, 1:]
    model = Plain(view.articles.num_articles + FIRST_INDEX, takes_steps=takes_steps)
    model.compile(optimizer=tf.keras.optimizers.Adam(1e-3), jit_compile=xla)
    rows = tf.data.Dataset.from_tensor_slices(learned).shuffle(len(learned), seed=1).batch(batch_size)
    seconds = 0.0
    for epoch in range(epochs):
        start = time.monotonic()
        model.fit(rows, epochs=1, verbose=0)
        seconds += time.monotonic() - start
        figures = judge_plain(model, histories, judged["article_index"].to_numpy())
        show(console, name, epoch, seconds, len(learned), figures)
    return epochs * len(learned) / seconds


def batch_by_chance(windows: Windows, *, batch_events: int, random: np.random.Generator) -> list[np.ndarray]:
    """Puts windows together as they come, as many as if they had no padding: a batch is as wide as its longest."""
    length = windows.end - windows.start
    size = max(1, round(batch_events / (length.mean() + 1)))
    return np.array_split(random.permutation(len(length)), -(-len(length) // size))


def run_ours(
    console: Console, run: Run, *, epochs: int, batch_events: int, length: int = LENGTH, name: str = "ours"
) -> float:
    view, judged = run.view("validation"), run._targets("validation")
    num_sequences = int((np.diff(view.timelines.row_splits) > 1).sum())
    validate = make_validator(view, judged, k=K)
    clock = {"seconds": 0.0, "start": time.monotonic(), "epoch": 0.0}

    def judge(recommender: Recommender) -> dict[str, float]:
        clock["seconds"] += time.monotonic() - clock["start"]
        found = validate(recommender)
        figures = {"hit_rate": found[f"val_recall@{K}"], "map": found[f"val_map@{K}"]}
        show(console, name, int(clock["epoch"]), clock["seconds"], num_sequences, figures)
        clock["epoch"] += 1
        clock["start"] = time.monotonic()
        return found

    settings = SequentialConfig(
        loss="full_softmax",
        embedding_dim=DIM,
        hidden_dim=DIM,
        history_length=length,
        dropout=DROPOUT,
        event_features=(),
        batch_events=batch_events,
        epochs=epochs,
        patience=epochs,
    )
    # Preparing batches and tracing are part of what it takes, so the clock starts before the fit.
    clock["start"] = time.monotonic()
    sequential.fit(view, settings, FitContext("gru", validate=judge))
    return epochs * num_sequences / clock["seconds"]


def show(console: Console, name: str, epoch: int, seconds: float, sequences: int, figures: dict[str, float]) -> None:
    told = "  ".join(f"{key}@{K} {value:.4f}" for key, value in figures.items())
    console.print(
        f"{name:<26} epoch {epoch + 1:>2}  {seconds:7.1f} s  {(epoch + 1) * sequences / seconds:7.0f} sequences/s  {told}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/amazon"))
    parser.add_argument("--run-dir", type=Path, default=Path("runs/amazon_beauty"))
    parser.add_argument("--epochs", type=int, default=6, help="of the comparison; 0 leaves it out")
    parser.add_argument("--side-epochs", type=int, default=2, help="of what is told apart from the comparison")
    parser.add_argument("--xla", action="store_true", help="the padded peer under XLA, too")
    parser.add_argument("--batch-events", type=int, default=512, help="of ours")
    parser.add_argument("--batch-size", type=int, default=64, help="sequences, of the peers")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    settings = [f"data.path={options.data}", "features.sets=[]"]
    run = Run(config=load_config("pipelines/amazon_beauty.toml", settings), folder=options.run_dir, console=console)
    run.prepare()
    ours = partial(run_ours, console, run, batch_events=options.batch_events)
    plain = partial(run_plain, console, run, batch_size=options.batch_size)
    peers: dict[str, Callable[..., float]] = {
        "plain, logits of steps": partial(plain, takes_steps=True),
        "plain": plain,
    }
    if options.epochs:
        speed = ours(epochs=options.epochs)
        for name, peer in peers.items():
            other = peer(epochs=options.epochs, name=name)
            console.print(f"ours {speed:.0f} sequences/s, {name} {other:.0f}: {speed / other:.1f} times")
    console.print("Further, not to be compared with the above, whose tracing is spread over more epochs:")
    ours(epochs=options.side_epochs)
    with mock.patch("tfrs_fashion.features.sequences.batch_windows", batch_by_chance):
        ours(epochs=options.side_epochs, name="ours, batches by chance")
    for length in (10, 20):
        ours(epochs=options.side_epochs, length=length, name=f"ours, histories of {length}")
    if options.xla:
        plain(epochs=options.side_epochs, xla=True, name="plain, XLA")


if __name__ == "__main__":
    main()
