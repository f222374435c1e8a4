"""What the input pipeline of the two towers delivers alone, as a multiple of what their training step consumes.

Usage: python benchmarks/input_pipeline.py [--run-dir runs/complete_journey] [--steps 100]
"""

import argparse
import time
from pathlib import Path

import tfrs_fashion  # noqa: F401  (chooses Keras 2 before TensorFlow loads)

import tensorflow as tf  # isort: skip

from tfrs_fashion.features.inputs import SECONDS_PER_DAY, HistoryTable, make_training_baskets, make_training_dataset
from tfrs_fashion.recommenders import trained
from tfrs_fashion.recommenders.kinds import fit_by_name
from tfrs_fashion.run.run import Run
from tfrs_fashion.settings.file import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/complete_journey"))
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    run = Run(config=load_config("pipelines/complete_journey.toml"), folder=options.run_dir)
    run.prepare()
    view, settings = run.view("validation"), run.config.recommender["two_tower"]
    since = int(view.now.max()) - settings.target_days * SECONDS_PER_DAY
    baskets = make_training_baskets(view.timelines, since=since, history_length=settings.history_length)
    table = HistoryTable(view.timelines, view.profiles)
    week = (int(view.now.max()) - baskets.time) // (7 * SECONDS_PER_DAY)
    dataset = make_training_dataset(table, baskets, week=week, batch_size=settings.batch_size, seed=1)

    def baskets_a_second(batches: tf.data.Dataset) -> float:
        iterator = iter(batches.repeat())
        next(iterator)
        start = time.monotonic()
        for _step in range(options.steps):
            next(iterator)
        return options.steps * settings.batch_size / (time.monotonic() - start)

    rates: dict[str, float] = {}

    def fit(model: tf.keras.Model, batches: tf.data.Dataset, **_settings: object) -> tuple[int, dict[str, list[float]]]:
        """Times the training step alone, over batches that are already in memory."""
        step = tf.function(model.train_step)
        held = list(batches.take(10))
        step(held[0])
        start = time.monotonic()
        for number in range(options.steps):
            step(held[number % len(held)])
        rates["step"] = options.steps * settings.batch_size / (time.monotonic() - start)
        return 1, {}

    trained.fit_model = fit
    fit_by_name("two_tower", view, run.config.recommender)
    rates["input"] = baskets_a_second(dataset)
    print(
        f"input pipeline {rates['input']:,.0f} baskets/s, training step {rates['step']:,.0f} baskets/s: "
        f"{rates['input'] / rates['step']:.1f} times what the step consumes"
    )


if __name__ == "__main__":
    main()
