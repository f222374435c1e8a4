"""The sections of a pipeline file as pydantic models; each has defaults, so that a pipeline states only what it changes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

IndexKind = Literal["exact", "scann", "new_arrivals"]
CategoryEncoding = Literal["one_hot", "embedding"]
NumberEncoding = Literal["quantile", "log"]
# Backbones of images, by the names of `tf.keras.applications`.
Network = Literal["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "resnet50"]


class Section(BaseModel):
    """A section of a pipeline file: unknown keys are errors, and values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RolesConfig(Section):
    """Which columns of articles play which part, so that features and figures can name it; empty where none does.

    Attributes:
        colour: The colour.
        garment_group: Kind of garment, broader than the category.
        section: Part of the shop, e.g. H&M's index name; customers' sex and kids are guessed from it.
        section_group: Broader than `section`; what reports are laid out by.
        category: Kind of product; a near miss is another article of the same one.
        women: Values of `section` that are for women.
        men: Values of `section` that are for men.
        kids: Values of `section` that are for children.
    """

    colour: str = ""
    garment_group: str = ""
    section: str = ""
    section_group: str = ""
    category: str = ""
    women: tuple[str, ...] = ()
    men: tuple[str, ...] = ()
    kids: tuple[str, ...] = ()


class ImagesConfig(Section):
    """Images of articles as vectors (docs/images.md).

    Attributes:
        folder: Folder that `image_path` is relative to; empty leaves images out.
        weights: File of the network's weights (`.h5`, without its top); empty trains the network on the articles' own
            categorical features.
        network: One of `tf.keras.applications`.
        image_size: Side of the square that images are stretched to, in pixels.
        alpha: Width of a MobileNet.
        epochs: Passes over the images where the network is trained.
    """

    folder: str = ""
    weights: str = ""
    network: Network = "mobilenet_v2"
    image_size: int = Field(default=224, ge=32)
    alpha: float = Field(default=1.0, gt=0)
    epochs: int = Field(default=10, ge=1)


class FeaturesConfig(Section):
    """Which columns the towers read.

    Attributes:
        profile: Categorical columns of customers.
        profile_numbers: Numeric columns of customers.
        categorical: Categorical columns of articles.
        numbers: Numeric columns of articles.
        sets: Columns of articles that hold several values each, such as `cotton|wool`.
        set_separator: What stands between these values.
        min_articles: Values that fewer articles share are out of vocabulary.
        min_customers: Values of the profile that fewer customers share are out of vocabulary.
        num_text_buckets: Hash buckets for the words of `description`; 0 leaves the text out.
        sentence_encoder: Folder of a SavedModel that embeds descriptions; empty leaves it out.
        images: Images of articles.
        history: Whether the towers read the features of histories (docs/history_features.md).
        article_weeks: Whether they read what was known of each article by week (docs/article_weeks.md).
        week_days: Days of such a week; fewer where the data are too short for weeks.
        roles: Which columns of articles play which part.
    """

    profile: tuple[str, ...] = ()
    profile_numbers: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    set_separator: str = Field(default="|", min_length=1)
    min_articles: int = Field(default=2, ge=1)
    min_customers: int = Field(default=10, ge=1)
    num_text_buckets: int = Field(default=8192, ge=0)
    sentence_encoder: str = ""
    images: ImagesConfig = ImagesConfig()
    history: bool = True
    article_weeks: bool = True
    week_days: int = Field(default=7, ge=1)
    roles: RolesConfig = RolesConfig()


class SplitConfig(Section):
    """What is held out for validation and test: a cutoff for each customer, and the targets after it.

    Attributes:
        kind: `window` holds out the last days of all customers; `last_basket`, `share` and `leave_one_out` hold out
            the end of each customer's own history.
        test_days: Length of the test window.
        validation_days: Length of the window before it.
        share: Share of a customer's baskets that stays visible with `kind = "share"`.
        in_store_days: An article is in store if it was sold in this many days before the cutoff.
        never_sold_in_store: Whether an article of the catalogue that was never sold is in store too, unless its dates say
            otherwise. Where a catalogue lists what it will sell, new articles then stand beside the others.
    """

    kind: Literal["window", "last_basket", "share", "leave_one_out"] = "window"
    test_days: int = Field(default=7, ge=1)
    validation_days: int = Field(default=7, ge=1)
    share: float = Field(default=0.7, gt=0, lt=1)
    in_store_days: int = Field(default=28, ge=1)
    never_sold_in_store: bool = False

    @property
    def cuts(self) -> dict[str, Any]:
        """What makes the splits; see `data.split.make_splits`."""
        return self.model_dump(exclude={*self.store})

    @property
    def store(self) -> dict[str, Any]:
        """What tells what is in store; see `features.view.make_view`."""
        return self.model_dump(include={"in_store_days", "never_sold_in_store"})


class TwoTowerConfig(Section):
    """Settings of the two towers and of their training.

    Attributes:
        embedding_dim: Width of the embeddings.
        history_length: Last events of a history that are counted.
        history_articles: Articles of a history that the query tower reads: those bought most, lately; 0 for none.
        time_scales_days: Time constants of the decayed counts; the middle one chooses and weighs these articles.
        num_steps: Steps that make the history's vector agree with its weights.
        content_scale: Length that the embedding of an article's content starts with; its own has length 1.
        categorical_encoding: `one_hot` (a matrix over the joined one-hot vectors) or `embedding` (a narrow embedding of
            each feature, joined and projected).
        number_encoding: Bins of a numeric feature: `quantile` (as many rows in each) or `log` (each as wide in the
            logarithm, so that the few articles that sell most are told apart).
        num_bins: Bins of a numeric feature.
        hidden_dims: Widths of the layers of deep towers; none for shallow ones.
        min_baskets: Articles in fewer baskets have no embedding of their own, only content.
        min_customer_baskets: Customers with fewer baskets to learn from have no embedding of their own.
        article_dropout: Share of the articles of a batch that are their content alone, as articles never sold are.
        customer_dropout: Share of the customers of a batch without their own embedding, as customers never seen are.
        temperature: Divides the cosine at the start; it is learned.
        target_days: Days before the cutoff whose baskets are targets.
        new_weight: Weight of a target that the customer had not bought before.
        batch_size: Baskets in a batch.
        num_sampled_negatives: Articles drawn beside the baskets' own as candidates of a batch, on average.
        learning_rate: Of Adam at the start; it falls to a twentieth over `epochs`.
        steps_per_epoch: Batches between two looks at validation; 0 for a whole pass over the targets.
        epochs: At most so many epochs; early stopping chooses fewer.
        patience: Epochs without a better validation map@k before training stops.
    """

    embedding_dim: int = Field(default=128, ge=2)
    history_length: int = Field(default=512, ge=1)
    history_articles: int = Field(default=64, ge=0)
    time_scales_days: tuple[float, ...] = Field(default=(10.0, 30.0, 120.0, 400.0), min_length=1)
    num_steps: int = Field(default=3, ge=0)
    content_scale: float = Field(default=0.1, ge=0)
    categorical_encoding: CategoryEncoding = "one_hot"
    number_encoding: NumberEncoding = "log"
    num_bins: int = Field(default=16, ge=1)
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

    @model_validator(mode="after")
    def _check_time_scales(self) -> "TwoTowerConfig":
        if not all(scale > 0 for scale in self.time_scales_days):
            raise ValueError("`time_scales_days` must all be above 0")
        return self


class IndexConfig(Section):
    """Settings of the candidate indices.

    Attributes:
        kinds: Every kind is exported and evaluated; the first one is `two_tower`, others carry a suffix. `exact` and
            `scann` hold what is in store, `new_arrivals` what the catalogue lists and was never sold.
        num_leaves: ScaNN's partitions; 0 chooses the square root of the number of articles.
        leaves_to_search_share: Share of the partitions that a query visits.
        num_reordering_candidates: Candidates that ScaNN scores again exactly; longer lists come from the exact index.
    """

    kinds: tuple[IndexKind, ...] = ("exact", "scann")
    num_leaves: int = Field(default=0, ge=0)
    leaves_to_search_share: float = Field(default=0.7, gt=0, le=1)
    num_reordering_candidates: int = Field(default=500, ge=1)


class EvaluationConfig(Section):
    """Settings of the evaluation.

    Attributes:
        k: Length of the judged list.
        num_candidates: Length of the candidate list that `recall@num_candidates` judges.
        num_new_arrivals: Length of the list on which articles never sold before are judged.
        bootstrap_samples: Resamples behind each 95% interval.
        baselines: Recommenders that each other one is compared with, customer by customer; names that `recommenders` leaves out
            are passed over.
        num_clusters: Clusters of articles and of customers that the report describes, at most; 0 leaves them out.
        full_ranking_customers: Customers of the window, drawn by the seed, for whom every article in store is ranked, at
            most; 0 for none.
        full_ranking_at: When each of them is asked for it: at the `cutoff`, or at the `first_purchase` of the window, with
            what was known at the cutoff.
    """

    k: int = Field(default=12, ge=1)
    num_candidates: int = Field(default=200, ge=1)
    num_new_arrivals: int = Field(default=100, ge=1)
    bootstrap_samples: int = Field(default=1000, ge=10)
    baselines: tuple[str, ...] = ("popularity_7d", "repurchase", "als")
    num_clusters: int = Field(default=8, ge=0, le=100)
    full_ranking_customers: int = Field(default=0, ge=0)
    full_ranking_at: Literal["cutoff", "first_purchase"] = "cutoff"


class RecommendConfig(Section):
    """What `recommend` writes for every customer.

    Attributes:
        recommender: The released artifact that is asked, e.g. `two_tower` or `two_tower_scann`.
        k: Articles a customer.
        exclude_bought: Whether to leave out what the customer bought before.
        batch_size: Customers a call; also when artifacts are judged.
    """

    recommender: str = "two_tower"
    k: int = Field(default=12, ge=1)
    exclude_bought: bool = False
    batch_size: int = Field(default=256, ge=1)


class TensorBoardConfig(Section):
    """What is told to TensorBoard, in `tensorboard/` of the run folder; it changes nothing of what is fitted.

    Attributes:
        enabled: Whether trainings leave a log.
        histograms: Whether it holds the values of weights after each epoch.
        profile: Whether it holds a trace of ten training steps.
        num_projected: Articles, and customers, whose embeddings the projector shows, at most; 0 for none.
    """

    enabled: bool = True
    histograms: bool = True
    profile: bool = False
    num_projected: int = Field(default=5000, ge=0)


class ExportConfig(Section):
    """What goes into artifacts, and where released ones go: `<folder>/<name>/<version>/`.

    Attributes:
        fallback: The recommender of kind `popularity` in every artifact: it answers customers of whom the artifact's own
            recommender has nothing to say, and fills lists that are too short. With `by` these see what sells to their
            group, and where that is unknown what sells to everyone.
        folder: Relative to where the command is given.
        k: Articles that the signature `serving_default` returns; the others are told in the request.
    """

    fallback: str = "popularity_7d"
    folder: str = "saved_models"
    k: int = Field(default=12, ge=1)
