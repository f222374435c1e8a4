"""The fit of two towers on what customers bought next."""

import gc
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrs_fashion.data.split import seconds_since_1970
from tfrs_fashion.features.inputs import (
    SECONDS_PER_DAY,
    HistoryTable,
    TrainingBaskets,
    make_training_baskets,
    make_training_dataset,
)
from tfrs_fashion.features.timelines import Timelines
from tfrs_fashion.features.view import View
from tfrs_fashion.models.encoders import ArticleEncoder
from tfrs_fashion.models.losses import sampling_probability
from tfrs_fashion.models.retrieval import TwoTowerModel
from tfrs_fashion.models.towers import CandidateTower
from tfrs_fashion.recommenders.indexed_tower import IndexedTower, index_tower, load_indexed_tower
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.recommenders.trained import encode_in_batches, number_rows, train
from tfrs_fashion.recommenders.two_tower.query import TwoTowerQuery, make_history_layer, make_query_tower
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.sequences import TwoTowerConfig

_EDGE_SAMPLE = 20_000


def load(folder: Path) -> IndexedTower:
    """Reads what the `save` of two towers wrote."""
    return load_indexed_tower(folder, TwoTowerQuery.load)


def fit(view: View, settings: TwoTowerConfig, context: FitContext) -> IndexedTower:
    """Fits two towers on what customers bought next; see `recommenders.kinds.Kind`.

    The learning rate falls over `settings.epochs`, however many of them are chosen, so that a refit of fewer epochs
    follows the same schedule.

    Raises:
        InputError: There is no basket to learn from.
        RunError: The loss is not finite.
    """
    # Models hold themselves in reference cycles: collecting what an earlier fit left behind makes room for this one.
    gc.collect()
    tf.keras.utils.set_random_seed(context.seed)
    articles, timelines, seed = view.articles, view.timelines, context.seed
    size = articles.num_articles + FIRST_INDEX
    as_of = seconds_since_1970(view.split.as_of)
    table = HistoryTable(timelines, view.profiles)
    since = as_of - settings.target_days * SECONDS_PER_DAY
    baskets = make_training_baskets(
        timelines, since=since, history_length=settings.history_length, section=context.section
    )
    # As many weeks as the baskets reach back, however long `target_days` is.
    week_seconds = view.week_days * SECONDS_PER_DAY
    weeks = view.read_weeks(-(-(as_of - int(baskets.time.min())) // week_seconds) + 1)
    week = weeks.week_of(baskets.time)
    dataset = make_training_dataset(table, baskets, week=week, batch_size=settings.batch_size, seed=seed)
    encoder = ArticleEncoder(
        number_rows(articles.num_baskets >= settings.min_baskets),
        articles,
        view.read_words(view.num_text_buckets) if view.num_text_buckets else None,
        weeks.values,
        embedding_dim=settings.embedding_dim,
        content_scale=settings.content_scale,
        encoding=settings.categorical_encoding,
        number_encoding=settings.number_encoding,
        num_bins=settings.num_bins,
        seed=seed,
    )
    num_weeks = len(weeks.values)
    # The encoder has a copy of its own: two of them would be the largest things in memory throughout the fit.
    del weeks
    num_customer_baskets = np.bincount(baskets.row + FIRST_INDEX, minlength=timelines.num_customers + FIRST_INDEX)
    own_row = number_rows(num_customer_baskets >= settings.min_customer_baskets)
    query_settings = {
        "num_customers": timelines.num_customers,
        "num_own": int(own_row.max()),
        "profile_sizes": [len(values) + FIRST_INDEX for values in view.profile_vocabulary.values()],
        "num_profile_numbers": view.profiles.numbers.shape[1],
        "number_encoding": settings.number_encoding,
        "num_bins": settings.num_bins,
        "embedding_dim": settings.embedding_dim,
        "time_scales_days": list(settings.time_scales_days),
        "num_articles": settings.history_articles,
        "num_steps": settings.num_steps,
        "history_gain": initial_gain(
            timelines,
            baskets,
            size=size,
            history_articles=settings.history_articles,
            temperature=settings.temperature,
        ),
        "encoding": settings.categorical_encoding,
        "hidden_dims": list(settings.hidden_dims),
        "seed": seed,
        "history_length": settings.history_length,
        "side_dim": int(encoder(tf.zeros([0], tf.int32), tf.constant(0)).side.shape[1]),
    }
    query_tower = make_query_tower(query_settings, view.lookups)
    history_features = make_history_layer(view.lookups)
    query_tower.fit(own_row, _sample_numbers(history_features, table, baskets, seed=seed))
    num_targets = _count_targets(baskets, week, num_weeks=num_weeks, size=size)
    known = np.arange(size) >= FIRST_INDEX
    log_count = np.log1p(num_targets.sum(axis=0))
    # Articles without an embedding of their own can be sampled too: what the catalogue lists and nobody buys is represented by
    # its content. The square root lies between sampling by popularity, which never meets rare articles, and uniform sampling,
    # whose negatives are too easy.
    share = np.sqrt(num_targets.sum(axis=0) + 0.5) * known
    sampling_rate = -np.expm1(-settings.num_sampled_negatives * share / share.sum())
    candidate_tower = CandidateTower(
        encoder,
        np.where(articles.num_baskets > 0, 0.1 * (log_count - log_count[articles.num_baskets > 0].mean()), 0.0),
        embedding_dim=settings.embedding_dim,
        hidden_dims=settings.hidden_dims,
        seed=seed,
    )
    model = TwoTowerModel(
        encoder=encoder,
        query_tower=query_tower,
        candidate_tower=candidate_tower,
        history_features=history_features,
        temperature=settings.temperature,
        log_probability=_log_probability(num_targets, week, sampling_rate, batch_size=settings.batch_size),
        sampling_rate=sampling_rate,
        new_weight=settings.new_weight,
        article_dropout=settings.article_dropout,
        customer_dropout=settings.customer_dropout,
        name=context.name,
    )
    steps = settings.epochs * (settings.steps_per_epoch or int(dataset.cardinality()))
    rate = settings.learning_rate
    schedule = tf.keras.optimizers.schedules.PolynomialDecay(rate, steps, 0.05 * rate)
    candidate_tower(tf.zeros([0], tf.int32), tf.constant(0))  # makes its variables

    def recommender() -> IndexedTower:
        def read(rows: tf.Tensor) -> tf.Tensor:
            embedding, side = encoder(rows, tf.constant(0))
            return tf.concat([embedding, query_tower.weigh(side)], axis=1)

        width = settings.embedding_dim
        embedding_and_weight = encode_in_batches(read, np.arange(size, dtype=np.int32), width=width + 2)
        embedding, weight = embedding_and_weight[:, :width], embedding_and_weight[:, width:]
        return index_tower(
            TwoTowerQuery(query_tower, history_features, embedding, weight, settings=query_settings),
            candidate_tower,
            articles,
            width=width + 1,
            needs_history=not context.choice.get("serves_cold_start", True),
            kind=settings.kind,
            name=context.name,
        )

    return train(
        model,
        dataset,
        recommender,
        context,
        learning_rate=schedule,
        epochs=settings.epochs,
        steps_per_epoch=settings.steps_per_epoch,
        patience=settings.patience,
    )


def initial_gain(
    timelines: Timelines, baskets: TrainingBaskets, *, size: int, history_articles: int, temperature: float
) -> float:
    """Computes the initial length of the sum over a history, from how often the next basket repeats a purchase.

    One of `n` articles of a history, summed with equal weights to length `gain`, has the logit `gain / sqrt(n) /
    temperature`. This should be the log odds of such an article against one that is not in the history. If repurchases
    are rare, the length is close to 0; it is at most 1.

    Args:
        timelines: The visible timelines.
        baskets: Training baskets.
        size: Number of article indices.
        history_articles: Maximum number of articles of a history that are read.
        temperature: Divisor of the cosine.
    """
    pair, first = np.unique(timelines.row * size + timelines.article_index, return_index=True)
    is_first = np.zeros(len(timelines.row) + 1, np.int64)
    is_first[first + 1] = 1
    distinct_before = np.cumsum(is_first)
    start = timelines.row_splits[baskets.row]
    num_distinct = np.minimum(distinct_before[baskets.start] - distinct_before[start], history_articles)
    num_targets = np.diff(baskets.target_splits)
    asked = np.repeat(baskets.row, num_targets) * size + baskets.target
    is_repeat = first[np.searchsorted(pair, asked)] < np.repeat(baskets.start, num_targets)
    has_history = np.repeat(num_distinct > 0, num_targets)
    if not num_distinct.any() or not history_articles:
        return 1.0
    repeats, targets = int(is_repeat[has_history].sum()), int(has_history.sum())
    mean_distinct = float(num_distinct[num_distinct > 0].mean())
    of_bought = (repeats + 0.5) / (targets + 1.0) / mean_distinct
    of_others = (targets - repeats + 0.5) / (targets + 1.0) / max(size - mean_distinct, 1.0)
    return float(np.clip(temperature * np.log(of_bought / of_others) * np.sqrt(mean_distinct), 0.0, 1.0))


def _sample_numbers(layer: tf.Module, table: HistoryTable, baskets: TrainingBaskets, *, seed: int) -> np.ndarray:
    """Computes the numeric features of profile and history before some baskets, `[num_baskets, num_numbers]`."""
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(baskets.row))[:_EDGE_SAMPLE])
    numbers = []
    for rows in np.array_split(chosen, max(1, len(chosen) // 1024)):
        customer_index = tf.constant(baskets.row[rows] + FIRST_INDEX, tf.int32)
        now = tf.constant(baskets.time[rows])
        histories = table.between(customer_index, baskets.history_start[rows], baskets.start[rows], now)
        features = layer(histories, now)
        numbers.append(np.concatenate([histories.profile_numbers, features.numbers], axis=1))
    return np.concatenate(numbers)


def _count_targets(baskets: TrainingBaskets, week: np.ndarray, *, num_weeks: int, size: int) -> np.ndarray:
    """Counts the baskets that hold each article: `[num_weeks, num_articles + 2]` int64."""
    of_target = np.repeat(week, np.diff(baskets.target_splits))
    cell = of_target * size + baskets.target
    return np.bincount(cell, minlength=num_weeks * size).reshape(num_weeks, size)


def _log_probability(
    num_targets: np.ndarray, week: np.ndarray, sampling_rate: np.ndarray, *, batch_size: int
) -> np.ndarray:
    """Computes log(P(a batch of each week holds each article)), the logQ correction: float32, shaped like `num_targets`."""
    log_probability = np.zeros(num_targets.shape, np.float32)
    for number, count in enumerate(np.bincount(week, minlength=len(num_targets))):
        if count:
            size = max(1, round(count / max(1, round(count / batch_size))))
            in_batch = sampling_probability(num_targets[number], total_baskets=int(count), batch_size=size).numpy()
            log_probability[number] = np.log(np.maximum(1.0 - (1.0 - in_batch) * (1.0 - sampling_rate), 1e-12))
    return log_probability
