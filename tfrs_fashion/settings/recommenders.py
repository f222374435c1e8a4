"""The section `[generators]` of a pipeline file: candidate generators by name, each of a kind with its settings."""

import typing
from typing import Annotated, Any, Literal

from pydantic import Field

from tfrs_fashion.settings.base import CategoryEncoding, Section
from tfrs_fashion.settings.rankers import TwoStageConfig
from tfrs_fashion.settings.sequences import FashionDnaConfig, NextCategoryConfig, SequentialConfig

Similarity = Literal["cosine", "bm25"]


# Columns of transactions by which popularity may be counted, and where timelines hold them.
EVENT_GROUPS: dict[str, Literal["store_index", "sales_channel_id"]] = {
    "store_id": "store_index",
    "sales_channel_id": "sales_channel_id",
}


class PopularityConfig(Section):
    """What sells, to everyone or to a group.

    Attributes:
        kind: `popularity`.
        days: Days before the cutoff whose baskets count.
        by: A profile feature, `store_id`, `sales_channel_id` or a categorical feature of articles. Customers are shown what
            sells to those who share their value, or in the categories of which they buy most; empty for everyone.
        trend: Whether sales are multiplied by their growth over as many days before; an article that is new has the
            average of all as its past.
    """

    kind: Literal["popularity"] = "popularity"
    days: int = Field(default=7, ge=1)
    by: str = ""
    trend: bool = False


class SiblingsConfig(Section):
    """Articles never sold, by the sales of their other colours.

    Attributes:
        kind: `siblings`.
    """

    kind: Literal["siblings"] = "siblings"


class RepurchaseConfig(Section):
    """What the customer bought before.

    Attributes:
        kind: `repurchase`.
        days: Days before now that count; 0 for all.
        last_basket: Whether the last basket alone counts.
        half_life_days: Age in days at which a basket counts half; 0 for a plain count.
        in_store_only: Whether articles that are not in store at the cutoff are left out. Where that is presumed from the
            sales of the last `split.in_store_days`, who comes back may know better: a wide pool of candidates can gain.
    """

    kind: Literal["repurchase"] = "repurchase"
    days: int = Field(default=0, ge=0)
    last_basket: bool = False
    half_life_days: float = Field(default=0.0, ge=0)
    in_store_only: bool = True


class _NeighboursConfig(Section):
    """What tables of neighbours have in common.

    Attributes:
        num_neighbours: Neighbours of an article.
        history_articles: Strongest articles of a history that are read.
        half_life_days: Age in days at which a purchase of the history weighs half.
    """

    num_neighbours: int = Field(default=100, ge=1)
    history_articles: int = Field(default=100, ge=1)
    half_life_days: float = Field(default=60.0, gt=0)


class ItemKnnConfig(_NeighboursConfig):
    """Articles that the same customers bought; see also `_NeighboursConfig`.

    Attributes:
        kind: `item_knn`.
        similarity: `cosine` or `bm25`.
        matrix_half_life_days: Age in days at which a purchase counts half in the similarity; 0 for no decay.
    """

    kind: Literal["item_knn"] = "item_knn"
    similarity: Similarity = "cosine"
    matrix_half_life_days: float = Field(default=0.0, ge=0)


class CoVisitationConfig(_NeighboursConfig):
    """What customers bought after an article; see also `_NeighboursConfig`.

    Attributes:
        kind: `co_visitation`.
        num_baskets: How many baskets later still count.
        gap_half_life_days: Days between the two baskets at which a pair counts half.
        matrix_half_life_days: Age in days of the later basket at which a pair counts half.
        popularity_power: Power of the later article's sales that a pair is divided by.
    """

    kind: Literal["co_visitation"] = "co_visitation"
    num_baskets: int = Field(default=3, ge=1)
    gap_half_life_days: float = Field(default=14.0, gt=0)
    matrix_half_life_days: float = Field(default=60.0, gt=0)
    popularity_power: float = Field(default=0.0, ge=0, le=1)


class BasketPairsConfig(_NeighboursConfig):
    """Articles of one basket, by lift; see also `_NeighboursConfig`.

    Attributes:
        kind: `basket_pairs`.
        days: Days before the cutoff that count.
        min_baskets: Pairs in fewer baskets are left out.
    """

    kind: Literal["basket_pairs"] = "basket_pairs"
    days: int = Field(default=365, ge=1)
    min_baskets: int = Field(default=5, ge=1)


class SameProductConfig(_NeighboursConfig):
    """Other colours and sizes of what was bought; see also `_NeighboursConfig`.

    Attributes:
        kind: `same_product`.
        days: Days before the cutoff whose sales rank the articles of a design.
    """

    kind: Literal["same_product"] = "same_product"
    days: int = Field(default=28, ge=1)


class CustomerKnnConfig(Section):
    """What customers bought lately who bought the same.

    Attributes:
        kind: `customer_knn`.
        num_buyers: Latest buyers of an article that are looked at.
        num_recent: Latest articles of a neighbour that are added up.
        num_neighbours: Customers whose articles are added up.
        history_articles: Strongest articles of a history that are read.
        half_life_days: Age in days at which a purchase of the history weighs half.
    """

    kind: Literal["customer_knn"] = "customer_knn"
    num_buyers: int = Field(default=200, ge=1)
    num_recent: int = Field(default=50, ge=1)
    num_neighbours: int = Field(default=100, ge=1)
    history_articles: int = Field(default=50, ge=1)
    half_life_days: float = Field(default=60.0, gt=0)


class AlsConfig(Section):
    """Matrix factorisation by alternating least squares, of the package implicit.

    Attributes:
        kind: `als`.
        factors: Width of the factors.
        iterations: Alternations.
        regularization: Of both sides.
        alpha: Confidence of a fresh basket.
        half_life_days: Age in days at which a basket weighs half.
    """

    kind: Literal["als"] = "als"
    factors: int = Field(default=128, ge=1)
    iterations: int = Field(default=15, ge=1)
    regularization: float = Field(default=0.05, ge=0)
    alpha: float = Field(default=1.0, gt=0)
    half_life_days: float = Field(default=30.0, gt=0)


class BprConfig(Section):
    """Matrix factorisation by Bayesian personalised ranking, of the package implicit.

    Attributes:
        kind: `bpr`.
        factors: Width of the factors.
        iterations: Passes over the purchases.
        learning_rate: Of stochastic gradient descent.
        regularization: Of both sides.
    """

    kind: Literal["bpr"] = "bpr"
    factors: int = Field(default=64, ge=1)
    iterations: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=0.01, gt=0)
    regularization: float = Field(default=0.01, ge=0)


class GraphFilterConfig(Section):
    """Purchases propagated through the graph of customers and articles.

    Attributes:
        kind: `graph_filter`.
        dim: Smoothest directions that are kept.
        matrix_half_life_days: Age in days at which a purchase counts half in the graph; 0 for no decay.
        half_life_days: Age in days at which a purchase of the history weighs half.
    """

    kind: Literal["graph_filter"] = "graph_filter"
    dim: int = Field(default=128, ge=1)
    matrix_half_life_days: float = Field(default=0.0, ge=0)
    half_life_days: float = Field(default=60.0, gt=0)


class BasketMlpConfig(Section):
    """The multi-layer perceptron over baskets.

    Attributes:
        kind: `basket_mlp`.
        hidden_dims: Widths of the hidden layers.
        epochs: Passes over the baskets.
        batch_size: Baskets in a batch.
        learning_rate: Of Adam.
        dropout: Share of each hidden layer that is left out in training.
        history_articles: Articles of a history that are read, those bought last.
        target_days: Days before the cutoff whose baskets are targets.
    """

    kind: Literal["basket_mlp"] = "basket_mlp"
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(100,), min_length=1)
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=0.001, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    history_articles: int = Field(default=500, ge=1)
    target_days: int = Field(default=308, ge=1)


class BaseTwoTowerConfig(Section):
    """Two towers of who the customer is and what the article is, told apart from random pairs.

    Attributes:
        kind: `base_two_tower`.
        embedding_dim: Width of both towers.
        encoding: Of the indices and of the categorical features; see `TwoTowerConfig`.
        hidden_dims: Widths of deep towers; none for shallow ones.
        epochs: Passes over the baskets.
        batch_size: Baskets in a batch.
        learning_rate: Of Adam.
    """

    kind: Literal["base_two_tower"] = "base_two_tower"
    embedding_dim: int = Field(default=64, ge=1)
    encoding: CategoryEncoding = "embedding"
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = ()
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=512, ge=1)
    learning_rate: float = Field(default=0.001, gt=0)


# Kinds that score any article they are asked for, as `RestrictedConfig` needs.
ScoringConfig = AlsConfig | BprConfig | BaseTwoTowerConfig


class RestrictedConfig(Section):
    """What the customer bought lately, in the order of another recommender's scores.

    Attributes:
        kind: `restricted`.
        of: The name of that recommender: `two_tower`, or a generator of kind `als`, `bpr` or `base_two_tower`.
        days: Days before now whose purchases are candidates.
    """

    kind: Literal["restricted"] = "restricted"
    of: str = "two_tower"
    days: int = Field(default=30, ge=1)


GeneratorConfig = Annotated[
    PopularityConfig
    | SiblingsConfig
    | RepurchaseConfig
    | ItemKnnConfig
    | CoVisitationConfig
    | BasketPairsConfig
    | SameProductConfig
    | CustomerKnnConfig
    | AlsConfig
    | BprConfig
    | GraphFilterConfig
    | BasketMlpConfig
    | BaseTwoTowerConfig
    | RestrictedConfig
    | SequentialConfig
    | NextCategoryConfig
    | FashionDnaConfig
    | TwoStageConfig,
    Field(discriminator="kind"),
]

GENERATOR_KINDS: dict[str, type[Section]] = {
    section.model_fields["kind"].default: section for section in typing.get_args(typing.get_args(GeneratorConfig)[0])
}

# The names that every pipeline knows; it may change their settings, and add names of its own.
GENERATORS: dict[str, Any] = {
    "popularity_1d": PopularityConfig(days=1),
    "popularity_3d": PopularityConfig(days=3),
    "popularity_7d": PopularityConfig(days=7),
    "popularity_30d": PopularityConfig(days=30),
    "popularity_90d": PopularityConfig(days=90),
    "popularity_trend": PopularityConfig(days=14, trend=True),
    "popularity_siblings": SiblingsConfig(),
    "repurchase": RepurchaseConfig(),
    "repurchase_last_basket": RepurchaseConfig(last_basket=True),
    "repurchase_7d": RepurchaseConfig(days=7),
    "repurchase_30d": RepurchaseConfig(days=30),
    "repurchase_decayed": RepurchaseConfig(half_life_days=60.0),
    "item_knn": ItemKnnConfig(),
    "item_knn_bm25": ItemKnnConfig(similarity="bm25"),
    "co_visitation": CoVisitationConfig(),
    "basket_pairs": BasketPairsConfig(),
    "same_product": SameProductConfig(),
    "customer_knn": CustomerKnnConfig(),
    "als": AlsConfig(),
    "bpr": BprConfig(),
    "graph_filter": GraphFilterConfig(),
    "basket_mlp": BasketMlpConfig(),
    "basket_mlp_deep": BasketMlpConfig(hidden_dims=(500, 100)),
    "base_two_tower": BaseTwoTowerConfig(),
    "base_two_tower_deep": BaseTwoTowerConfig(hidden_dims=(256, 128)),
    "base_two_tower_one_hot": BaseTwoTowerConfig(encoding="one_hot"),
    "base_two_tower_one_hot_deep": BaseTwoTowerConfig(encoding="one_hot", hidden_dims=(256, 128)),
    "fashion_dna": FashionDnaConfig(),
    "gru": SequentialConfig(tower="gru"),
    "lstm": SequentialConfig(tower="lstm"),
    "lstm_dna": SequentialConfig(
        tower="lstm",
        hidden_dim=256,
        loss="sampled_sigmoid",
        vectors_of="fashion_dna",
        event_features=("gap", "season"),
    ),
    "attention": SequentialConfig(tower="attention", num_layers=2),
    "next_category": NextCategoryConfig(),
    "two_tower_7d": RestrictedConfig(days=7),
    "two_tower_30d": RestrictedConfig(days=30),
    "two_stage": TwoStageConfig(),
    "two_stage_lightgbm": TwoStageConfig(rankers=("lightgbm",)),
}


class BlendConfig(Section):
    """A pool of several generators' candidates, and which of them are kept.

    Attributes:
        generators: Whose candidates are pooled, by their names in `generators`.
        num_candidates: Candidates that each is asked for.
        method: `selector` learns from past weeks which candidates are bought; `quotas` takes as many from each generator as
            paid in past weeks; `best` is the one that found more in the last weeks before the cutoff.
        budget: Candidates a customer for which quotas are found, and at which both methods are compared.
        weeks: Past weeks that are learned from. The generators of each are fitted before it.
        validation_weeks: Last weeks before the cutoff on which both methods are compared, each learned from the `weeks` before.
        week_days: Days of such a week.
        hidden_dims: Widths of the selector's layers.
        epochs: Passes over the candidates of these weeks.
        batch_size: Candidates in a batch.
        learning_rate: Of Adam at the start.
        negative_share: Share of the candidates not bought that is learned from.
    """

    generators: tuple[str, ...] = (
        "popularity_7d",
        "popularity_30d",
        "repurchase",
        "repurchase_decayed",
        "repurchase_30d",
        "repurchase_last_basket",
        "item_knn",
        "item_knn_bm25",
        "co_visitation",
        "basket_pairs",
        "customer_knn",
        "als",
        "graph_filter",
    )
    num_candidates: int = Field(default=200, ge=1)
    method: Literal["best", "selector", "quotas"] = "best"
    budget: int = Field(default=200, ge=1)
    weeks: int = Field(default=4, ge=1)
    validation_weeks: int = Field(default=1, ge=1)
    week_days: int = Field(default=7, ge=1)
    hidden_dims: tuple[int, ...] = (64, 32)
    epochs: int = Field(default=3, ge=1)
    batch_size: int = Field(default=2048, ge=1)
    learning_rate: float = Field(default=0.001, gt=0)
    negative_share: float = Field(default=0.25, gt=0, le=1)
