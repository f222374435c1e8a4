"""The section `[recommender]` of a pipeline file: recommenders by name, each of a kind with its settings.

A new kind is a class here, a member of `AnyRecommenderConfig` and a row in `PRESETS`.
"""

import typing
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tfrs_fashion.settings.base import CategoryEncoding, Choice, FeaturesConfig, RecommenderConfig, suggest
from tfrs_fashion.settings.rankers import BlendConfig, TwoStageConfig
from tfrs_fashion.settings.sequences import FashionDnaConfig, NextCategoryConfig, SequentialConfig, TwoTowerConfig

# Columns of transactions by which popularity may be counted, and the attribute of timelines that holds them.
EVENT_GROUPS: dict[str, Literal["store_index", "sales_channel_id"]] = {
    "store_id": "store_index",
    "sales_channel_id": "sales_channel_id",
}


class PopularityConfig(RecommenderConfig):
    """What sells, to everyone or to a group.

    Attributes:
        days: Number of days before the cutoff whose baskets count.
        by: A profile feature, `store_id`, `sales_channel_id` or a categorical feature of articles. Customers are shown
            what sells to those who share their value, or in the categories of which they buy most; empty for everyone.
        trend: Whether sales are multiplied by their growth over as many days before; a new article is given the average
            of all as its past.
    """

    kind: Literal["popularity"] = "popularity"
    days: int = Field(default=7, ge=1)
    by: str = ""
    trend: bool = False

    is_constant: ClassVar[bool] = True

    @property
    def depends_on_features(self) -> bool:
        """Whether it is counted by a declared feature."""
        return bool(self.by)

    def check(self, name: str, features: FeaturesConfig, known: Mapping[str, RecommenderConfig]) -> None:
        """Checks that the groups are declared; see `RecommenderConfig`."""
        groups = (*features.profile, *EVENT_GROUPS, *features.categorical)
        if self.by and self.by not in groups:
            raise ValueError(
                f"`recommender.{name}.by` is `{self.by}`, which is no profile feature, no column of transactions that "
                f"groups, and no categorical feature of articles; {suggest(self.by, groups)}"
            )


class SiblingsConfig(RecommenderConfig):
    """Articles never sold, by the sales of their other colours."""

    kind: Literal["siblings"] = "siblings"

    is_constant: ClassVar[bool] = True
    is_new_arrivals: ClassVar[bool] = True
    needs_product_codes: ClassVar[bool] = True


class RepurchaseConfig(RecommenderConfig):
    """What the customer bought before.

    Attributes:
        days: Number of days before now that count; 0 for all.
        last_basket: Whether only the last basket counts.
        half_life_days: Age in days at which a basket counts half; 0 for a plain count.
        in_store_only: Whether articles that are not in store at the cutoff are left out. Where "in store" is inferred
            from the sales of the last `split.in_store_days`, returning customers may know better: a wide pool of
            candidates can gain.
    """

    kind: Literal["repurchase"] = "repurchase"
    days: int = Field(default=0, ge=0)
    last_basket: bool = False
    half_life_days: float = Field(default=0.0, ge=0)
    in_store_only: bool = True


class NeighboursConfig(RecommenderConfig):
    """What tables of neighbours have in common.

    Attributes:
        num_neighbours: Neighbours per article.
        history_articles: Number of strongest articles of a history that are read.
        half_life_days: Age in days at which a purchase of the history weighs half.
    """

    num_neighbours: int = Field(default=100, ge=1)
    history_articles: int = Field(default=100, ge=1)
    half_life_days: float = Field(default=60.0, gt=0)


class ItemKnnConfig(NeighboursConfig):
    """Articles that the same customers bought.

    Attributes:
        similarity: `cosine`, or `bm25`, under which further purchases of one article and customers who buy everything
            count less and less.
        matrix_half_life_days: Age in days at which a purchase counts half in the similarity; 0 for no decay.
    """

    kind: Literal["item_knn"] = "item_knn"
    similarity: Literal["cosine", "bm25"] = "cosine"
    matrix_half_life_days: float = Field(default=0.0, ge=0)


class CoVisitationConfig(NeighboursConfig):
    """What customers bought after an article.

    Attributes:
        num_baskets: Number of later baskets that count.
        gap_half_life_days: Days between the two baskets at which a pair counts half.
        matrix_half_life_days: Age in days of the later basket at which a pair counts half.
        popularity_power: Power of the later article's sales that a pair is divided by.
    """

    kind: Literal["co_visitation"] = "co_visitation"
    num_baskets: int = Field(default=3, ge=1)
    gap_half_life_days: float = Field(default=14.0, gt=0)
    matrix_half_life_days: float = Field(default=60.0, gt=0)
    popularity_power: float = Field(default=0.0, ge=0, le=1)


class BasketPairsConfig(NeighboursConfig):
    """Articles of one basket, by lift.

    Attributes:
        days: Number of days before the cutoff that count.
        min_baskets: Pairs in fewer baskets are left out: lift is largest, and worth least, where counts are small.
    """

    kind: Literal["basket_pairs"] = "basket_pairs"
    days: int = Field(default=365, ge=1)
    min_baskets: int = Field(default=5, ge=1)


class SameProductConfig(NeighboursConfig):
    """Other colours and sizes of what was bought.

    Attributes:
        days: Number of days before the cutoff whose sales rank the articles of a design.
    """

    kind: Literal["same_product"] = "same_product"
    days: int = Field(default=28, ge=1)

    needs_product_codes: ClassVar[bool] = True


class CustomerKnnConfig(RecommenderConfig):
    """Recent purchases of the customers who bought the same articles.

    Attributes:
        num_buyers: Number of latest buyers of an article that are read.
        num_recent: Number of latest articles of a neighbour that are summed.
        num_neighbours: Number of customers whose articles are summed.
        history_articles: Number of strongest articles of a history that are read.
        half_life_days: Age in days at which a purchase of the history weighs half.
    """

    kind: Literal["customer_knn"] = "customer_knn"
    num_buyers: int = Field(default=200, ge=1)
    num_recent: int = Field(default=50, ge=1)
    num_neighbours: int = Field(default=100, ge=1)
    history_articles: int = Field(default=50, ge=1)
    half_life_days: float = Field(default=60.0, gt=0)


class AlsConfig(RecommenderConfig):
    """Matrix factorisation by alternating least squares, of the package implicit.

    Attributes:
        factors: Width of the factors.
        iterations: Number of alternations.
        regularization: Weight of the penalty on both sides' factors.
        alpha: Confidence of a fresh basket.
        half_life_days: Age in days at which a basket weighs half.
    """

    kind: Literal["als"] = "als"
    factors: int = Field(default=128, ge=1)
    iterations: int = Field(default=15, ge=1)
    regularization: float = Field(default=0.05, ge=0)
    alpha: float = Field(default=1.0, gt=0)
    half_life_days: float = Field(default=30.0, gt=0)

    scores_articles: ClassVar[bool] = True


class BprConfig(RecommenderConfig):
    """Matrix factorisation by Bayesian personalised ranking, of the package implicit.

    Attributes:
        factors: Width of the factors.
        iterations: Number of passes over the purchases.
        learning_rate: Learning rate of stochastic gradient descent.
        regularization: Weight of the penalty on both sides' factors.
    """

    kind: Literal["bpr"] = "bpr"
    factors: int = Field(default=64, ge=1)
    iterations: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=0.01, gt=0)
    regularization: float = Field(default=0.01, ge=0)

    scores_articles: ClassVar[bool] = True


class GraphFilterConfig(RecommenderConfig):
    """Purchases propagated through the graph of customers and articles.

    Attributes:
        dim: Number of smoothest directions that are kept; fewer where there are fewer customers or articles.
        matrix_half_life_days: Age in days at which a purchase counts half in the graph; 0 for no decay.
        half_life_days: Age in days at which a purchase of the history weighs half.
    """

    kind: Literal["graph_filter"] = "graph_filter"
    dim: int = Field(default=128, ge=1)
    matrix_half_life_days: float = Field(default=0.0, ge=0)
    half_life_days: float = Field(default=60.0, gt=0)


class BasketMlpConfig(RecommenderConfig):
    """The multi-layer perceptron over baskets.

    Attributes:
        hidden_dims: Widths of the hidden layers.
        epochs: Maximum number of passes over the baskets.
        batch_size: Baskets per batch.
        learning_rate: Learning rate of Adam.
        dropout: Share of each hidden layer dropped in training.
        history_articles: Number of articles of a history that are read, those bought last.
        target_days: Number of days before the cutoff whose baskets are targets.
    """

    kind: Literal["basket_mlp"] = "basket_mlp"
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(100,), min_length=1)
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=0.001, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    history_articles: int = Field(default=500, ge=1)
    target_days: int = Field(default=308, ge=1)

    chooses: ClassVar[Choice] = "epochs"


class BaseTwoTowerConfig(RecommenderConfig):
    """Two towers of who the customer is and what the article is, trained to separate purchases from random pairs.

    Attributes:
        embedding_dim: Width of both towers.
        encoding: Encoding of the indices and of the categorical features: `one_hot` or `embedding`.
        hidden_dims: Widths of deep towers; empty for shallow ones.
        epochs: Maximum number of passes over the baskets.
        batch_size: Baskets per batch.
        learning_rate: Learning rate of Adam.
    """

    kind: Literal["base_two_tower"] = "base_two_tower"
    embedding_dim: int = Field(default=64, ge=1)
    encoding: CategoryEncoding = "embedding"
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = ()
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=512, ge=1)
    learning_rate: float = Field(default=0.001, gt=0)

    scores_articles: ClassVar[bool] = True
    reads_features: ClassVar[bool] = True
    chooses: ClassVar[Choice] = "epochs"


class RestrictedConfig(RecommenderConfig):
    """What the customer bought lately, in the order of another recommender's scores.

    Attributes:
        of: The name of that recommender, of a kind that scores any article, such as `two_tower` or `als`.
        days: Number of days before now whose purchases are candidates.
    """

    kind: Literal["restricted"] = "restricted"
    of: str = "two_tower"
    days: int = Field(default=30, ge=1)

    def made_from(self, known: Mapping[str, RecommenderConfig]) -> tuple[str, ...]:
        """Returns the recommender whose scores it takes; see `RecommenderConfig`."""
        return (self.of,)

    def check_parts(self, name: str, known: Mapping[str, RecommenderConfig]) -> None:
        """Checks that the other recommender scores articles; see `RecommenderConfig`."""
        scoring = [other for other, settings in known.items() if settings.scores_articles]
        if self.of not in scoring:
            raise ValueError(
                f"`recommender.{name}.of` is `{self.of}`, which does not score any article it is asked for; set it to "
                f"one of {', '.join(scoring)}"
            )


AnyRecommenderConfig = Annotated[
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
    | TwoTowerConfig
    | SequentialConfig
    | NextCategoryConfig
    | FashionDnaConfig
    | BlendConfig
    | TwoStageConfig,
    Field(discriminator="kind"),
]

CONFIGS: dict[str, type[RecommenderConfig]] = {
    section.model_fields["kind"].default: section
    for section in typing.get_args(typing.get_args(AnyRecommenderConfig)[0])
}

# The names that every pipeline knows; it may change their settings, and add names of its own.
PRESETS: dict[str, RecommenderConfig] = {
    "two_tower": TwoTowerConfig(),
    "popularity_7d": PopularityConfig(days=7),
    "popularity_30d": PopularityConfig(days=30),
    "popularity_trend": PopularityConfig(days=14, trend=True),
    "popularity_siblings": SiblingsConfig(),
    "repurchase": RepurchaseConfig(),
    "repurchase_last_basket": RepurchaseConfig(last_basket=True),
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
    "base_two_tower": BaseTwoTowerConfig(),
    "fashion_dna": FashionDnaConfig(),
    "gru": SequentialConfig(tower="gru"),
    "lstm": SequentialConfig(tower="lstm"),
    "attention": SequentialConfig(tower="attention", num_layers=2),
    "next_category": NextCategoryConfig(),
    "blend": BlendConfig(),
    "two_stage": TwoStageConfig(),
    "two_stage_lightgbm": TwoStageConfig(rankers=("lightgbm",)),
}
