"""What fits of towers over sequences share: windows, batches, an encoder of articles, the tower, and its training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_fashion.data.split import seconds_since_1970
from tfrs_fashion.features.inputs import SECONDS_PER_DAY
from tfrs_fashion.features.sequences import Windows, make_sequence_dataset, make_windows
from tfrs_fashion.features.view import View
from tfrs_fashion.models.encoders import ArticleEncoder, GivenArticles
from tfrs_fashion.models.sequential import SequentialTower
from tfrs_fashion.recommenders.recommender import FitContext, Fitted
from tfrs_fashion.recommenders.sequence_query import SequenceQuery, make_sequential_tower
from tfrs_fashion.recommenders.trained import encode_in_batches, number_rows, train
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.sequences import SequenceConfig

_WARM_UP_STEPS = 200


@dataclass(frozen=True)
class SequenceParts:
    """The parts of a fit.

    Attributes:
        windows: Training windows.
        dataset: Batches of the windows; see `features.sequences.make_sequence_dataset`.
        encoder: Encoder of articles.
        tower: The tower with its weights.
        tower_settings: Arguments of the tower.
    """

    windows: Windows
    dataset: tf.data.Dataset
    encoder: ArticleEncoder | GivenArticles
    tower: SequentialTower
    tower_settings: dict[str, Any]

    def query(self, size: int) -> SequenceQuery:
        """Makes the query side from what has been learned so far, with the embeddings of `size` article indices."""
        everything, width = np.arange(size, dtype=np.int32), self.tower.embedding_dim
        embedding = encode_in_batches(
            lambda rows: self.encoder(rows, tf.constant(0)).embedding, everything, width=width
        )
        return SequenceQuery(self.tower, embedding, settings=self.tower_settings)


def make_sequence_parts(
    view: View,
    settings: SequenceConfig,
    context: FitContext,
    *,
    vectors: np.ndarray | None = None,
    fine_tune: bool = False,
    is_masked: bool = False,
    shuffle: bool = False,
) -> SequenceParts:
    """Makes the parts of a fit, with their initial weights.

    Args:
        view: The view.
        settings: Settings of the tower.
        context: Context of the fit.
        vectors: `[num_articles + 2, any]` float32 vectors of all articles; None to learn them.
        fine_tune: Whether given vectors are trained further.
        is_masked: Whether some baskets are hidden and predicted from both sides.
        shuffle: Whether the events of a history are in random order.

    Raises:
        InputError: There is no basket to learn from.
    """
    articles, timelines = view.articles, view.timelines
    since = seconds_since_1970(view.split.as_of) - settings.target_days * SECONDS_PER_DAY
    windows = make_windows(timelines, since=since, length=settings.history_length, section=context.section)
    encoding: dict[str, Any] = {"number_encoding": settings.number_encoding, "num_bins": settings.num_bins}
    embedding_dim, encoder = settings.embedding_dim, None
    if vectors is not None:
        encoder, embedding_dim = GivenArticles(vectors, trainable=fine_tune), vectors.shape[1]
    tower_settings: dict[str, Any] = {
        **settings.model_dump(include={"hidden_dim", "num_layers", "num_heads", "dropout", "event_features"}),
        "kind": settings.tower,
        "embedding_dim": embedding_dim,
        "length": settings.history_length,
        "is_masked": is_masked,
        "num_customers": timelines.num_customers,
        "has_customer": settings.customer_embedding,
        "profile_sizes": [len(values) + FIRST_INDEX for values in view.profile_vocabulary.values()],
        "num_profile_numbers": view.profiles.numbers.shape[1],
        "encoding": settings.categorical_encoding,
        **encoding,
        "seed": context.seed,
    }
    tower = make_sequential_tower(tower_settings)
    has_bought = np.flatnonzero(np.diff(timelines.row_splits) > 0) + FIRST_INDEX
    tower.fit(view.profiles.numbers[has_bought])
    return SequenceParts(
        windows=windows,
        dataset=make_sequence_dataset(
            view, windows, batch_events=settings.batch_events, shuffle=shuffle, seed=context.seed
        ),
        encoder=encoder
        or ArticleEncoder(
            number_rows(articles.num_baskets >= settings.min_baskets),
            articles,
            view.read_words(view.num_text_buckets) if view.num_text_buckets else None,
            # A batch holds steps of all times, so an article cannot be encoded with the sales of one week.
            np.zeros((1, articles.num_articles + FIRST_INDEX, 0), np.float32),
            embedding_dim=embedding_dim,
            content_scale=settings.content_scale,
            encoding=settings.categorical_encoding,
            **encoding,
            seed=context.seed,
        ),
        tower=tower,
        tower_settings=tower_settings,
    )


def train_sequence_model(
    model: tfrs.Model,
    parts: SequenceParts,
    settings: SequenceConfig,
    make_recommender: Callable[[], Fitted],
    context: FitContext,
) -> Fitted:
    """Trains a model whose variables all exist, by Adam, whose rate rises for a while and falls along a cosine.

    The rate falls over `settings.epochs`, however many of them are chosen, so that a refit of fewer epochs follows the
    same schedule.

    Args:
        model: The model.
        parts: The parts that it is made of.
        settings: Settings of its tower.
        make_recommender: Makes a recommender from what the model has learned so far.
        context: Context of the fit.

    Raises:
        RunError: The loss is not finite.
    """
    steps = settings.epochs * int(parts.dataset.cardinality())
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        0.0,
        steps,
        alpha=0.0,
        warmup_target=settings.learning_rate,
        warmup_steps=max(1, min(_WARM_UP_STEPS, steps // 10)),
    )
    return train(
        model,
        parts.dataset,
        make_recommender,
        context,
        learning_rate=schedule,
        epochs=settings.epochs,
        patience=settings.patience,
    )
