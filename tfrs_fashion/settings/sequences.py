"""The settings of recommenders with trained encoders of articles: two towers, Fashion DNA and towers over sequences."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tfrs_fashion.settings.base import CategoryEncoding, Choice, FeaturesConfig, NumberEncoding, RecommenderConfig

EventFeature = Literal["gap", "season", "price", "discount", "sales_channel_id"]


class EncoderConfig(RecommenderConfig):
    """What recommenders with a trained encoder of articles have in common.

    Attributes:
        categorical_encoding: `one_hot` (a matrix over the joined one-hot vectors) or `embedding` (a narrow embedding of
            each feature, joined and projected).
        number_encoding: Bins of a numeric feature: `quantile` (equally many rows in each) or `log` (equally wide in the
            logarithm, which separates the few articles that sell most).
        num_bins: Number of bins of a numeric feature.
    """

    categorical_encoding: CategoryEncoding = "one_hot"
    number_encoding: NumberEncoding = "log"
    num_bins: int = Field(default=16, ge=1)

    reads_features: ClassVar[bool] = True
    chooses: ClassVar[Choice] = "epochs"


class TwoTowerConfig(EncoderConfig):
    """Two networks that put customers (profile and history) and articles (id, content and sales) into one space: the articles
    nearest to the customer.

    Attributes:
        embedding_dim: Width of the embeddings.
        history_length: Number of latest events of a history that are counted.
        history_articles: Number of articles of a history that the query tower reads, those bought most and latest; 0
            for none.
        time_scales_days: Time constants of the decayed counts; the middle one chooses and weighs these articles.
        num_steps: Number of steps that make the history's vector agree with its weights.
        content_scale: Initial length of the embedding of an article's content; that of its own embedding is 1.
        hidden_dims: Widths of the layers of deep towers; empty for shallow ones.
        min_baskets: Articles in fewer baskets have no embedding of their own, only content.
        min_customer_baskets: Customers with fewer training baskets have no embedding of their own.
        article_dropout: Share of a batch's articles that are represented by their content alone, like articles never
            sold.
        customer_dropout: Share of a batch's customers without their own embedding, like customers never seen.
        temperature: Initial divisor of the cosine; it is learned.
        target_days: Number of days before the cutoff whose baskets are targets.
        new_weight: Weight of a target that the customer had not bought before.
        batch_size: Baskets per batch.
        num_sampled_negatives: Expected number of sampled candidates per batch, beside those of the baskets.
        learning_rate: Initial learning rate of Adam; it falls to a twentieth over `epochs`.
        steps_per_epoch: Batches between two validations; 0 for a whole pass over the targets.
        epochs: Maximum number of epochs; early stopping may choose fewer.
        patience: Epochs without a better validation map@k before training stops.
    """

    kind: Literal["two_tower"] = "two_tower"
    embedding_dim: int = Field(default=128, ge=2)
    history_length: int = Field(default=512, ge=1)
    history_articles: int = Field(default=64, ge=0)
    time_scales_days: tuple[float, ...] = Field(default=(10.0, 30.0, 120.0, 400.0), min_length=1)
    num_steps: int = Field(default=3, ge=0)
    content_scale: float = Field(default=0.1, ge=0)
    hidden_dims: tuple[int, ...] = ()
    min_baskets: int = Field(default=5, ge=1)
    min_customer_baskets: int = Field(default=2, ge=1)
    article_dropout: float = Field(default=0.1, ge=0, lt=1)
    customer_dropout: float = Field(default=0.1, ge=0, lt=1)
    temperature: float = Field(default=0.07, gt=0)
    target_days: int = Field(default=308, ge=1)
    new_weight: float = Field(default=0.3, ge=0)
    batch_size: int = Field(default=256, ge=2)
    num_sampled_negatives: int = Field(default=4000, ge=0)
    learning_rate: float = Field(default=0.005, gt=0)
    steps_per_epoch: int = Field(default=0, ge=0)
    epochs: int = Field(default=2, ge=1)
    patience: int = Field(default=2, ge=1)

    scores_articles: ClassVar[bool] = True
    chooses_cold_start: ClassVar[bool] = True
    has_index: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check_time_scales(self) -> Self:
        if not all(scale > 0 for scale in self.time_scales_days):
            raise ValueError("`time_scales_days` must all be above 0")
        return self


class FashionDnaConfig(EncoderConfig):
    """Customers' lasting styles over vectors of what articles are made of, by a factorisation of who bought what.

    Attributes:
        dim: Width of Fashion DNA, the narrow layer.
        hidden_dims: Widths of the layers before it.
        content_dim: Width of the sum of categories, numbers, words and images before these layers.
        dropout: Share of each hidden layer dropped in training.
        min_articles: Customers who bought fewer distinct articles have no style, and get nothing.
        batch_size: Articles per batch, each against all customers with a style.
        learning_rate: Learning rate of Adam.
        epochs: Maximum number of passes over the articles sold.
        patience: Epochs without a better validation map@k before training stops.
    """

    kind: Literal["fashion_dna"] = "fashion_dna"
    dim: int = Field(default=128, ge=1)
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = (256,)
    content_dim: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    min_articles: int = Field(default=5, ge=1)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=0.002, gt=0)
    epochs: int = Field(default=20, ge=1)
    patience: int = Field(default=3, ge=1)

    scores_articles: ClassVar[bool] = True


class SequenceConfig(EncoderConfig):
    """What towers that read purchases in their order have in common.

    Attributes:
        tower: `gru`, `lstm` or `attention` (self-attention).
        embedding_dim: Width of the articles' embeddings.
        hidden_dim: Width of the tower's states; self-attention needs a multiple of `num_heads`.
        history_length: Number of latest events of a history that are read.
        num_layers: Number of layers of the tower.
        num_heads: Number of heads of self-attention.
        dropout: Share of the inputs and of each layer dropped in training.
        event_features: Features of each purchase beside its article: `gap` (days until the next one), `season`,
            `price`, `discount`, `sales_channel_id`.
        customer_embedding: Whether customers have an embedding of their own, beside their profile.
        content_scale: Initial length of the embedding of an article's content; that of its own embedding is 1.
        min_baskets: Articles in fewer baskets have no embedding of their own, only content.
        article_dropout: Share of a batch's articles that are represented by their content alone, like articles never
            sold.
        target_days: Number of days before the cutoff whose baskets are targets; older ones are history only.
        batch_events: Events per batch, padding included.
        learning_rate: Highest learning rate of Adam: it rises for a while and falls along a cosine.
        epochs: Maximum number of passes.
        patience: Epochs without a better validation map@k before training stops.
    """

    tower: Literal["gru", "lstm", "attention"] = "gru"
    embedding_dim: int = Field(default=128, ge=2)
    hidden_dim: int = Field(default=128, ge=2)
    history_length: int = Field(default=50, ge=2)
    num_layers: int = Field(default=1, ge=1)
    num_heads: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.4, ge=0, lt=1)
    event_features: tuple[EventFeature, ...] = ("gap", "price", "discount")
    customer_embedding: bool = False
    content_scale: float = Field(default=0.5, ge=0)
    min_baskets: int = Field(default=1, ge=1)
    article_dropout: float = Field(default=0.1, ge=0, lt=1)
    target_days: int = Field(default=730, ge=1)
    batch_events: int = Field(default=2048, ge=2)
    learning_rate: float = Field(default=0.001, gt=0)
    epochs: int = Field(default=20, ge=1)
    patience: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.tower == "attention" and self.hidden_dim % self.num_heads:
            raise ValueError(f"`hidden_dim` is {self.hidden_dim}, which `num_heads`, {self.num_heads}, does not divide")
        return self


class SequentialConfig(SequenceConfig):
    """A network that reads purchases in their order, as vectors of the articles, and predicts what comes next.

    Attributes:
        loss: `full_softmax` over all articles, if the catalogue is small enough; `in_batch`, a softmax over the targets
            of the batch and sampled articles, with logQ correction; `sampled_softmax`, `sampled_sigmoid`,
            `sigmoid_rank` and `calibrated_sigmoid` (gBCE) over `num_negatives` articles in store at the time of each
            target.
        vectors_of: A recommender of kind `fashion_dna` whose vectors, of its own width, represent the articles; empty
            if they are learned here.
        fine_tune: Whether those vectors are trained further, or stay as they are.
        masked_share: Share of the baskets that are hidden and predicted from those before and after them, as in
            BERT4Rec (`attention` only); 0 predicts each purchase from those before it. Only the event features `gap`
            (here the days since the purchase before) and `season` can be combined with it.
        temperature: Initial divisor of the cosine; it is learned.
        num_negatives: Negatives per target, with the losses over articles in store.
        num_sampled_negatives: Expected number of further candidates per batch, with `in_batch`.
        calibration: Calibration of `calibrated_sigmoid`, from 0 (plain cross-entropy) to 1.
        shuffle: Trains on histories in random order, to measure what their order is worth.
        serves_cold_start: Whether customers without a history are served by what begins a history like theirs, and not
            by the fallback. If the validation window has enough of them, whichever served them better there is used
            instead.
    """

    kind: Literal["sequential"] = "sequential"
    loss: Literal[
        "full_softmax", "in_batch", "sampled_softmax", "sampled_sigmoid", "sigmoid_rank", "calibrated_sigmoid"
    ] = "in_batch"
    vectors_of: str = ""
    fine_tune: bool = False
    masked_share: float = Field(default=0.0, ge=0, lt=1)
    temperature: float = Field(default=0.07, gt=0)
    num_negatives: int = Field(default=20, ge=1)
    num_sampled_negatives: int = Field(default=4000, ge=0)
    calibration: float = Field(default=0.75, ge=0, le=1)
    shuffle: bool = False
    serves_cold_start: bool = True

    scores_articles: ClassVar[bool] = True
    chooses_cold_start: ClassVar[bool] = True
    has_index: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check_masking(self) -> Self:
        if not self.masked_share:
            return self
        if self.tower != "attention":
            raise ValueError(f'`masked_share` is for the tower "attention", and this is "{self.tower}"')
        if leaking := [name for name in self.event_features if name not in {"gap", "season"}]:
            raise ValueError(
                f"`event_features` holds {', '.join(leaking)}, which would reveal a hidden purchase; keep only gap and season "
                "with `masked_share`"
            )
        return self

    def made_from(self, known: Mapping[str, RecommenderConfig]) -> tuple[str, ...]:
        """Returns the recommender that gives the vectors, if any; see `RecommenderConfig`."""
        return (self.vectors_of,) if self.vectors_of else ()

    def check_parts(self, name: str, known: Mapping[str, RecommenderConfig]) -> None:
        """Checks that the vectors come from Fashion DNA; see `RecommenderConfig`."""
        styles = [other for other, settings in known.items() if isinstance(settings, FashionDnaConfig)]
        if self.vectors_of and self.vectors_of not in styles:
            raise ValueError(
                f"`recommender.{name}.vectors_of` is `{self.vectors_of}`, which is not a recommender of kind fashion_dna; "
                f"set it to one of {', '.join(styles)}"
            )


class NextCategoryConfig(SequenceConfig):
    """A network that predicts from which categories a customer buys next, and what sells in these.

    Attributes:
        category: A categorical feature of articles; empty for `features.roles.category`.
        num_categories: Number of likeliest categories of a customer, from which everything is recommended.
        days: Number of days before the cutoff whose baskets count as sales.
    """

    kind: Literal["next_category"] = "next_category"
    tower: Literal["gru", "lstm", "attention"] = "lstm"
    category: str = ""
    num_categories: int = Field(default=3, ge=1)
    days: int = Field(default=7, ge=1)

    def check(self, name: str, features: FeaturesConfig, known: Mapping[str, RecommenderConfig]) -> None:
        """Checks that the category is a declared feature; see `RecommenderConfig`."""
        category, declared = self.category or features.roles.category, features.categorical
        if category not in declared:
            raise ValueError(
                f"`recommender.{name}.category` (or else `features.roles.category`) is `{category}`, which is none of "
                f"`features.categorical`; set it to one of {', '.join(declared) or 'those, once there are any'}"
            )
