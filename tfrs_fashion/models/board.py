"""What TensorBoard shows of a training: losses, figures of validation, rates, norms, histograms, settings, a trace."""

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.summary import session_end_pb

from tfrs_fashion.models.training_log import TrainingLog

# Batches whose means are a point of the curves by batch: writing a point of each would slow short steps down.
BATCHES_A_POINT = 20
# Values of a weight that its histogram is drawn from, and rows of an embedding whose lengths are measured.
_MAX_VALUES, _MAX_ROWS = 50_000, 5_000
# Matrices with so many rows are embeddings.
_MIN_ROWS = 100
# Batches that are traced, after some in which graphs are still made.
_FIRST_TRACED, _NUM_TRACED = 5, 10
# What the names of the files of HParams end with.
_HPARAMS = ".hparams"


def open_log(folder: Path) -> tf.summary.SummaryWriter:
    """Opens a log of its own: events of a former run that lie in the same folder would be drawn as one with these."""
    # Folders below it are logs of parts of what is fitted.
    for former in folder.glob("events.out.tfevents*"):
        former.unlink()
    shutil.rmtree(folder / "plugins", ignore_errors=True)
    return tf.summary.create_file_writer(str(folder))


def _named(variables: list[tf.Variable]) -> Iterator[tuple[str, tf.Variable]]:
    """Names variables for a reader, alike in every fit.

    Keras numbers layers of one kind through all models that a process makes: here they are numbered anew in each model, and
    variables of one name likewise.
    """
    numbers: dict[str, dict[str, int]] = {}
    seen: dict[str, int] = {}
    for variable in variables:
        parts: list[str] = []
        for part in variable.name.split(":")[0].split("/"):
            kind = re.sub(r"_\d+$", "", part)
            known = numbers.setdefault("/".join([*parts, kind]), {})
            place = known.setdefault(part, len(known))
            parts.append(kind if place == 0 else f"{kind}_{place}")
        name = "/".join(parts)
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else f"{name}_{seen[name]}"), variable


class Board(tf.keras.callbacks.Callback):
    """Writes the log of one training.

    Scalars by batch (means over `BATCHES_A_POINT`): `batch_loss`, `gradient_norm`. By epoch: `loss`, every figure that validation
    gave, `learning_rate`, `examples_per_second` (of training alone), weights that are a single number, and of every embedding the
    mean length of its rows. By epoch, too, histograms of all other weights.

    Args:
        log: With a folder.
    """

    def __init__(self, log: TrainingLog) -> None:
        super().__init__()
        assert log.folder is not None
        self._folder, self._log = log.folder, log
        self._writer = open_log(log.folder)
        self._is_tracing = False

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Tells the settings."""
        self._step = 0
        self._waiting: dict[str, list[float]] = {"batch_loss": [], "gradient_norm": []}
        with self._writer.as_default(step=0):
            if self._log.settings:
                tf.summary.text("settings", f"```\n{self._log.settings}\n```")

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the clock."""
        self._start, self._rows = time.perf_counter(), 0
        self._end = self._start

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Starts the trace, where one is asked for."""
        if self._log.profile and self._step == _FIRST_TRACED:
            tf.profiler.experimental.start(str(self._folder))
            self._is_tracing = True

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Collects what the step told."""
        self._step += 1
        self._end = time.perf_counter()
        self._rows += int(logs.get("num_rows", 0))
        if self._is_tracing and self._step >= _FIRST_TRACED + _NUM_TRACED:
            self._stop_trace()
        self._waiting["batch_loss"].append(float(logs["loss"]))
        if "gradient_norm" in logs:
            self._waiting["gradient_norm"].append(float(logs["gradient_norm"]))
        if len(self._waiting["batch_loss"]) == BATCHES_A_POINT:
            self._write_batches()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Writes what there is to say of the epoch."""
        if self._is_tracing:
            self._stop_trace()
        self._write_batches()
        rate = self.model.optimizer.learning_rate
        seconds = max(self._end - self._start, 1e-9)
        told = {name: value for name, value in logs.items() if name == "loss" or name.startswith("val_")}
        with self._writer.as_default(step=epoch + 1):
            for name, value in told.items():
                tf.summary.scalar(name, value)
            tf.summary.scalar("learning_rate", rate)
            if self._rows:
                tf.summary.scalar("examples_per_second", self._rows / seconds)
            for name, variable in _named(self.model.trainable_variables):
                self._describe(name, variable)
        self._writer.flush()

    def close(self) -> None:
        """Closes the log, however the training ended."""
        if self._is_tracing:
            self._stop_trace()
        self._writer.close()

    def _describe(self, name: str, variable: tf.Variable) -> None:
        if tf.size(variable) == 1:
            tf.summary.scalar(f"weight/{name}", tf.reshape(variable, []))
            return
        rows = variable.shape[0] if variable.shape.rank == 2 else 0
        # Of a layer's kernel the rows stand for inputs, and not for articles or customers.
        if rows >= _MIN_ROWS and not name.endswith("kernel"):
            some = tf.gather(variable, np.unique(np.linspace(0, rows - 1, _MAX_ROWS).astype(np.int64)))
            tf.summary.scalar(f"embedding_norm/{name}", tf.reduce_mean(tf.norm(some, axis=1)))
        else:
            some = variable
        if self._log.histograms:
            values = tf.reshape(some, [-1])
            tf.summary.histogram(name, values[:: max(1, -(-int(tf.size(values)) // _MAX_VALUES))])

    def _write_batches(self) -> None:
        with self._writer.as_default(step=self._step):
            for name, values in self._waiting.items():
                if values:
                    tf.summary.scalar(name, float(np.mean(values)))
                values.clear()

    def _stop_trace(self) -> None:
        tf.profiler.experimental.stop()
        self._is_tracing = False


def write_curve(log: TrainingLog, name: str, values: Sequence[float]) -> None:
    """Writes a figure by rounds, of a training without epochs, and its settings."""
    if log.folder is None:
        return
    writer = open_log(log.folder)
    with writer.as_default(step=0):
        if log.settings:
            tf.summary.text("settings", f"```\n{log.settings}\n```")
        for step, value in enumerate(values, start=1):
            tf.summary.scalar(name, value, step=step)
    writer.close()


def write_images(folder: Path, images: dict[str, bytes]) -> None:
    """Writes PNGs by name as images that TensorBoard shows."""
    writer = open_log(folder)
    with writer.as_default(step=0):
        for name, png in images.items():
            tf.summary.image(name, tf.image.decode_png(png, channels=3)[tf.newaxis])
    writer.close()


def write_hparams(folder: Path, *, objective: str, trials: Mapping[str, tuple[Mapping[str, Any], float]]) -> None:
    """Writes the settings of trials and what came of them, for TensorBoard's HParams, beside what each trial logged.

    Args:
        folder: Of the search, in which each trial's own log lies.
        objective: By which figure trials were judged.
        trials: Settings by their names, and the objective, by trial.
    """
    for name, (values, found) in trials.items():
        place = folder / name
        for former in place.glob(f"*{_HPARAMS}"):
            former.unlink()
        writer = tf.summary.create_file_writer(str(place), filename_suffix=_HPARAMS)
        with writer.as_default(step=0):
            told = {
                key: value if isinstance(value, bool | int | float | str) else str(value)
                for key, value in values.items()
            }
            hparams.hparams(told, trial_id=name)
            tf.summary.experimental.write_raw_pb(
                session_end_pb(api_pb2.STATUS_SUCCESS).SerializeToString(),
                step=0,  # of a trial that ended well
            )
            tf.summary.scalar(f"best/{objective}", found)
        writer.close()
    for former in folder.glob(f"*{_HPARAMS}"):
        former.unlink()
    writer = tf.summary.create_file_writer(str(folder), filename_suffix=_HPARAMS)
    with writer.as_default(step=0):
        names = dict.fromkeys(key for values, _found in trials.values() for key in values)
        hparams.hparams_config(
            hparams=[hparams.HParam(key) for key in names],
            metrics=[hparams.Metric(f"best/{objective}", display_name=objective)],
        )
    writer.close()
