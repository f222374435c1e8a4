"""The fit of the base two towers, which become the factors of customers and of articles."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import HistoryTable, make_training_baskets, make_training_dataset
from tfrs_fashion.features.view import View
from tfrs_fashion.models.base_two_tower import BaseTower, BaseTwoTowerModel
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.factorization import Factorization
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.schema import FIRST_INDEX, InputError
from tfrs_fashion.settings.base import CategoryEncoding

_CHUNK = 8192


def fit_base_two_tower(
    view: View,
    *,
    embedding_dim: int,
    encoding: CategoryEncoding,
    hidden_dims: Sequence[int],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    name: str,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    patience: int = 2,
    log: TrainingLog | None = None,
) -> Factorization:
    """Fits two towers on all baskets, against as many random articles.

    Neither tower reads what was bought or when, so that each customer and each article has one embedding.

    Args:
        view: What may be seen.
        embedding_dim: Width of both towers.
        encoding: See `models.encoders.CategoryEncoder`.
        hidden_dims: Widths of deep towers; none for shallow ones.
        epochs: At most so many epochs.
        batch_size: Baskets in a batch.
        learning_rate: Of Adam.
        seed: Of weights, batches and negatives.
        name: As used in reports.
        validate: Judges the model after each epoch; without it all epochs are run.
        patience: Epochs without a better figure before training stops.
        log: Where progress is told.

    Returns:
        The towers after the last epoch as factors, of customers who bought and of articles in store.

    Raises:
        InputError: Nothing was bought.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(seed)
    timelines, articles, section = view.timelines, view.articles, f"generators.{name}"
    if not len(timelines.time):
        raise InputError(
            f"{name}: nothing was bought by a known customer before the cutoff. Leave {name} out of `recommenders`."
        )
    baskets = make_training_baskets(timelines, since=int(timelines.time.min()), history_length=0, section=section)
    table = HistoryTable(timelines, view.profiles)
    week = np.zeros(len(baskets.row), np.int64)
    dataset = make_training_dataset(table, baskets, week=week, batch_size=batch_size, seed=seed)
    num_customers = timelines.num_customers + FIRST_INDEX
    profile_sizes = [len(values) + FIRST_INDEX for values in view.profile_vocabulary.values()]
    query_tower, candidate_tower = (
        BaseTower(
            sizes, embedding_dim=embedding_dim, encoding=encoding, hidden_dims=hidden_dims, seed=seed + 100 * number
        )
        for number, sizes in enumerate(
            ([num_customers, *profile_sizes], [articles.num_articles + FIRST_INDEX, *articles.category_sizes])
        )
    )
    model = BaseTwoTowerModel(
        query_tower,
        candidate_tower,
        features=articles.category_matrix(),
        negatives=np.flatnonzero(articles.num_baskets),
    )
    model.compile(optimizer=tf.keras.optimizers.Adam(learning_rate))
    # A training step that makes variables is traced twice; here they are all made before.
    model.optimizer.build(model.trainable_variables)
    has_bought = np.flatnonzero(np.diff(timelines.row_splits)).astype(np.int32) + FIRST_INDEX
    profile = view.profiles.categorical

    def recommender() -> Factorization:
        customer_factors = np.zeros((num_customers, embedding_dim), np.float32)
        for start in range(0, len(has_bought), _CHUNK):
            customers = has_bought[start : start + _CHUNK]
            customer_factors[customers] = model.embed_queries(tf.constant(customers), tf.constant(profile[customers]))
        article_factors = np.zeros((len(articles.in_store), embedding_dim), np.float32)
        for start in range(0, len(articles.in_store), _CHUNK):
            chunk = tf.constant(articles.in_store[start : start + _CHUNK])
            article_factors[start : start + _CHUNK] = model.embed_candidates(chunk)
        return Factorization(customer_factors, article_factors, articles.in_store, name=name)

    judge = None if validate is None else lambda: validate(recommender())
    fit_model(model, dataset, epochs=epochs, validate=judge, patience=patience, log=log, section=section)
    return recommender()
