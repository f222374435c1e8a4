"""The fit of a sequential tower: what it learns from, and what becomes of it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console

from tfrs_fashion.data.split import seconds_since_1970
from tfrs_fashion.features.inputs import SECONDS_A_DAY
from tfrs_fashion.features.purchases import store_by_week
from tfrs_fashion.features.sequences import Windows, count_targets, make_sequence_dataset, make_windows
from tfrs_fashion.features.view import View
from tfrs_fashion.models.encoders import ArticleEncoder, GivenArticles
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.losses import sampling_probability
from tfrs_fashion.models.objectives import FullSoftmax, InBatch, LossKind, Objective, Sampled
from tfrs_fashion.models.sequence_encoders import SequenceKind
from tfrs_fashion.models.sequential import SequentialModel
from tfrs_fashion.models.towers import CandidateTower
from tfrs_fashion.recommenders.fit_towers import encode_in_batches, number_rows
from tfrs_fashion.recommenders.indexed_tower import CandidateSet
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.sequential import Sequential, make_sequential_tower
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.sections import CategoryEncoding, NumberEncoding


def fit_sequential(
    view: View,
    *,
    tower: SequenceKind,
    loss: LossKind,
    vectors: np.ndarray | None = None,
    fine_tune: bool,
    embedding_dim: int,
    hidden_dim: int,
    history_length: int,
    num_layers: int,
    num_heads: int,
    dropout: float,
    event_features: Sequence[str],
    masked_share: float,
    customer_embedding: bool,
    content_scale: float,
    categorical_encoding: CategoryEncoding,
    number_encoding: NumberEncoding,
    num_bins: int,
    min_baskets: int,
    article_dropout: float,
    temperature: float,
    num_negatives: int,
    num_sampled_negatives: int,
    calibration: float,
    target_days: int,
    shuffle: bool,
    batch_events: int,
    learning_rate: float,
    epochs: int,
    patience: int,
    num_text_buckets: int,
    in_store_days: int,
    max_epochs: int,
    answers_strangers: bool = True,
    seed: int,
    name: str,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    console: Console | None = None,
) -> Sequential:
    """Fits a sequential tower on what customers bought next.

    Args:
        view: What may be seen.
        tower: Kind of the encoder.
        loss: See `sequence_sections.SequentialConfig` for this and the settings up to `patience`.
        vectors: `[num_articles + 2, embedding_dim]` float32 of all articles, made elsewhere; None to learn them.
        fine_tune: Whether given vectors are learned further.
        embedding_dim: Width of the articles' embeddings.
        hidden_dim: Width of the encoder.
        history_length: Last events of a history that are read.
        num_layers: Of the encoder.
        num_heads: Of self-attention.
        dropout: Share left out in training.
        event_features: See `models.sequential.describe_steps`.
        masked_share: Share of the baskets that are hidden and guessed; 0 predicts each purchase from those before it.
        customer_embedding: Whether customers have embeddings of their own.
        content_scale: See `models.encoders.ArticleEncoder`.
        categorical_encoding: See `models.encoders.CategoryEncoder`.
        number_encoding: See `models.encoders.NumberEncoder`.
        num_bins: Bins of a numeric feature.
        min_baskets: Articles in fewer baskets have no embedding of their own.
        article_dropout: Share of the articles of a batch that are their content alone.
        temperature: Divides the cosine at the start.
        num_negatives: Of each target, with the losses over articles in store.
        num_sampled_negatives: Expected number of further candidates in a batch, with `in_batch`.
        calibration: Of `calibrated_sigmoid`.
        target_days: Days before the cutoff whose baskets are targets.
        shuffle: Learns from histories in an order by chance.
        batch_events: Events of a batch.
        learning_rate: At the highest.
        epochs: At most so many epochs.
        patience: Epochs without a better figure before training stops.
        num_text_buckets: Hash buckets of the words of descriptions; 0 leaves text out.
        in_store_days: An article is in store if it was sold in so many days before.
        max_epochs: Epochs over which the learning rate falls.
        answers_strangers: Whether customers without a history are answered; otherwise they are left to popularity.
        seed: Of weights, batches and samples.
        name: As used in reports.
        validate: Judges the tower after each epoch; without it all epochs are run.
        console: Where each epoch's figures are shown.

    Returns:
        The tower after the last epoch, over the exact index.

    Raises:
        InputError: There is no basket to learn from.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(seed)
    articles, timelines, section = view.articles, view.timelines, f"generators.{name}"
    size = articles.num_articles + FIRST_INDEX
    since = seconds_since_1970(view.split.as_of) - target_days * SECONDS_A_DAY
    windows = make_windows(timelines, since=since, length=history_length, section=section)
    dataset = make_sequence_dataset(view, windows, batch_events=batch_events, shuffle=shuffle, seed=seed)
    encoder: ArticleEncoder | GivenArticles
    if vectors is None:
        encoder = ArticleEncoder(
            number_rows(articles.num_baskets >= min_baskets),
            articles,
            view.read_words(num_text_buckets) if num_text_buckets else None,
            # Steps of all times are in one batch, so what sold in a week has no part in an article.
            np.zeros((1, size, 0), np.float32),
            embedding_dim=embedding_dim,
            content_scale=content_scale,
            encoding=categorical_encoding,
            number_encoding=number_encoding,
            num_bins=num_bins,
            seed=seed,
        )
    else:
        encoder, embedding_dim = GivenArticles(vectors, trainable=fine_tune), vectors.shape[1]
    settings: dict[str, Any] = {
        "kind": tower,
        "embedding_dim": embedding_dim,
        "hidden_dim": hidden_dim,
        "length": history_length,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "dropout": dropout,
        "event_features": list(event_features),
        "is_masked": masked_share > 0,
        "num_customers": timelines.num_customers,
        "has_customer": customer_embedding,
        "profile_sizes": [len(values) + FIRST_INDEX for values in view.profile_vocabulary.values()],
        "num_profile_numbers": view.profiles.numbers.shape[1],
        "encoding": categorical_encoding,
        "number_encoding": number_encoding,
        "num_bins": num_bins,
        "seed": seed,
    }
    query_tower = make_sequential_tower(settings)
    has_bought = np.flatnonzero(np.diff(timelines.row_splits) > 0) + FIRST_INDEX
    query_tower.fit(view.profiles.numbers[has_bought])
    num_targets = count_targets(timelines, windows, size=size)
    log_count = np.log1p(num_targets)
    candidate_tower = CandidateTower(
        encoder,
        np.where(articles.num_baskets > 0, 0.1 * (log_count - log_count[articles.num_baskets > 0].mean()), 0.0),
        embedding_dim=embedding_dim,
        seed=seed,
    )
    model = SequentialModel(
        encoder=encoder,
        tower=query_tower,
        candidate_tower=candidate_tower,
        objective=_make_objective(
            view,
            windows,
            loss,
            num_targets=num_targets,
            num_batches=int(dataset.cardinality()),
            num_negatives=num_negatives,
            num_sampled_negatives=num_sampled_negatives,
            calibration=calibration,
            in_store_days=in_store_days,
        ),
        temperature=temperature,
        article_dropout=article_dropout,
        masked_share=masked_share,
        name=name,
    )
    steps = max_epochs * int(dataset.cardinality())
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        0.0, steps, alpha=0.0, warmup_target=learning_rate, warmup_steps=max(1, min(200, steps // 10))
    )
    model.compile(optimizer=tf.keras.optimizers.Adam(schedule))
    # A training step that makes variables is traced twice; here they are all made before.
    candidate_tower(tf.zeros([0], tf.int32), tf.constant(0))
    model.optimizer.build(model.trainable_variables)

    def candidates(article_index: np.ndarray) -> CandidateSet:
        embedding = encode_in_batches(
            lambda rows: candidate_tower(rows, tf.constant(0)), article_index, width=embedding_dim + 1
        )
        return CandidateSet(embedding, article_index)

    def recommender() -> Sequential:
        everything = np.arange(size, dtype=np.int32)
        embedding = encode_in_batches(
            lambda rows: encoder(rows, tf.constant(0)).embedding, everything, width=embedding_dim
        )
        return Sequential(
            query_tower,
            embedding,
            in_store=candidates(articles.in_store),
            never_sold=candidates(articles.never_sold),
            settings=settings,
            answers_strangers=answers_strangers,
            name=name,
        )

    judge = None if validate is None else lambda: validate(recommender())
    fit_model(model, dataset, epochs=epochs, validate=judge, patience=patience, console=console, section=section)
    return recommender()


def _make_objective(
    view: View,
    windows: Windows,
    loss: LossKind,
    *,
    num_targets: np.ndarray,
    num_batches: int,
    num_negatives: int,
    num_sampled_negatives: int,
    calibration: float,
    in_store_days: int,
) -> Objective:
    if loss == "full_softmax":
        return FullSoftmax(view.articles.num_articles)
    if loss == "in_batch":
        total = round(num_targets.sum())
        share = np.sqrt(num_targets + 0.5) * (np.arange(len(num_targets)) >= FIRST_INDEX)
        rate = -np.expm1(-num_sampled_negatives * share / share.sum())
        in_batch = sampling_probability(
            num_targets, total_baskets=total, batch_size=max(1, total // num_batches)
        ).numpy()
        return InBatch(np.log(np.maximum(1.0 - (1.0 - in_batch) * (1.0 - rate), 1e-12)), rate)
    as_of, week_seconds = seconds_since_1970(view.split.as_of), view.week_days * SECONDS_A_DAY
    first = int(view.timelines.time[windows.is_target].min())
    splits, store = store_by_week(view, num_weeks=-(-(as_of - first) // week_seconds), in_store_days=in_store_days)
    return Sampled(
        loss,
        num_negatives=num_negatives,
        store_splits=splits,
        store=store,
        as_of=as_of,
        week_seconds=week_seconds,
        num_articles=view.articles.num_articles,
        calibration=calibration,
    )
