"""Training: epochs, validation over the full catalogue, early stopping."""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_recommenders as tfrs
from rich.console import Console

from tfrs_fashion.models.board import Board
from tfrs_fashion.models.recorded import RecordedModel
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.schema import RunError


class FitEndedError(Exception):
    """Ends a training after the epoch that was just judged, which is still told.

    Args:
        figures: Of that epoch, as `validate` would have given them.
    """

    def __init__(self, figures: dict[str, float]) -> None:
        super().__init__()
        self.figures = figures


class EarlyStopping(tf.keras.callbacks.Callback):
    """Judges the model after each epoch and stops when the figure no longer rises.

    Args:
        validate: Gives figures by name; the first one is to rise.
        patience: Epochs to wait for a better one.

    Attributes:
        best_epoch: Counted from 1.
        ended: What `validate` ended the training by.
    """

    def __init__(self, validate: Callable[[], dict[str, float]], *, patience: int) -> None:
        super().__init__()
        self._validate = validate
        self._patience = patience
        self.best_epoch = 0
        self.ended: FitEndedError | None = None
        self._best = -math.inf

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Adds the figures to the logs of the epoch."""
        try:
            figures = self._validate()
        except FitEndedError as error:
            figures, self.ended = error.figures, error
            self.model.stop_training = True
        logs.update(figures)
        figure = next(iter(figures.values()))
        if figure > self._best:
            self._best, self.best_epoch = figure, epoch + 1
        elif epoch + 1 - self.best_epoch >= self._patience:
            self.model.stop_training = True


class _MeanLoss(tf.keras.callbacks.Callback):
    """Makes the loss of an epoch the mean over its batches; the training step of TFRS gives each batch's own."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self._losses.append(float(logs["loss"]))

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs["loss"] = sum(self._losses) / len(self._losses)


class _Show(tf.keras.callbacks.Callback):
    """Shows each epoch's figures in a line, and ends training whose loss is not a number."""

    def __init__(self, console: Console | None, epochs: int, section: str) -> None:
        super().__init__()
        self._console, self._epochs, self._section = console, epochs, section

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        if not math.isfinite(logs["loss"]):
            raise RunError(
                f"{self.model.name}: the loss of epoch {epoch + 1} is {logs['loss']}. "
                f"Lower `{self._section}.learning_rate`."
            )
        if self._console is not None:
            figures = "  ".join(f"{name} {logs[name]:.4f}" for name in _figures(logs))
            self._console.print(f"  {self.model.name} epoch {epoch + 1}/{self._epochs}  {figures}", highlight=False)


def _figures(logs: dict[str, float]) -> Sequence[str]:
    return [name for name in logs if name == "loss" or name.startswith("val_")]


def fit_model(
    model: tfrs.Model,
    dataset: tf.data.Dataset,
    *,
    epochs: int,
    steps_per_epoch: int = 0,
    validate: Callable[[], dict[str, float]] | None = None,
    patience: int = 2,
    log: TrainingLog | None = None,
    section: str = "recommender.two_tower",
) -> tuple[int, dict[str, list[float]]]:
    """Trains a compiled model.

    Args:
        model: Compiled.
        dataset: The batches of one pass over the data.
        epochs: At most so many epochs.
        steps_per_epoch: Batches of an epoch; 0 for a whole pass.
        validate: Called after each epoch; without it all epochs are run.
        patience: Epochs to wait for a better first figure.
        log: Where progress is told.
        section: Of the pipeline file that holds the learning rate.

    Returns:
        The best epoch, counted from 1 (the last one without `validate`), and by epoch the loss and the figures.

    Raises:
        RunError: The loss is not finite.
        FitEndedError: By `validate`; that epoch stands in the log.
    """
    callbacks: list[tf.keras.callbacks.Callback] = [_MeanLoss()]
    stopping = EarlyStopping(validate, patience=patience) if validate is not None else None
    if stopping is not None:
        callbacks.append(stopping)
    log = log or TrainingLog()
    board = None if log.folder is None else Board(log)
    if board is not None:
        if isinstance(model, RecordedModel):
            model.records_steps = True
        callbacks.append(board)
    callbacks.append(_Show(log.console, epochs, section))
    if steps_per_epoch:
        dataset = dataset.repeat()
    try:
        fitted = model.fit(
            dataset, epochs=epochs, steps_per_epoch=steps_per_epoch or None, callbacks=callbacks, verbose=0
        )
    finally:
        if board is not None:
            board.close()
    if stopping is not None and stopping.ended is not None:
        raise stopping.ended
    curves = {name: [float(value) for value in fitted.history[name]] for name in _figures(fitted.history)}
    return (stopping.best_epoch if stopping is not None else epochs), curves
