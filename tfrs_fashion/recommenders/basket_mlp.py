"""The multi-layer perceptron over baskets as a recommender: the exact index over its last layer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.data.split import seconds_since_1970
from tfrs_fashion.features.inputs import (
    SECONDS_PER_DAY,
    Histories,
    HistoryTable,
    make_training_baskets,
    make_training_dataset,
)
from tfrs_fashion.features.view import View
from tfrs_fashion.index.exact import Exact
from tfrs_fashion.models.basket import BasketEncoder, BasketModel
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.recommender import (
    Recommendations,
    Recommender,
    load_state,
    save_state,
    set_weight_arrays,
    weight_arrays,
    with_source,
)
from tfrs_fashion.schema import FIRST_INDEX


class BasketMlp(tf.Module):
    """Hidden layers over what was bought, multiplied with the weights of every candidate.

    Args:
        encoder: With its weights.
        candidate_embedding: `[num_candidates, hidden_dim + 1]` float32; see `BasketModel.candidate_embedding`.
        article_index: `[num_candidates]` int32.
        settings: What the encoder was made from.
        name: As used in reports.
    """

    history_length: int | None = None
    needs_history = True

    def __init__(
        self,
        encoder: BasketEncoder,
        candidate_embedding: np.ndarray,
        article_index: np.ndarray,
        *,
        settings: dict[str, Any],
        name: str,
    ) -> None:
        super().__init__(name=name)
        self._arrays = {"candidate_embedding": candidate_embedding, "article_index": article_index}
        self._settings = settings
        self._encoder = encoder
        self._index = Exact(candidate_embedding, article_index)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k likeliest articles; see `Recommender`. The score is the log odds of the next basket."""
        hidden, num_read = self._encoder(histories, now)
        query = tf.pad(hidden, [[0, 0], [0, 1]], constant_values=1.0)
        article_index, score = self._index(query, k=k, exclude=exclude)
        answered = (num_read > 0)[:, tf.newaxis]
        return with_source(tf.where(answered, article_index, 0), tf.where(answered, score, 0.0), self.name)

    def save(self, folder: Path) -> None:
        """Writes the encoder's weights and those of the candidates."""
        save_state(folder, {**weight_arrays(self._encoder), **self._arrays}, settings=self._settings, name=self.name)

    @classmethod
    def load(cls, folder: Path) -> "BasketMlp":
        """Reads what `save` wrote."""
        arrays, stored = load_state(folder)
        encoder = BasketEncoder(**stored["settings"])
        set_weight_arrays(encoder, arrays)
        return cls(encoder, **arrays, **stored)


def fit_basket_mlp(
    view: View,
    *,
    hidden_dims: Sequence[int],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    dropout: float,
    history_articles: int,
    target_days: int,
    seed: int,
    name: str,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    patience: int = 2,
    log: TrainingLog | None = None,
) -> BasketMlp:
    """Fits the odds that the next basket holds each article in store.

    Every basket of the last days is a target, and what its customer bought before it the input, which is empty for a
    first basket. Ziolo judges by the last basket of a group of customers kept apart and does not say how a customer's
    baskets became inputs and targets; here no customer is kept apart, and the cutoff ends them all.

    A batch has one logit for each basket and candidate: 256 baskets and 105,000 candidates make 108 MB.

    Args:
        view: What may be seen.
        hidden_dims: See `models.basket.BasketEncoder` for this, `history_articles` and `dropout`.
        epochs: At most so many epochs.
        batch_size: Baskets in a batch.
        learning_rate: Of Adam.
        dropout: Share of each hidden layer that is left out in training.
        history_articles: Articles of a history that are read.
        target_days: Days before the cutoff whose baskets are targets.
        seed: Of weights and batches.
        name: As used in reports.
        validate: Judges the model after each epoch; without it all epochs are run.
        patience: Epochs without a better figure before training stops.
        log: Where progress is told.

    Returns:
        The model after the last epoch.

    Raises:
        InputError: There is no basket to learn from.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(seed)
    timelines, candidates, section = view.timelines, view.articles.in_store, f"generators.{name}"
    baskets = make_training_baskets(
        timelines,
        since=seconds_since_1970(view.split.as_of) - target_days * SECONDS_PER_DAY,
        # The whole history: which articles of it were bought last is told after they are counted.
        history_length=len(timelines.time),
        section=section,
    )
    table = HistoryTable(timelines, view.profiles)
    week = np.zeros(len(baskets.row), np.int64)
    dataset = make_training_dataset(table, baskets, week=week, batch_size=batch_size, seed=seed)
    size = view.articles.num_articles + FIRST_INDEX
    settings: dict[str, Any] = {
        "size": size,
        "hidden_dims": list(hidden_dims),
        "history_articles": history_articles,
        "dropout": dropout,
        "seed": seed,
    }
    num_targets = np.bincount(baskets.target, minlength=size)[candidates]
    model = BasketModel(
        BasketEncoder(**settings),
        candidates,
        share=((num_targets + 0.5) / (len(baskets.row) + 1.0)).astype(np.float32),
        hidden_dim=hidden_dims[-1],
        seed=seed,
    )
    model.compile(optimizer=tf.keras.optimizers.Adam(learning_rate))
    # A training step that makes variables is traced twice; here they are all made before.
    model.optimizer.build(model.trainable_variables)

    def recommender() -> BasketMlp:
        return BasketMlp(model.encoder, model.candidate_embedding(), candidates, settings=settings, name=name)

    judge = None if validate is None else lambda: validate(recommender())
    fit_model(model, dataset, epochs=epochs, validate=judge, patience=patience, log=log, section=section)
    return recommender()
