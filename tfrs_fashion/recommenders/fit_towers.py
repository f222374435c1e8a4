"""The fit of two towers: what they learn from, and what becomes of them."""

from collections.abc import Callable, Sequence

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
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.losses import sampling_probability
from tfrs_fashion.models.retrieval import TwoTowerModel
from tfrs_fashion.models.towers import CandidateTower
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.indexed_tower import CandidateSet
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.towers import TwoTower, TwoTowerQuery, make_history_layer, make_query_tower
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.base import CategoryEncoding, NumberEncoding

_EDGE_SAMPLE = 20_000


def fit_two_tower(
    view: View,
    *,
    embedding_dim: int = 128,
    history_length: int = 512,
    history_articles: int = 64,
    time_scales_days: Sequence[float] = (10.0, 30.0, 120.0, 400.0),
    num_steps: int = 3,
    content_scale: float = 0.1,
    num_text_buckets: int = 8192,
    categorical_encoding: CategoryEncoding = "one_hot",
    number_encoding: NumberEncoding = "log",
    num_bins: int = 16,
    hidden_dims: Sequence[int] = (),
    min_baskets: int = 5,
    min_customer_baskets: int = 2,
    article_dropout: float = 0.1,
    customer_dropout: float = 0.1,
    temperature: float = 0.07,
    target_days: int = 308,
    new_weight: float = 0.3,
    batch_size: int = 256,
    num_sampled_negatives: int = 4000,
    learning_rate: float = 0.005,
    steps_per_epoch: int = 0,
    epochs: int = 1,
    max_epochs: int | None = None,
    patience: int = 2,
    answers_strangers: bool = True,
    seed: int = 1,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    log: TrainingLog | None = None,
) -> TwoTower:
    """Fits two towers on what customers bought next.

    Args:
        view: What may be seen.
        embedding_dim: See `settings.base.TwoTowerConfig` for this and the other settings.
        history_length: Last events of a history that are counted.
        history_articles: Articles of a history that the query tower reads.
        time_scales_days: Time constants of the decayed counts.
        num_steps: See `models.history_encoder.HistoryEncoder`.
        content_scale: See `models.encoders.ArticleEncoder`.
        num_text_buckets: Hash buckets of the words of descriptions; 0 leaves text out.
        categorical_encoding: See `models.encoders.CategoryEncoder`.
        number_encoding: See `models.encoders.NumberEncoder`.
        num_bins: Bins of a numeric feature.
        hidden_dims: Widths of deep towers; none for shallow ones.
        min_baskets: Articles in fewer baskets have no embedding of their own.
        min_customer_baskets: Customers with fewer baskets have no embedding of their own.
        article_dropout: Share of the articles of a batch that are their content alone.
        customer_dropout: Share of the customers of a batch without their own embedding.
        temperature: Of the softmax at the start.
        target_days: Days before the cutoff whose baskets are targets.
        new_weight: Weight of a target that the history lacks.
        batch_size: Baskets in a batch.
        num_sampled_negatives: Expected number of further candidates in a batch.
        learning_rate: At the start.
        steps_per_epoch: Batches of an epoch; 0 for a whole pass.
        epochs: At most so many epochs.
        max_epochs: Epochs over which the learning rate falls; `epochs` by default.
        patience: Epochs without a better figure before training stops.
        answers_strangers: Whether customers without a history are answered; otherwise they are left to popularity.
        seed: Of weights, batches and samples.
        validate: Judges the towers after each epoch; without it all epochs are run.
        log: Where progress is told.

    Returns:
        The towers after the last epoch, over the exact index, with the number of the best epoch and all figures.

    Raises:
        InputError: There is no basket to learn from.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(seed)
    articles, timelines = view.articles, view.timelines
    size = articles.num_articles + FIRST_INDEX
    as_of = seconds_since_1970(view.split.as_of)
    table = HistoryTable(timelines, view.profiles)
    since = as_of - target_days * SECONDS_PER_DAY
    baskets = make_training_baskets(timelines, since=since, history_length=history_length)
    # As many weeks as the baskets reach back, however long `target_days` is.
    week_seconds = view.week_days * SECONDS_PER_DAY
    weeks = view.read_weeks(-(-(as_of - int(baskets.time.min())) // week_seconds) + 1)
    week = weeks.week_of(baskets.time)
    dataset = make_training_dataset(table, baskets, week=week, batch_size=batch_size, seed=seed)
    encoder = ArticleEncoder(
        number_rows(articles.num_baskets >= min_baskets),
        articles,
        view.read_words(num_text_buckets) if num_text_buckets else None,
        weeks.values,
        embedding_dim=embedding_dim,
        content_scale=content_scale,
        encoding=categorical_encoding,
        number_encoding=number_encoding,
        num_bins=num_bins,
        seed=seed,
    )
    num_weeks = len(weeks.values)
    # The encoder has a copy of its own: two of them would be the largest things in memory throughout the fit.
    del weeks
    num_customer_baskets = np.bincount(baskets.row + FIRST_INDEX, minlength=timelines.num_customers + FIRST_INDEX)
    own_row = number_rows(num_customer_baskets >= min_customer_baskets)
    settings = {
        "num_customers": timelines.num_customers,
        "num_own": int(own_row.max()),
        "profile_sizes": [len(values) + FIRST_INDEX for values in view.profile_vocabulary.values()],
        "num_profile_numbers": view.profiles.numbers.shape[1],
        "number_encoding": number_encoding,
        "num_bins": num_bins,
        "embedding_dim": embedding_dim,
        "time_scales_days": list(time_scales_days),
        "num_articles": history_articles,
        "num_steps": num_steps,
        "history_gain": initial_gain(
            timelines, baskets, size=size, history_articles=history_articles, temperature=temperature
        ),
        "encoding": categorical_encoding,
        "hidden_dims": list(hidden_dims),
        "seed": seed,
        "history_length": history_length,
        "side_dim": int(encoder(tf.zeros([0], tf.int32), tf.constant(0)).side.shape[1]),
    }
    query_tower = make_query_tower(settings, view.lookups)
    history_features = make_history_layer(view.lookups)
    query_tower.fit(own_row, _sample_numbers(history_features, table, baskets, seed=seed))
    num_targets = _count_targets(baskets, week, num_weeks=num_weeks, size=size)
    known = np.arange(size) >= FIRST_INDEX
    log_count = np.log1p(num_targets.sum(axis=0))
    # Articles without an embedding of their own can be drawn too: what the catalogue lists and nobody buys is told by
    # its content.
    share = np.sqrt(num_targets.sum(axis=0) + 0.5) * known
    sampling_rate = -np.expm1(-num_sampled_negatives * share / share.sum())
    candidate_tower = CandidateTower(
        encoder,
        np.where(articles.num_baskets > 0, 0.1 * (log_count - log_count[articles.num_baskets > 0].mean()), 0.0),
        embedding_dim=embedding_dim,
        hidden_dims=hidden_dims,
        seed=seed,
    )
    model = TwoTowerModel(
        encoder=encoder,
        query_tower=query_tower,
        candidate_tower=candidate_tower,
        history_features=history_features,
        temperature=temperature,
        log_probability=_log_probability(num_targets, week, sampling_rate, batch_size=batch_size),
        sampling_rate=sampling_rate,
        new_weight=new_weight,
        article_dropout=article_dropout,
        customer_dropout=customer_dropout,
    )
    steps = (max_epochs or epochs) * (steps_per_epoch or int(dataset.cardinality()))
    schedule = tf.keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, 0.05 * learning_rate)
    model.compile(optimizer=tf.keras.optimizers.Adam(schedule))
    # A training step that makes variables is traced twice; here they are all made before.
    candidate_tower(tf.zeros([0], tf.int32), tf.constant(0))
    model.optimizer.build(model.trainable_variables)

    def candidates(article_index: np.ndarray) -> CandidateSet:
        embedding = encode_in_batches(
            lambda rows: candidate_tower(rows, tf.constant(0)), article_index, width=embedding_dim + 1
        )
        return CandidateSet(embedding, article_index)

    def recommender(epochs: int = 0, curves: dict[str, list[float]] | None = None) -> TwoTower:
        everything = np.arange(size, dtype=np.int32)

        def read(rows: tf.Tensor) -> tf.Tensor:
            embedding, side = encoder(rows, tf.constant(0))
            return tf.concat([embedding, query_tower.weigh(side)], axis=1)

        embedding_and_weight = encode_in_batches(read, everything, width=embedding_dim + 2)
        return TwoTower(
            TwoTowerQuery(
                query_tower,
                history_features,
                embedding_and_weight[:, :embedding_dim],
                embedding_and_weight[:, embedding_dim:],
                settings=settings,
            ),
            in_store=candidates(articles.in_store),
            never_sold=candidates(articles.never_sold),
            needs_history=not answers_strangers,
            epochs=epochs,
            curves=curves,
        )

    judge = None if validate is None else lambda: validate(recommender())
    best, curves = fit_model(
        model,
        dataset,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        validate=judge,
        patience=patience,
        log=log,
    )
    return recommender(best, curves)


def number_rows(chosen: np.ndarray) -> np.ndarray:
    """Numbers the chosen rows from 1; the others share 0."""
    return np.where(chosen, np.cumsum(chosen), 0).astype(np.int32)


def initial_gain(
    timelines: Timelines, baskets: TrainingBaskets, *, size: int, history_articles: int, temperature: float
) -> float:
    """Finds how long the sum over a history is to start, by how often the next basket holds what was bought before.

    One of `n` articles of a history, summed at equal weights to length `gain`, has the logit `gain / sqrt(n) /
    temperature`. It is to be the log odds of such an article against one that the history lacks. Where people seldom
    buy a thing twice that is next to nothing; where it is more than 1, the sum starts at length 1.

    Args:
        timelines: What is visible.
        baskets: To learn from.
        size: Article indices.
        history_articles: Articles of a history that are read at most.
        temperature: Divides the cosine.
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
    parts = []
    for rows in np.array_split(chosen, max(1, len(chosen) // 1024)):
        customer_index = tf.constant(baskets.row[rows] + FIRST_INDEX, tf.int32)
        now = tf.constant(baskets.time[rows])
        histories = table.between(customer_index, baskets.history_start[rows], baskets.start[rows], now)
        features = layer(histories, now)
        parts.append(np.concatenate([histories.profile_numbers, features.numbers], axis=1))
    return np.concatenate(parts)


def _count_targets(baskets: TrainingBaskets, week: np.ndarray, *, num_weeks: int, size: int) -> np.ndarray:
    """Counts the baskets that hold each article: `[num_weeks, num_articles + 2]` int64."""
    of_target = np.repeat(week, np.diff(baskets.target_splits))
    cell = of_target * size + baskets.target
    return np.bincount(cell, minlength=num_weeks * size).reshape(num_weeks, size)


def _log_probability(
    num_targets: np.ndarray, week: np.ndarray, sampling_rate: np.ndarray, *, batch_size: int
) -> np.ndarray:
    """Finds the log of the probability that a batch of each week holds each article, like `num_targets` float32."""
    log_probability = np.zeros(num_targets.shape, np.float32)
    for number, count in enumerate(np.bincount(week, minlength=len(num_targets))):
        if count:
            size = max(1, round(count / max(1, round(count / batch_size))))
            in_batch = sampling_probability(num_targets[number], total_baskets=int(count), batch_size=size).numpy()
            log_probability[number] = np.log(np.maximum(1.0 - (1.0 - in_batch) * (1.0 - sampling_rate), 1e-12))
    return log_probability


def encode_in_batches(
    encode: Callable[[tf.Tensor], tf.Tensor], article_index: np.ndarray, *, width: int, size: int = 8192
) -> np.ndarray:
    """Encodes `[num_articles]` int32 articles a few at a time, to `[num_articles, width]` float32."""
    parts = [np.zeros((0, width), np.float32)]
    for start in range(0, len(article_index), size):
        parts.append(encode(tf.constant(article_index[start : start + size])).numpy())
    return np.concatenate(parts)
