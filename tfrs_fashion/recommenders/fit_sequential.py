"""The fit of a sequential tower: what it learns from, and what becomes of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.data.split import seconds_since_1970
from tfrs_fashion.features.inputs import SECONDS_PER_DAY
from tfrs_fashion.features.purchase_matrices import list_in_store_by_week
from tfrs_fashion.features.sequences import count_targets
from tfrs_fashion.features.view import View
from tfrs_fashion.models.losses import sampling_probability
from tfrs_fashion.models.objectives import FullSoftmax, InBatch, Objective, Sampled
from tfrs_fashion.models.sequential import SequentialModel
from tfrs_fashion.models.towers import CandidateTower
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.fit_towers import encode_in_batches
from tfrs_fashion.recommenders.indexed_tower import CandidateSet, IndexedTower
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.sequence_parts import SequenceParts, make_sequence_parts, train_sequence_model
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.sequences import SequentialConfig


def fit_sequential(
    view: View,
    settings: SequentialConfig,
    *,
    vectors: np.ndarray | None = None,
    max_epochs: int,
    num_text_buckets: int,
    in_store_days: int,
    seed: int,
    name: str,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    log: TrainingLog | None = None,
) -> IndexedTower:
    """Fits a sequential tower on what customers bought next.

    Args:
        view: What may be seen.
        settings: Of tower, loss and training.
        vectors: `[num_articles + 2, embedding_dim]` float32 of all articles, made elsewhere; None to learn them.
        max_epochs: Epochs over which the learning rate falls.
        num_text_buckets: Hash buckets of the words of descriptions; 0 leaves text out.
        in_store_days: An article is in store if it was sold in so many days before.
        seed: Of weights, batches and samples.
        name: As used in reports.
        validate: Judges the tower after each epoch; without it all epochs are run.
        log: Where progress is told.

    Returns:
        The tower after the last epoch, over the exact index.

    Raises:
        InputError: There is no basket to learn from.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(seed)
    articles = view.articles
    size = articles.num_articles + FIRST_INDEX
    parts = make_sequence_parts(
        view,
        settings,
        vectors=vectors,
        fine_tune=settings.fine_tune,
        is_masked=settings.masked_share > 0,
        shuffle=settings.shuffle,
        num_text_buckets=num_text_buckets,
        seed=seed,
        name=name,
    )
    num_targets = count_targets(view.timelines, parts.windows, size=size)
    log_count = np.log1p(num_targets)
    embedding_dim = parts.tower.embedding_dim
    candidate_tower = CandidateTower(
        parts.encoder,
        np.where(articles.num_baskets > 0, 0.1 * (log_count - log_count[articles.num_baskets > 0].mean()), 0.0),
        embedding_dim=embedding_dim,
        seed=seed,
    )
    candidate_tower(tf.zeros([0], tf.int32), tf.constant(0))
    model = SequentialModel(
        encoder=parts.encoder,
        tower=parts.tower,
        candidate_tower=candidate_tower,
        objective=_make_objective(view, settings, parts, num_targets=num_targets, in_store_days=in_store_days),
        temperature=settings.temperature,
        article_dropout=settings.article_dropout,
        masked_share=settings.masked_share,
        name=name,
    )

    def candidates(article_index: np.ndarray) -> CandidateSet:
        embedding = encode_in_batches(
            lambda rows: candidate_tower(rows, tf.constant(0)), article_index, width=embedding_dim + 1
        )
        return CandidateSet(embedding, article_index)

    def recommender() -> IndexedTower:
        return IndexedTower(
            parts.query(size),
            in_store=candidates(articles.in_store),
            never_sold=candidates(articles.never_sold),
            needs_history=not settings.answers_strangers,
            name=name,
        )

    told: dict[str, Any] = {"max_epochs": max_epochs, "validate": validate, "log": log, "name": name}
    train_sequence_model(model, parts, settings, recommender, **told)
    return recommender()


def _make_objective(
    view: View, settings: SequentialConfig, parts: SequenceParts, *, num_targets: np.ndarray, in_store_days: int
) -> Objective:
    if settings.loss == "full_softmax":
        return FullSoftmax(view.articles.num_articles)
    if settings.loss == "in_batch":
        total, num_batches = round(num_targets.sum()), int(parts.dataset.cardinality())
        share = np.sqrt(num_targets + 0.5) * (np.arange(len(num_targets)) >= FIRST_INDEX)
        rate = -np.expm1(-settings.num_sampled_negatives * share / share.sum())
        in_batch = sampling_probability(
            num_targets, total_baskets=total, batch_size=max(1, total // num_batches)
        ).numpy()
        return InBatch(np.log(np.maximum(1.0 - (1.0 - in_batch) * (1.0 - rate), 1e-12)), rate)
    as_of, week_seconds = seconds_since_1970(view.split.as_of), view.week_days * SECONDS_PER_DAY
    first = int(view.timelines.time[parts.windows.is_target].min())
    splits, store = list_in_store_by_week(
        view, num_weeks=-(-(as_of - first) // week_seconds), in_store_days=in_store_days
    )
    return Sampled(
        settings.loss,
        num_negatives=settings.num_negatives,
        store_splits=splits,
        store=store,
        as_of=as_of,
        week_seconds=week_seconds,
        num_articles=view.articles.num_articles,
        calibration=settings.calibration,
    )
