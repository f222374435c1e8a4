"""What every fit of a tower over sequences begins with: windows, batches, an encoder of articles and the tower."""

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
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.sequential import SequentialTower
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.fit_towers import encode_in_batches, number_rows
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.sequential import SequenceQuery, make_sequential_tower
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.sequences import SequenceConfig

_WARM_UP_STEPS = 200


@dataclass(frozen=True)
class SequenceParts:
    """The parts of a fit.

    Attributes:
        windows: To learn from.
        dataset: Batches of them; see `features.sequences.make_sequence_dataset`.
        encoder: Of articles.
        tower: With its weights.
        tower_settings: What it was made from.
    """

    windows: Windows
    dataset: tf.data.Dataset
    encoder: ArticleEncoder | GivenArticles
    tower: SequentialTower
    tower_settings: dict[str, Any]

    def query(self, size: int) -> SequenceQuery:
        """Makes the query side of what is learned so far, with the embeddings of `size` article indices."""
        everything, width = np.arange(size, dtype=np.int32), self.tower.embedding_dim
        embedding = encode_in_batches(
            lambda rows: self.encoder(rows, tf.constant(0)).embedding, everything, width=width
        )
        return SequenceQuery(self.tower, embedding, settings=self.tower_settings)


def make_sequence_parts(
    view: View,
    settings: SequenceConfig,
    *,
    vectors: np.ndarray | None = None,
    fine_tune: bool = False,
    is_masked: bool = False,
    shuffle: bool = False,
    num_text_buckets: int,
    seed: int,
    name: str,
) -> SequenceParts:
    """Makes the parts of a fit, with their weights as they start.

    Args:
        view: What may be seen.
        settings: Of the tower.
        vectors: `[num_articles + 2, any]` float32 of all articles, made elsewhere; None to learn them.
        fine_tune: Whether given vectors are learned further.
        is_masked: See `models.sequential.SequentialTower`.
        shuffle: See `features.sequences.make_sequence_dataset`.
        num_text_buckets: Hash buckets of the words of descriptions; 0 leaves text out.
        seed: Of weights and batches.
        name: Of the generator.

    Raises:
        InputError: There is no basket to learn from.
    """
    articles, timelines = view.articles, view.timelines
    since = seconds_since_1970(view.split.as_of) - settings.target_days * SECONDS_PER_DAY
    windows = make_windows(timelines, since=since, length=settings.history_length, section=f"generators.{name}")
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
        "seed": seed,
    }
    tower = make_sequential_tower(tower_settings)
    has_bought = np.flatnonzero(np.diff(timelines.row_splits) > 0) + FIRST_INDEX
    tower.fit(view.profiles.numbers[has_bought])
    return SequenceParts(
        windows=windows,
        dataset=make_sequence_dataset(view, windows, batch_events=settings.batch_events, shuffle=shuffle, seed=seed),
        encoder=encoder
        or ArticleEncoder(
            number_rows(articles.num_baskets >= settings.min_baskets),
            articles,
            view.read_words(num_text_buckets) if num_text_buckets else None,
            # Steps of all times are in one batch, so what sold in a week has no part in an article.
            np.zeros((1, articles.num_articles + FIRST_INDEX, 0), np.float32),
            embedding_dim=embedding_dim,
            content_scale=settings.content_scale,
            encoding=settings.categorical_encoding,
            **encoding,
            seed=seed,
        ),
        tower=tower,
        tower_settings=tower_settings,
    )


def train_sequence_model(
    model: tfrs.Model,
    parts: SequenceParts,
    settings: SequenceConfig,
    recommender: Callable[[], Recommender],
    *,
    max_epochs: int,
    validate: Callable[[Recommender], dict[str, float]] | None,
    log: TrainingLog | None,
    name: str,
) -> None:
    """Trains a model whose variables all exist, by Adam, whose rate rises for a while and falls along a cosine.

    Args:
        model: To be trained.
        parts: Of its fit.
        settings: Of its tower.
        recommender: Makes a recommender of what is learned so far.
        max_epochs: Epochs over which the rate falls, however many of them there will be.
        validate: Judges it after each epoch; without it all epochs are run.
        log: Where progress is told.
        name: Of the generator.

    Raises:
        RunError: The loss is not finite.
    """
    steps = max_epochs * int(parts.dataset.cardinality())
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        0.0,
        steps,
        alpha=0.0,
        warmup_target=settings.learning_rate,
        warmup_steps=max(1, min(_WARM_UP_STEPS, steps // 10)),
    )
    model.compile(optimizer=tf.keras.optimizers.Adam(schedule))
    # A training step that makes variables is traced twice; here they are all made before.
    model.optimizer.build(model.trainable_variables)
    fit_model(
        model,
        parts.dataset,
        epochs=settings.epochs,
        validate=None if validate is None else lambda: validate(recommender()),
        patience=settings.patience,
        log=log,
        section=f"generators.{name}",
    )
