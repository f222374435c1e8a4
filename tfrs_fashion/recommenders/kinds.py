"""The literal table of recommenders: which function fits and which one loads each kind."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfrs_fashion.features.view import View
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
from tfrs_fashion.recommenders.item_knn import fit_basket_pairs, fit_item_knn
from tfrs_fashion.recommenders.neighbours import Neighbours
from tfrs_fashion.recommenders.next_category import NextCategory, fit_next_category
from tfrs_fashion.recommenders.popularity import Popularity, fit_popularity, fit_siblings, fit_trend
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.repurchase import Repurchase
from tfrs_fashion.recommenders.restricted import Restricted
from tfrs_fashion.recommenders.same_product import fit_same_product
from tfrs_fashion.recommenders.sequential import load_sequential
from tfrs_fashion.recommenders.towers import TwoTower
from tfrs_fashion.recommenders.two_stage import TwoStage
from tfrs_fashion.settings.pipeline import PipelineConfig
from tfrs_fashion.settings.recommenders import (
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

# Articles of a group's list: more than a blend takes from any generator.
GROUP_WIDTH = 1000


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
            raise ValueError(f"{name} learns from past weeks of a run; see `run.rankers.Ranking.fit_two_stage`")


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
