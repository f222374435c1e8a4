"""Fitting by name: which function fits, loads and indexes each recommender that a pipeline names."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrs_fashion.config import PipelineConfig
from tfrs_fashion.evaluation.target_ranks import place_targets, spread_evenly
from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.generator_sections import (
    AlsConfig,
    BaseTwoTowerConfig,
    BasketMlpConfig,
    BasketPairsConfig,
    BprConfig,
    CoVisitationConfig,
    CustomerKnnConfig,
    FashionDnaConfig,
    GraphFilterConfig,
    ItemKnnConfig,
    NextCategoryConfig,
    PopularityConfig,
    RepurchaseConfig,
    RestrictedConfig,
    SameProductConfig,
    SequentialConfig,
    SiblingsConfig,
    TwoStageConfig,
)
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.base_two_tower import fit_base_two_tower
from tfrs_fashion.recommenders.basket_mlp import BasketMlp, fit_basket_mlp
from tfrs_fashion.recommenders.blend import Blend
from tfrs_fashion.recommenders.co_visitation import fit_co_visitation
from tfrs_fashion.recommenders.customer_knn import CustomerKnn, fit_customer_knn
from tfrs_fashion.recommenders.factorization import Factorization, fit_als, fit_bpr
from tfrs_fashion.recommenders.fashion_dna import StaticStyles, fit_fashion_dna
from tfrs_fashion.recommenders.fit_sequential import fit_sequential
from tfrs_fashion.recommenders.fit_towers import fit_two_tower
from tfrs_fashion.recommenders.graph_filter import GraphFilter, fit_graph_filter
from tfrs_fashion.recommenders.group_popularity import fit_group_popularity, load_group_popularity
from tfrs_fashion.recommenders.indexed_tower import IndexedTower
from tfrs_fashion.recommenders.item_knn import fit_basket_pairs, fit_item_knn
from tfrs_fashion.recommenders.neighbours import Neighbours
from tfrs_fashion.recommenders.next_category import NextCategory, fit_next_category
from tfrs_fashion.recommenders.popularity import Popularity, fit_popularity, fit_siblings, fit_trend
from tfrs_fashion.recommenders.recommender import Recommendations, Recommender
from tfrs_fashion.recommenders.repurchase import Repurchase
from tfrs_fashion.recommenders.restricted import Restricted
from tfrs_fashion.recommenders.same_product import fit_same_product
from tfrs_fashion.recommenders.sequential import load_sequential
from tfrs_fashion.recommenders.towers import TwoTower
from tfrs_fashion.recommenders.two_stage import TwoStage
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX, TARGET_RANK_COLUMNS

# Articles of a group's list: more than a blend takes from any generator.
GROUP_WIDTH = 1000
# Places of the lists that are held at once while every article is ranked: a few hundred megabytes.
MAX_PLACES = 4_000_000


def ask_customers(
    recommender: Callable[..., Recommendations],
    view: View,
    customers: np.ndarray,
    *,
    k: int,
    exclude: pd.DataFrame | None = None,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Asks a recommender that is not exported for customers at their cutoffs.

    Args:
        recommender: Fitted from the view.
        view: What it was fitted from.
        customers: `[num_customers]` int32 customer indices; those that the view does not know are strangers.
        k: Length of the lists.
        exclude: `customer_index, article_index` that are not recommended.
        batch_size: Customers ranked together.

    Yields:
        `[batch_size, k]` int32 article indices, best first; 0 where there is none. The last batch may be smaller.
    """
    table, cutoff = HistoryTable(view.timelines, view.profiles), tf.constant(view.now)
    known = np.where(customers < len(view.now), customers, OUT_OF_VOCABULARY_INDEX).astype(np.int32)
    excluded = _list_by_customer(exclude, customers)
    for start in range(0, len(known), batch_size):
        rows = slice(start, start + batch_size)
        now = tf.gather(cutoff, known[rows])
        left_out = tf.constant(excluded[rows].to_tensor(PADDING_INDEX))
        answer = recommender(table(tf.constant(known[rows])), now=now, k=tf.constant(k), exclude=left_out)
        yield answer.article_index.numpy()


def rank_customers(
    recommender: Callable[..., Recommendations],
    view: View,
    customers: np.ndarray,
    *,
    k: int,
    exclude: pd.DataFrame | None = None,
    batch_size: int = 256,
) -> pd.DataFrame:
    """Returns the lists of `ask_customers` as `customer_index, article_index, rank`."""
    batches = ask_customers(recommender, view, customers, k=k, exclude=exclude, batch_size=batch_size)
    articles = np.concatenate([np.zeros((0, k), np.int32), *batches])
    candidates = pd.DataFrame(
        {
            "customer_index": np.repeat(customers, k),
            "article_index": articles.ravel(),
            "rank": np.tile(np.arange(1, k + 1), len(customers)),
        }
    )
    return candidates[candidates["article_index"] > PADDING_INDEX]


def _list_by_customer(pairs: pd.DataFrame | None, customers: np.ndarray) -> tf.RaggedTensor:
    """Lists the articles of `customer_index, article_index` pairs for each of some customers, in their order."""
    if pairs is None:
        return tf.RaggedTensor.from_row_lengths(tf.zeros([0], tf.int32), np.zeros(len(customers), np.int64))
    order = np.argsort(customers, kind="stable")
    place = np.searchsorted(customers[order], pairs["customer_index"].to_numpy())
    is_asked = customers[order][np.minimum(place, len(customers) - 1)] == pairs["customer_index"].to_numpy()
    row, article = order[place[is_asked]], pairs["article_index"].to_numpy(dtype=np.int32)[is_asked]
    by_row = np.argsort(row, kind="stable")
    return tf.RaggedTensor.from_value_rowids(article[by_row], row[by_row], len(customers))


def rank_targets(
    recommender: Recommender, view: View, targets: pd.DataFrame, *, seed: int, max_places: int = MAX_PLACES
) -> pd.DataFrame:
    """Ranks every article in store for the customers of some targets, and keeps the targets' ranks alone.

    The recommender is asked and not its artifact, of which it is the part that ranks: an artifact fills up what the
    recommender does not name with what is popular, whose figures would be taken for its own. Recommenders may name what is
    no longer in store, so each is asked for as many articles as are known, and what is not in store is left out of the
    ranks.

    Args:
        recommender: Fitted from the view.
        view: What it was fitted from.
        targets: See `evaluation.target_ranks.find_rankable`.
        seed: Fixes where what is not named stands; the same for every recommender that is compared.
        max_places: Customers times known articles whose lists are held at once.

    Returns:
        See `evaluation.target_ranks.place_targets`. Who has no history is told nothing by a recommender that needs one.
    """
    k, in_store = view.articles.num_articles, view.articles.in_store
    batch_size = max(1, max_places // k)
    customers = np.unique(targets["customer_index"].to_numpy(np.int32))
    has_history = np.isin(customers, np.flatnonzero(np.diff(view.timelines.row_splits)) + FIRST_INDEX)
    offset = spread_evenly(len(customers), seed=seed)
    silent = ~has_history & recommender.needs_history
    batches = ask_customers(recommender, view, customers, k=k, batch_size=batch_size)
    parts = [pd.DataFrame(columns=list(TARGET_RANK_COLUMNS)).astype(TARGET_RANK_COLUMNS)]
    for start, lists in zip(range(0, len(customers), batch_size), batches, strict=True):
        batch = slice(start, start + batch_size)
        heard = np.where(silent[batch, np.newaxis], PADDING_INDEX, lists)
        of_batch = targets[targets["customer_index"].isin(customers[batch])]
        placed = place_targets(heard, customers[batch], of_batch, in_store, offset=offset[batch], name=recommender.name)
        parts.append(placed)
    return pd.concat(parts, ignore_index=True)


def embed_customers(towers: IndexedTower, view: View, customers: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
    """Embeds customers at their cutoffs.

    Args:
        towers: Fitted from the view.
        view: What they were fitted from.
        customers: `[num_customers]` int32 indices of customers that the view knows, at least one.
        batch_size: Customers embedded together.

    Returns:
        `[num_customers, embedding_dim + 1]` float32.
    """
    table, cutoff = HistoryTable(view.timelines, view.profiles), tf.constant(view.now)

    # Not a tf.function: tracing it costs more than it saves on so few batches.
    def embed(customer_index: np.ndarray) -> np.ndarray:
        return towers.embed(table(tf.constant(customer_index)), tf.gather(cutoff, customer_index)).numpy()

    batches = [customers[start : start + batch_size] for start in range(0, len(customers), batch_size)]
    return np.concatenate([embed(batch) for batch in batches])


def fit_recommender(
    name: str,
    view: View,
    config: PipelineConfig,
    *,
    choice: dict[str, Any],
    fitted: Callable[[str], Recommender] | None = None,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    log: TrainingLog | None = None,
) -> Recommender:
    """Fits a recommender by its name.

    Args:
        name: As in `recommenders`.
        view: What it may see.
        config: The pipeline.
        choice: What was chosen on validation, e.g. `epochs`; it overrides the config.
        fitted: Gives a recommender that this one is made from, fitted on the same; without it, it is fitted here.
        validate: Judges a model after each epoch, to stop early.
        log: Where progress is told.
    """
    if name == "two_tower":
        # Models hold themselves in cycles: what an earlier fit has left behind makes room for this one.
        gc.collect()
        return fit_two_tower(
            view,
            num_text_buckets=config.features.num_text_buckets,
            seed=config.seed,
            validate=validate,
            log=log,
            max_epochs=config.two_tower.epochs,
            **{**config.two_tower.model_dump(), **choice},
        )
    generator = config.generators[name].model_copy(update=choice)
    settings = generator.model_dump(exclude={"kind"})
    progress: dict[str, Any] = {"validate": validate, "log": log}
    # The learning rate falls as it did when the number of epochs was chosen.
    trained: dict[str, Any] = {**progress, "max_epochs": getattr(config.generators[name], "epochs", 0)}
    told: dict[str, Any] = {"num_text_buckets": config.features.num_text_buckets, "seed": config.seed, "name": name}

    def fit(part: str) -> Recommender:
        return fit_recommender(part, view, config, choice={}, log=log and log.part(part))

    match generator:
        case PopularityConfig(by="", trend=False):
            return fit_popularity(view.transactions, as_of=view.split.as_of, days=generator.days, name=name)
        case PopularityConfig(by="", trend=True):
            return fit_trend(view, days=generator.days, name=name)
        case PopularityConfig():
            return fit_group_popularity(view, days=generator.days, by=generator.by, width=GROUP_WIDTH, name=name)
        case SiblingsConfig():
            return fit_siblings(
                view.tables.articles,
                view.transactions,
                as_of=view.split.as_of,
                days=config.split.in_store_days,
                candidate_articles=view.articles.never_sold,
                name=name,
            )
        case RepurchaseConfig():
            in_store = view.articles.in_store if settings.pop("in_store_only") else None
            return Repurchase(in_store, **settings, name=name)
        case ItemKnnConfig():
            return fit_item_knn(view, **settings, name=name)
        case CoVisitationConfig():
            return fit_co_visitation(view, **settings, name=name)
        case BasketPairsConfig():
            return fit_basket_pairs(view, **settings, name=name)
        case SameProductConfig():
            return fit_same_product(view, **settings, name=name)
        case CustomerKnnConfig():
            return fit_customer_knn(view, **settings, name=name)
        case AlsConfig():
            return fit_als(view, **settings, seed=config.seed, name=name)
        case BprConfig():
            return fit_bpr(view, **settings, seed=config.seed, name=name)
        case GraphFilterConfig():
            return fit_graph_filter(view, **settings, seed=config.seed, name=name)
        case BasketMlpConfig():
            return fit_basket_mlp(view, **settings, **progress, seed=config.seed, name=name)
        case BaseTwoTowerConfig():
            return fit_base_two_tower(view, **settings, **progress, seed=config.seed, name=name)
        case SequentialConfig():
            vectors = None
            if generator.vectors_of:
                styles = (fitted or fit)(generator.vectors_of)
                assert isinstance(styles, StaticStyles)
                vectors = styles.vectors
            days = config.split.in_store_days
            return fit_sequential(view, generator, vectors=vectors, in_store_days=days, **trained, **told)
        case NextCategoryConfig():
            category = generator.category or config.features.roles.category
            return fit_next_category(view, generator, category=category, **trained, **told)
        case FashionDnaConfig():
            return fit_fashion_dna(view, generator, **progress, **told)
        case RestrictedConfig():
            inner = (fitted or fit)(generator.of)
            assert isinstance(inner, Factorization | TwoTower)
            return Restricted(inner, days=generator.days, name=name)
        case TwoStageConfig():
            raise ValueError(f"{name} learns from past weeks of a run; see `ranking.Ranking.fit_two_stage`")


def load_recommender(name: str, folder: Path, config: PipelineConfig) -> Recommender:
    """Loads what the recommender's own `save` wrote."""
    if name == "two_tower":
        return TwoTower.load(folder)
    if name == "blend":
        return Blend.load(folder, load_generator=lambda part, place: load_recommender(part, place, config))
    generator = config.generators[name]
    match generator:
        case PopularityConfig(by="") | SiblingsConfig():
            return Popularity.load(folder)
        case PopularityConfig():
            return load_group_popularity(folder)
        case RepurchaseConfig():
            return Repurchase.load(folder)
        case ItemKnnConfig() | CoVisitationConfig() | BasketPairsConfig() | SameProductConfig():
            return Neighbours.load(folder)
        case CustomerKnnConfig():
            return CustomerKnn.load(folder)
        case AlsConfig() | BprConfig() | BaseTwoTowerConfig():
            return Factorization.load(folder)
        case GraphFilterConfig():
            return GraphFilter.load(folder)
        case BasketMlpConfig():
            return BasketMlp.load(folder)
        case FashionDnaConfig():
            return StaticStyles.load(folder)
        case NextCategoryConfig():
            return NextCategory.load(folder)
        case SequentialConfig():
            return load_sequential(folder)
        case RestrictedConfig():
            load_inner = TwoTower.load if generator.of == "two_tower" else Factorization.load
            return Restricted.load(folder, load_inner=load_inner)
        case TwoStageConfig():

            def load(part: str, place: Path) -> Any:
                return load_recommender(part, place, config)

            return TwoStage.load(folder, load_generator=load, load_similar=load)
