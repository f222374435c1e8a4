"""A sequential tower as a recommender: trained on what customers bought next."""

from pathlib import Path

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
from tfrs_fashion.recommenders.fashion_dna import StaticStyles
from tfrs_fashion.recommenders.indexed_tower import IndexedTower, index_tower, load_indexed_tower
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.recommenders.sequence_query import SequenceQuery
from tfrs_fashion.recommenders.sequence_training import SequenceParts, make_sequence_parts, train_sequence_model
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.sequences import SequentialConfig


def load(folder: Path) -> IndexedTower:
    """Reads what the `save` of a sequential tower wrote."""
    return load_indexed_tower(folder, SequenceQuery.load)


def fit(view: View, settings: SequentialConfig, context: FitContext) -> IndexedTower:
    """Fits a sequential tower on what customers bought next; see `recommenders.kinds.Kind`.

    Raises:
        InputError: There is no basket to learn from.
        RunError: The loss is not finite.
    """
    vectors = None
    if settings.vectors_of:
        styles = context.fitted_part(settings.vectors_of)
        assert isinstance(styles, StaticStyles)
        vectors = styles.vectors
    tf.keras.utils.set_random_seed(context.seed)
    articles = view.articles
    size = articles.num_articles + FIRST_INDEX
    parts = make_sequence_parts(
        view,
        settings,
        context,
        vectors=vectors,
        fine_tune=settings.fine_tune,
        is_masked=settings.masked_share > 0,
        shuffle=settings.shuffle,
    )
    num_targets = count_targets(view.timelines, parts.windows, size=size)
    log_count = np.log1p(num_targets)
    embedding_dim = parts.tower.embedding_dim
    candidate_tower = CandidateTower(
        parts.encoder,
        np.where(articles.num_baskets > 0, 0.1 * (log_count - log_count[articles.num_baskets > 0].mean()), 0.0),
        embedding_dim=embedding_dim,
        seed=context.seed,
    )
    candidate_tower(tf.zeros([0], tf.int32), tf.constant(0))
    model = SequentialModel(
        encoder=parts.encoder,
        tower=parts.tower,
        candidate_tower=candidate_tower,
        objective=_make_objective(view, settings, parts, num_targets=num_targets),
        temperature=settings.temperature,
        article_dropout=settings.article_dropout,
        masked_share=settings.masked_share,
        name=context.name,
    )

    def recommender() -> IndexedTower:
        return index_tower(
            parts.query(size),
            candidate_tower,
            articles,
            width=embedding_dim + 1,
            needs_history=not context.choice.get("serves_cold_start", settings.serves_cold_start),
            kind=settings.kind,
            name=context.name,
        )

    return train_sequence_model(model, parts, settings, recommender, context)


def _make_objective(
    view: View, settings: SequentialConfig, parts: SequenceParts, *, num_targets: np.ndarray
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
        view, num_weeks=-(-(as_of - first) // week_seconds), in_store_days=view.in_store_days
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
