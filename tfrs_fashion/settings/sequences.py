"""The settings of Fashion DNA and of sequential query towers in a pipeline file."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tfrs_fashion.settings.base import CategoryEncoding, NumberEncoding, Section

EventFeature = Literal["gap", "season", "price", "discount", "sales_channel_id"]


class FashionDnaConfig(Section):
    """Customers' lasting styles over vectors of what articles are made of, by a factorisation of who bought what.

    Attributes:
        kind: `fashion_dna`.
        dim: Width of Fashion DNA, the narrow layer.
        hidden_dims: Widths of the layers before it.
        content_dim: Width of what categories, numbers, words and images add up to before these.
        dropout: Share of each hidden layer that is left out in training.
        min_articles: Customers who bought fewer different articles have no style, and get nothing.
        categorical_encoding: See `TwoTowerConfig`.
        number_encoding: See `TwoTowerConfig`.
        num_bins: See `TwoTowerConfig`.
        batch_size: Articles in a batch, each against all customers with a style.
        learning_rate: Of Adam.
        epochs: At most so many passes over the articles sold.
        patience: Epochs without a better validation map@k before training stops.
    """

    kind: Literal["fashion_dna"] = "fashion_dna"
    dim: int = Field(default=128, ge=1)
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = (256,)
    content_dim: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    min_articles: int = Field(default=5, ge=1)
    categorical_encoding: CategoryEncoding = "one_hot"
    number_encoding: NumberEncoding = "log"
    num_bins: int = Field(default=16, ge=1)
    batch_size: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=0.002, gt=0)
    epochs: int = Field(default=20, ge=1)
    patience: int = Field(default=3, ge=1)


class SequenceConfig(Section):
    """What towers that read purchases in their order have in common.

    Attributes:
        tower: `gru`, `lstm` or `attention` (self-attention).
        embedding_dim: Width of the articles' embeddings.
        hidden_dim: Width of the tower's states; self-attention needs a multiple of `num_heads`.
        history_length: Last events of a history that are read.
        num_layers: Layers of the tower.
        num_heads: Heads of self-attention.
        dropout: Share of inputs and of each layer that is left out in training.
        event_features: Of each purchase beside its article: `gap` (days until the next one), `season`, `price`, `discount`,
            `sales_channel_id`.
        customer_embedding: Whether customers have an embedding of their own, beside their profile.
        content_scale: Length that an article's content starts with; its own embedding has length 1.
        categorical_encoding: See `TwoTowerConfig`.
        number_encoding: See `TwoTowerConfig`.
        num_bins: See `TwoTowerConfig`.
        min_baskets: Articles in fewer baskets have no embedding of their own, only content.
        article_dropout: Share of the articles of a batch that are their content alone, as articles never sold are.
        target_days: Days before the cutoff whose baskets are targets; older ones are history only.
        batch_events: Events in a batch, padding included.
        learning_rate: Of Adam at its highest: it rises for a while and falls along a cosine.
        epochs: At most so many passes.
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
    categorical_encoding: CategoryEncoding = "one_hot"
    number_encoding: NumberEncoding = "log"
    num_bins: int = Field(default=16, ge=1)
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
    """A network that reads purchases in their order, as vectors of the articles, and tells what comes next.

    Attributes:
        kind: `sequential`. For what is not named here see `SequenceConfig`.
        loss: `full_softmax` over all articles, where the catalogue allows it; `in_batch`, a softmax over the targets of the
            batch and drawn articles, with logQ correction; `sampled_softmax`, `sampled_sigmoid`, `sigmoid_rank` and
            `calibrated_sigmoid` (gBCE) over `num_negatives` articles in store at the time of each target.
        vectors_of: A generator of kind `fashion_dna` whose vectors, of its own width, are the articles; empty where they are
            learned here.
        fine_tune: Whether those vectors are learned further, or stay as they are.
        masked_share: Share of the baskets that are hidden and guessed from those before and after them, as BERT4Rec does
            (`attention` alone); 0 predicts each purchase from those before it. Of the event features `gap` (here the days since
            the purchase before) and `season` go with it.
        temperature: Divides the cosine at the start; it is learned.
        num_negatives: Of each target, with the losses over articles in store.
        num_sampled_negatives: Expected number of further candidates in a batch, with `in_batch`.
        calibration: Of `calibrated_sigmoid`, from 0 (plain cross-entropy) to 1.
        shuffle: Learns from histories in an order by chance, to find out what their order is worth.
        answers_strangers: Whether customers without a history are answered, by what begins a history like theirs, and not left
            to the fallback. Where the validation window has enough of them, what served them better there is taken instead.
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
    answers_strangers: bool = True

    @model_validator(mode="after")
    def _check_hidden(self) -> Self:
        if not self.masked_share:
            return self
        if self.tower != "attention":
            raise ValueError(f'`masked_share` is for the tower "attention", and this is "{self.tower}"')
        if telling := [name for name in self.event_features if name not in {"gap", "season"}]:
            raise ValueError(
                f"`event_features` holds {', '.join(telling)}, which would tell of a hidden purchase; with `masked_share` "
                "leave gap and season alone"
            )
        return self


class NextCategoryConfig(SequenceConfig):
    """A network that tells from which categories a customer buys next, and what sells in these.

    Attributes:
        kind: `next_category`. For what is not named here see `SequenceConfig`.
        category: A categorical feature of articles; that of `features.roles.category` where empty.
        num_categories: The likeliest categories of a customer, from which everything is recommended.
        days: Days before the cutoff whose baskets tell what sells.
    """

    kind: Literal["next_category"] = "next_category"
    tower: Literal["gru", "lstm", "attention"] = "lstm"
    category: str = ""
    num_categories: int = Field(default=3, ge=1)
    days: int = Field(default=7, ge=1)
