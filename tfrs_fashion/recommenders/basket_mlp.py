"""The multi-layer perceptron over baskets: hidden layers, with the exact index over the output layer."""

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
from tfrs_fashion.recommenders.recommender import (
    FitContext,
    Recommendations,
    load_state,
    save_state,
    set_weight_arrays,
    weight_arrays,
    with_source,
)
from tfrs_fashion.recommenders.trained import train
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.recommenders import BasketMlpConfig


class BasketMlp(tf.Module):
    """Hidden layers over what was bought, multiplied with the weights of every candidate.

    Args:
        encoder: The hidden layers with their weights.
        candidate_embedding: `[num_candidates, hidden_dim + 1]` float32; see `BasketModel.candidate_embedding`.
        article_index: `[num_candidates]` int32.
        settings: Arguments of the encoder.
        name: Name in reports.
    """

    kind = "basket_mlp"
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
        """Recommends the k likeliest articles; see `Recommender`. The score is the log odds that the next basket holds the article."""
        hidden, num_read = self._encoder(histories, now)
        query = tf.pad(hidden, [[0, 0], [0, 1]], constant_values=1.0)
        article_index, score = self._index(query, k=k, exclude=exclude)
        answered = (num_read > 0)[:, tf.newaxis]
        return with_source(tf.where(answered, article_index, 0), tf.where(answered, score, 0.0), self.name)

    def save(self, folder: Path) -> None:
        """Writes the encoder's weights and those of the candidates."""
        arrays = {**weight_arrays(self._encoder), **self._arrays}
        save_state(folder, arrays, kind=self.kind, settings=self._settings, name=self.name)


def load(folder: Path) -> BasketMlp:
    """Reads what `BasketMlp.save` wrote."""
    arrays, stored = load_state(folder)
    encoder = BasketEncoder(**stored["settings"])
    set_weight_arrays(encoder, arrays)
    return BasketMlp(encoder, **arrays, **stored)


def fit(view: View, settings: BasketMlpConfig, context: FitContext) -> BasketMlp:
    """Fits the odds that the next basket holds each article in store; see `recommenders.kinds.Kind`.

    Every basket of the last days is a target, and what its customer bought before it the input, which is empty for a
    first basket. Ziolo evaluates on the last basket of a separate group of customers and does not say how a customer's
    baskets became inputs and targets; here no customer is set apart, and the cutoff ends them all.

    A batch has one logit for each basket and candidate: 256 baskets and 105,000 candidates take 108 MB.

    Raises:
        InputError: There is no basket to learn from.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(context.seed)
    timelines, candidates = view.timelines, view.articles.in_store
    baskets = make_training_baskets(
        timelines,
        since=seconds_since_1970(view.split.as_of) - settings.target_days * SECONDS_PER_DAY,
        # The whole history: which of its articles were bought last is known only after they are counted.
        history_length=len(timelines.time),
        section=context.section,
    )
    table = HistoryTable(timelines, view.profiles)
    week = np.zeros(len(baskets.row), np.int64)
    dataset = make_training_dataset(table, baskets, week=week, batch_size=settings.batch_size, seed=context.seed)
    size = view.articles.num_articles + FIRST_INDEX
    encoder_settings: dict[str, Any] = {
        "size": size,
        "hidden_dims": list(settings.hidden_dims),
        "history_articles": settings.history_articles,
        "dropout": settings.dropout,
        "seed": context.seed,
    }
    num_targets = np.bincount(baskets.target, minlength=size)[candidates]
    model = BasketModel(
        BasketEncoder(**encoder_settings),
        candidates,
        share=((num_targets + 0.5) / (len(baskets.row) + 1.0)).astype(np.float32),
        hidden_dim=settings.hidden_dims[-1],
        seed=context.seed,
    )

    def recommender() -> BasketMlp:
        embedding = model.candidate_embedding()
        return BasketMlp(model.encoder, embedding, candidates, settings=encoder_settings, name=context.name)

    return train(model, dataset, recommender, context, learning_rate=settings.learning_rate, epochs=settings.epochs)
