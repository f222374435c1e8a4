"""The base two towers: who the customer is and what the article is, fitted as factors of customers and of articles."""

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import HistoryTable, make_training_baskets, make_training_dataset
from tfrs_fashion.features.view import View
from tfrs_fashion.models.base_two_tower import BaseTower, BaseTwoTowerModel
from tfrs_fashion.recommenders.factorization import Factorization
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.recommenders.trained import train
from tfrs_fashion.schema import FIRST_INDEX, InputError
from tfrs_fashion.settings.recommenders import BaseTwoTowerConfig

_CHUNK = 8192


def fit(view: View, settings: BaseTwoTowerConfig, context: FitContext) -> Factorization:
    """Fits two towers on all baskets, against as many random articles; see `recommenders.kinds.Kind`.

    Neither tower reads what was bought or when, so that each customer and each article has one embedding.

    Returns:
        The towers after the last epoch as factors, of customers who bought and of articles in store.

    Raises:
        InputError: Nothing was bought.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(context.seed)
    timelines, articles, embedding_dim = view.timelines, view.articles, settings.embedding_dim
    if not len(timelines.time):
        raise InputError(
            f"{context.name}: nothing was bought by a known customer before the cutoff. Leave {context.name} out of "
            "`recommenders`."
        )
    baskets = make_training_baskets(
        timelines, since=int(timelines.time.min()), history_length=0, section=context.section
    )
    table = HistoryTable(timelines, view.profiles)
    week = np.zeros(len(baskets.row), np.int64)
    dataset = make_training_dataset(table, baskets, week=week, batch_size=settings.batch_size, seed=context.seed)
    num_customers = timelines.num_customers + FIRST_INDEX
    profile_sizes = [len(values) + FIRST_INDEX for values in view.profile_vocabulary.values()]
    query_tower, candidate_tower = (
        BaseTower(
            sizes,
            embedding_dim=embedding_dim,
            encoding=settings.encoding,
            hidden_dims=settings.hidden_dims,
            seed=context.seed + 100 * number,
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
        return Factorization(
            customer_factors, article_factors, articles.in_store, kind=settings.kind, name=context.name
        )

    return train(model, dataset, recommender, context, learning_rate=settings.learning_rate, epochs=settings.epochs)
