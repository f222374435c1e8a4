"""The literal table of recommenders: which function fits and which one loads each kind."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tfrs_fashion.features.view import View
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders import (
    als,
    base_two_tower,
    basket_mlp,
    basket_pairs,
    bpr,
    co_visitation,
    customer_knn,
    fashion_dna,
    graph_filter,
    item_knn,
    next_category,
    popularity,
    repurchase,
    restricted,
    same_product,
    sequential,
    siblings,
)
from tfrs_fashion.recommenders.blend import blend
from tfrs_fashion.recommenders.blend import fit as blend_fit
from tfrs_fashion.recommenders.factorization import Factorization
from tfrs_fashion.recommenders.neighbours import Neighbours
from tfrs_fashion.recommenders.recommender import FitContext, Recommender, load_as, load_kind
from tfrs_fashion.recommenders.two_stage import fit as two_stage_fit
from tfrs_fashion.recommenders.two_stage import two_stage
from tfrs_fashion.recommenders.two_tower import fit as two_tower
from tfrs_fashion.settings.base import RecommenderConfig


class Kind(NamedTuple):
    """A kind of recommender.

    Attributes:
        fit: Fits it, from what a view shows, its settings (an instance of its class in `settings.recommenders.CONFIGS`)
            and the context of the fit.
        load: Loads what its recommender's `save` wrote into a folder.
    """

    fit: Callable[[View, Any, FitContext], Recommender]
    load: Callable[[Path], Recommender]


def fit_recommender(view: View, settings: RecommenderConfig, context: FitContext) -> Recommender:
    """Fits a recommender of any kind.

    Args:
        view: What it may see.
        settings: Its settings.
        context: What else it may need.
    """
    return KINDS[settings.kind].fit(view, settings, context)


def load_recommender(folder: Path) -> Recommender:
    """Loads a recommender of any kind from the folder that its `save` wrote into."""
    return KINDS[load_kind(folder)].load(folder)


def fit_by_name(
    name: str,
    view: View,
    recommenders: Mapping[str, RecommenderConfig],
    *,
    seed: int = 1,
    k: int = 12,
    choice: Mapping[str, Any] | None = None,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    log: TrainingLog | None = None,
) -> Recommender:
    """Fits a recommender of a pipeline, and before it those that it is made from.

    Args:
        name: The recommender's name.
        view: What it may see.
        recommenders: Settings of the pipeline's recommenders by name.
        seed: See `FitContext`, as for the rest.
        k: Length of the evaluated list.
        choice: What was chosen on validation.
        validate: Evaluates it after each epoch.
        log: Log of the training's progress.
    """

    def part(other: str) -> Recommender:
        return fit_by_name(other, view, recommenders, seed=seed, k=k, log=log and log.part(other))

    context = FitContext(name, seed, choice or {}, part=part, validate=validate, log=log, k=k)
    return fit_recommender(view, recommenders[name], context)


KINDS: dict[str, Kind] = {
    "popularity": Kind(popularity.fit, popularity.load),
    "siblings": Kind(siblings.fit, popularity.load),
    "repurchase": Kind(repurchase.fit, load_as(repurchase.Repurchase)),
    "item_knn": Kind(item_knn.fit, load_as(Neighbours)),
    "co_visitation": Kind(co_visitation.fit, load_as(Neighbours)),
    "basket_pairs": Kind(basket_pairs.fit, load_as(Neighbours)),
    "same_product": Kind(same_product.fit, load_as(Neighbours)),
    "customer_knn": Kind(customer_knn.fit, load_as(customer_knn.CustomerKnn)),
    "als": Kind(als.fit, load_as(Factorization)),
    "bpr": Kind(bpr.fit, load_as(Factorization)),
    "graph_filter": Kind(graph_filter.fit, load_as(graph_filter.GraphFilter)),
    "basket_mlp": Kind(basket_mlp.fit, basket_mlp.load),
    "base_two_tower": Kind(base_two_tower.fit, load_as(Factorization)),
    "fashion_dna": Kind(fashion_dna.fit, load_as(fashion_dna.StaticStyles)),
    "two_tower": Kind(two_tower.fit, two_tower.load),
    "sequential": Kind(sequential.fit, sequential.load),
    "next_category": Kind(next_category.fit, next_category.load),
    "restricted": Kind(restricted.fit, lambda folder: restricted.load(folder, load_recommender)),
    "blend": Kind(blend_fit.fit, lambda folder: blend.load(folder, load_recommender)),
    "two_stage": Kind(two_stage_fit.fit, lambda folder: two_stage.load(folder, load_recommender)),
}
