"""The settings of blends, of two stages with their rankers, and of the relevance classifier."""

import datetime
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tfrs_fashion.settings.base import Choice, FeaturesConfig, RecommenderConfig, Section, suggest


class NetworkRankerConfig(Section):
    """A ranking network; see `models.ranking.RankingNetwork`.

    Attributes:
        num_bins: Number of bins of each numeric feature.
        embedding_dim: Width of the embeddings of article, categories and customer; 0 leaves them and their biases out.
        hidden_dims: Widths of the dense layers; the first is also that of the crossed vector.
        num_cross: Number of cross layers.
        uses_dot: Whether the inner products of the embeddings are inputs as well.
        num_experts: Number of experts that the tasks share, each with gates of its own; 1 is a shared bottom.
        dropout: Share dropped in training.
        loss: `listwise` (softmax over a list), `pointwise` (each candidate by itself) or `lambdarank`.
        relevance_weight: Weight of the task that separates low, medium and high relevance; 0 leaves it out.
        relevance_from: Orders in the window from which a purchase has medium and high relevance.
        quantity_weight: Weight of the task that predicts the quantity; 0 leaves it out.
        list_size: Candidates per training list: all that were bought, and a sample of the others, weighted to stand for
            all of them.
        batch_lists: Lists per batch.
        learning_rate: Initial learning rate of Adam; it falls along a cosine.
        epochs: Maximum number of passes over the lists.
        patience: Epochs without a better map@k before training stops.
    """

    num_bins: int = Field(default=16, ge=1)
    embedding_dim: int = Field(default=8, ge=0)
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(128, 64), min_length=1)
    num_cross: int = Field(default=2, ge=0)
    uses_dot: bool = False
    num_experts: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    loss: Literal["pointwise", "listwise", "lambdarank"] = "listwise"
    relevance_weight: float = Field(default=0.0, ge=0)
    relevance_from: tuple[int, int] = (2, 3)
    quantity_weight: float = Field(default=0.0, ge=0)
    list_size: int = Field(default=100, ge=2)
    batch_lists: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=0.004, gt=0)
    epochs: int = Field(default=8, ge=1)
    patience: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        medium, high = self.relevance_from
        if not 1 < medium < high:
            raise ValueError(
                f"`relevance_from` is [{medium}, {high}]; expected two orders from 2 on, the second above the first"
            )
        return self


class TreesRankerConfig(Section):
    """Boosted trees of the package lightgbm.

    Attributes:
        loss: `lambdarank`, `listwise` (XE-NDCG) or `pointwise` (each candidate by itself).
        rounds: Maximum number of rounds of boosting.
        patience: Rounds without a better map@k before it stops.
        learning_rate: Learning rate of a round.
        num_leaves: Maximum number of leaves per tree.
        min_data_in_leaf: Minimum number of candidates per leaf.
        feature_share: Share of the features that a tree may use.
        row_share: Share of the candidates that a tree learns from.
        l2: Weight of the L2 penalty on leaves.
        max_bin: Maximum number of bins per feature.
    """

    loss: Literal["pointwise", "listwise", "lambdarank"] = "lambdarank"
    rounds: int = Field(default=600, ge=1)
    patience: int = Field(default=50, ge=1)
    learning_rate: float = Field(default=0.03, gt=0)
    num_leaves: int = Field(default=31, ge=2)
    min_data_in_leaf: int = Field(default=200, ge=1)
    feature_share: float = Field(default=0.5, gt=0, le=1)
    row_share: float = Field(default=0.7, gt=0, le=1)
    l2: float = Field(default=5.0, ge=0)
    max_bin: int = Field(default=127, ge=2)


class BlendConfig(RecommenderConfig):
    """The candidates of several recommenders in one pool, ordered by what was bought from such pools in past weeks.

    Attributes:
        generators: Names of the recommenders whose candidates are pooled.
        num_candidates: Number of candidates requested from each generator.
        method: `selector` learns from past weeks which candidates are bought; `quotas` takes from each generator as
            many as paid off in past weeks; `best` is whichever had the higher recall in the last weeks before the
            cutoff.
        budget: Candidates per customer for which quotas are fitted, and at which both methods are compared.
        weeks: Number of past weeks to learn from. The generators of each are fitted before it.
        validation_weeks: Number of last weeks before the cutoff on which both methods are compared, each fitted on the
            `weeks` before.
        week_days: Days of such a week.
        hidden_dims: Widths of the selector's layers.
        epochs: Number of passes over the candidates of these weeks.
        batch_size: Candidates per batch.
        learning_rate: Initial learning rate of Adam; it falls to a tenth.
        negative_share: Share of the candidates not bought that are sampled for training.
    """

    kind: Literal["blend"] = "blend"
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

    reads_features: ClassVar[bool] = True
    chooses: ClassVar[Choice] = "method"
    learns_from_weeks: ClassVar[bool] = True

    def made_from(self, known: Mapping[str, RecommenderConfig]) -> tuple[str, ...]:
        """Returns the generators; see `RecommenderConfig`."""
        return self.generators

    def blend_of(self, name: str) -> str:
        """Returns its own name; see `RecommenderConfig`."""
        return name

    def check_parts(self, name: str, known: Mapping[str, RecommenderConfig]) -> None:
        """Checks the generators; see `RecommenderConfig`."""
        if len(set(self.generators)) < len(self.generators) or not self.generators:
            raise ValueError(f"`recommender.{name}.generators` must name each generator once, and at least one")
        for part in self.generators:
            if part not in known:
                raise ValueError(
                    f"`recommender.{name}.generators` names the unknown recommender `{part}`; {suggest(part, known)}"
                )
            if known[part].learns_from_weeks:
                raise ValueError(
                    f"`recommender.{name}.generators` names `{part}`, which is made from a blend or is one; leave it out"
                )


class TwoStageConfig(RecommenderConfig):
    """The candidates of a blend, in the order of rankers that read features of customer, article and both.

    Attributes:
        blend: Name of the blend whose generators give the candidates.
        rankers: `network`, `lightgbm`, or both, which are combined.
        combination: How several rankers are combined: `score` is the mean of their probabilities, `reciprocal_rank`
            that of their reciprocal ranks.
        num_candidates: Number of the blend's best candidates that are ranked.
        weeks: Number of past weeks that the rankers learn from, each of the blend's `week_days`. The generators of each
            are fitted before it.
        blend_weeks: Number of weeks before these from which the first stage learns which candidates to keep.
        similar: Recommenders whose score of each candidate is a feature, of kinds that score any article. They are
            fitted once, before the first of the weeks.
        groups: Columns of articles by which the customer's history is aggregated, beside the article itself; empty for
            those with a role and the product code.
        network: Settings of the network.
        lightgbm: Settings of the boosted trees.
    """

    kind: Literal["two_stage"] = "two_stage"
    blend: str = "blend"
    rankers: tuple[Literal["network", "lightgbm"], ...] = Field(default=("network",), min_length=1)
    combination: Literal["score", "reciprocal_rank"] = "score"
    num_candidates: int = Field(default=200, ge=1)
    weeks: int = Field(default=4, ge=2)
    blend_weeks: int = Field(default=2, ge=1)
    similar: tuple[str, ...] = ("two_tower",)
    groups: tuple[str, ...] = ()
    network: NetworkRankerConfig = NetworkRankerConfig()
    lightgbm: TreesRankerConfig = TreesRankerConfig()

    reads_features: ClassVar[bool] = True
    chooses: ClassVar[Choice] = "rankers"
    learns_from_weeks: ClassVar[bool] = True

    @property
    def predicts_probabilities(self) -> bool:
        """Whether scores are purchase probabilities: reciprocal ranks are not."""
        return self.combination == "score"

    def made_from(self, known: Mapping[str, RecommenderConfig]) -> tuple[str, ...]:
        """Returns the generators of its blend; see `RecommenderConfig`."""
        return known[self.blend].made_from(known)

    def blend_of(self, name: str) -> str:
        """Returns the blend that gives its candidates; see `RecommenderConfig`."""
        return self.blend

    def scores_from(self) -> tuple[str, ...]:
        """Returns the recommenders whose scores are features; see `RecommenderConfig`."""
        return self.similar

    def check_parts(self, name: str, known: Mapping[str, RecommenderConfig]) -> None:
        """Checks that its candidates come from a blend; see `RecommenderConfig`."""
        if not isinstance(known.get(self.blend), BlendConfig):
            blends = [other for other, settings in known.items() if isinstance(settings, BlendConfig)]
            raise ValueError(
                f"`recommender.{name}.blend` is `{self.blend}`, which is not a recommender of kind blend; set it to one of "
                f"{', '.join(blends)}"
            )

    def check(self, name: str, features: FeaturesConfig, known: Mapping[str, RecommenderConfig]) -> None:
        """Checks that similar recommenders score articles; see `RecommenderConfig`."""
        scoring = [other for other, settings in known.items() if settings.scores_articles]
        if others := [similar for similar in self.similar if similar not in scoring]:
            raise ValueError(
                f"`recommender.{name}.similar` names `{others[0]}`, which does not score any article it is asked for; "
                f"name some of {', '.join(scoring)}"
            )


class RelevanceConfig(Section):
    """The relevance classifier: how often a customer buys an article.

    Attributes:
        cutoff: The first day that features do not see and labels count; half of the days by default.
        medium_from: Orders from which the relevance of a pair is medium.
        high_from: Orders from which it is high.
        label: `orders` counts only them; `orders_and_quantity` raises the class of a pair by one if its orders hold
            `bulk_factor` times the article's usual number of pieces.
        bulk_factor: The factor for `label`.
        has_none: Whether pairs that are not bought again are a fourth class, instead of being left out.
        num_folds: Number of groups of customers, each predicted by models that learned from the others.
        num_text_buckets: Hash buckets for the words of descriptions.
        num_bins: Number of bins of a numeric feature.
        embedding_dim: Width of the embeddings of customer, article and words.
        hidden_dims: Widths of the dense layers.
        dropout: Share dropped in training, in models with dropout.
        batch_size: Pairs per batch.
        learning_rate: Initial learning rate of Adam.
        epochs: Number of passes over the pairs; the maximum in models that stop early.
        patience: Epochs without a better macro-F1 before such a model stops.
    """

    cutoff: datetime.date | None = None
    medium_from: int = Field(default=3, ge=2)
    high_from: int = Field(default=5, ge=3)
    label: Literal["orders", "orders_and_quantity"] = "orders"
    bulk_factor: float = Field(default=2.0, gt=1)
    has_none: bool = False
    num_folds: int = Field(default=5, ge=2)
    num_text_buckets: int = Field(default=2048, ge=1)
    num_bins: int = Field(default=16, ge=1)
    embedding_dim: int = Field(default=16, ge=1)
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = (64, 32)
    dropout: float = Field(default=0.3, gt=0, lt=1)
    batch_size: int = Field(default=512, ge=1)
    learning_rate: float = Field(default=0.002, gt=0)
    epochs: int = Field(default=8, ge=1)
    patience: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.high_from <= self.medium_from:
            raise ValueError(
                f"`high_from` is {self.high_from}; expected more orders than `medium_from`, which is {self.medium_from}"
            )
        return self
