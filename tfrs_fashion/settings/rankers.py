"""The settings of rankers and of two stages in a pipeline file."""

import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tfrs_fashion.settings.base import Section


class NetworkRankerConfig(Section):
    """A ranking network; see `models.ranking.RankingNetwork`.

    Attributes:
        num_bins: Bins of each number.
        embedding_dim: Width of the embeddings of article, categories and customer; 0 leaves them and their biases out.
        hidden_dims: Widths of the dense layers; the first is that of what is crossed, too.
        num_cross: Cross layers.
        uses_dot: Whether the inner products of the embeddings are told as well.
        num_experts: Experts that the tasks share, each by weights of its own; 1 is a shared bottom.
        dropout: Share that is left out in training.
        loss: `listwise` (softmax over a list), `pointwise` (each candidate by itself) or `lambdarank`.
        relevance_weight: Of the task of telling low, medium and high relevance apart; 0 leaves it out.
        relevance_from: Orders of the window from which a purchase is of medium and of high relevance.
        quantity_weight: Of the task of telling how many are bought; 0 leaves it out.
        list_size: Candidates of a list that are learned from: all that was bought, and a sample of the others, which stand
            for all of them.
        batch_lists: Lists in a batch.
        learning_rate: Of Adam at the start; it falls along a cosine.
        epochs: At most so many passes over the lists.
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
        rounds: At most so many rounds of boosting.
        patience: Rounds without a better map@k before it stops.
        learning_rate: Of a round.
        num_leaves: Of a tree.
        min_data_in_leaf: Candidates in a leaf, at least.
        feature_share: Of the features that a tree may use.
        row_share: Of the candidates that a tree learns from.
        l2: Penalty of leaves.
        max_bin: Bins of a feature.
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


class TwoStageConfig(Section):
    """The candidates of the blend, in the order of rankers that are told of customer, article and both.

    Attributes:
        kind: `two_stage`.
        rankers: `network`, `lightgbm`, or both, which are combined.
        combination: Of several rankers: `score` is the mean of their probabilities, `reciprocal_rank` that of their places.
        num_candidates: Of the blend's pool, the best, that are put in order.
        weeks: Past weeks that the rankers learn from, `blend.week_days` each. The generators of each are fitted before it.
        blend_weeks: Weeks before these that the blend learns from which candidates to keep.
        similar: Recommenders whose score of each candidate is a feature: `two_tower`, towers over sequences, and generators of
            kind `als`, `bpr` or `base_two_tower`. They are fitted once, before the first of the weeks.
        groups: Columns of articles by which the customer's history is told of, beside the article itself.
        network: See `NetworkRankerConfig`.
        lightgbm: See `TreesRankerConfig`.
    """

    kind: Literal["two_stage"] = "two_stage"
    rankers: tuple[Literal["network", "lightgbm"], ...] = Field(default=("network",), min_length=1)
    combination: Literal["score", "reciprocal_rank"] = "score"
    num_candidates: int = Field(default=200, ge=1)
    weeks: int = Field(default=4, ge=2)
    blend_weeks: int = Field(default=2, ge=1)
    similar: tuple[str, ...] = ("two_tower",)
    groups: tuple[str, ...] = ()
    network: NetworkRankerConfig = NetworkRankerConfig()
    lightgbm: TreesRankerConfig = TreesRankerConfig()


class RelevanceConfig(Section):
    """The relevance classifier: how often a customer buys an article.

    Attributes:
        cutoff: The first day that features do not see and labels count; half of the days by default.
        medium_from: Orders from which the relevance of a pair is medium.
        high_from: Orders from which it is high.
        label: `orders` counts them alone; `orders_and_quantity` raises the class of a pair whose orders hold `bulk_factor` times
            the pieces that are usual for the article, by one.
        bulk_factor: See `label`.
        has_none: Whether pairs that are not bought again are a fourth class, and not left out.
        num_folds: Parts of the customers, each of which is told by models that learned from the others.
        num_text_buckets: Hash buckets of the words of descriptions.
        num_bins: Bins of a number.
        embedding_dim: Width of the embeddings of customer, article and words.
        hidden_dims: Widths of the dense layers.
        dropout: Share that is left out in training, where a model has dropout.
        batch_size: Pairs in a batch.
        learning_rate: Of Adam at the start.
        epochs: Passes over the pairs; at most so many where a model stops early.
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
