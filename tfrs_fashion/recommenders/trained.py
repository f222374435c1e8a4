"""What trained recommenders share: the training, and the encoding of articles in batches."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.recommenders.recommender import FitContext, Fitted


def train(
    model: tfrs.Model,
    dataset: tf.data.Dataset,
    make_recommender: Callable[[], Fitted],
    context: FitContext,
    *,
    learning_rate: float | tf.keras.optimizers.schedules.LearningRateSchedule,
    epochs: int,
    steps_per_epoch: int = 0,
    patience: int = 2,
) -> Fitted:
    """Trains a model by Adam, whose variables all exist, and makes the recommender of the last epoch.

    Args:
        model: The model.
        dataset: The batches of one pass over the data.
        make_recommender: Makes a recommender from what the model has learned so far.
        context: Of the fit. Its choice of epochs has precedence, and its curves are filled.
        learning_rate: Learning rate, or its schedule.
        epochs: Maximum number of epochs.
        steps_per_epoch: Batches of an epoch; 0 for a whole pass.
        patience: Epochs without a better figure before training stops.

    Raises:
        RunError: The loss is not finite.
    """
    model.compile(optimizer=tf.keras.optimizers.Adam(learning_rate))
    # A training step that makes variables is traced twice; here they are all made before.
    model.optimizer.build(model.trainable_variables)
    validate = context.validate
    _best, curves = fit_model(
        model,
        dataset,
        epochs=context.choice.get("epochs", epochs),
        steps_per_epoch=steps_per_epoch,
        validate=None if validate is None else lambda: validate(make_recommender()),
        patience=patience,
        log=context.log,
        section=context.section,
    )
    context.curves.update(curves)
    return make_recommender()


def number_rows(chosen: np.ndarray) -> np.ndarray:
    """Numbers the chosen rows from 1; the others share 0."""
    return np.where(chosen, np.cumsum(chosen), 0).astype(np.int32)


def encode_in_batches(
    encode: Callable[[tf.Tensor], tf.Tensor], article_index: np.ndarray, *, width: int, batch_size: int = 8192
) -> np.ndarray:
    """Encodes `[num_articles]` int32 articles a batch at a time, to `[num_articles, width]` float32."""
    batches = [np.zeros((0, width), np.float32)]
    for start in range(0, len(article_index), batch_size):
        batches.append(encode(tf.constant(article_index[start : start + batch_size])).numpy())
    return np.concatenate(batches)
