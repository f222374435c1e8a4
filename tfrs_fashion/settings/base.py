"""Sections of a pipeline file as pydantic models; each has defaults, so that a pipeline states only what it changes."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from tfrs_fashion.schema import find_nearest

IndexKind = Literal["exact", "scann", "new_arrivals"]
CategoryEncoding = Literal["one_hot", "embedding"]
NumberEncoding = Literal["quantile", "log"]
# What a kind of recommender chooses on validation before the refit.
Choice = Literal["", "epochs", "method", "rankers"]
# Backbones of images, by the names of `tf.keras.applications`.
Network = Literal["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "resnet50"]


class Section(BaseModel):
    """A section of a pipeline file: unknown keys are errors, and values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RolesConfig(Section):
    """Which columns of articles have which role, so that features and figures can refer to it; empty if none has.

    Attributes:
        colour: The colour.
        garment_group: The kind of garment, broader than the category.
        section: The part of the shop, e.g. H&M's index name; customers' sex and children are inferred from it.
        section_group: A group of sections, by which reports are laid out.
        category: The kind of product; a near miss is another article of the same category.
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
    """Images of articles as vectors; see docs/guide/images.md.

    Attributes:
        folder: The folder that `image_path` is relative to; empty leaves images out.
        weights: The file of the network's weights (`.h5`, without its top); empty trains the network on the articles'
            own categorical features.
        network: One of `tf.keras.applications`.
        image_size: The side in pixels of the square to which images are resized.
        alpha: The width multiplier of a MobileNet.
        epochs: The number of passes over the images, if the network is trained.
    """

    folder: str = ""
    weights: str = ""
    network: Network = "mobilenet_v2"
    image_size: int = Field(default=224, ge=32)
    alpha: float = Field(default=1.0, gt=0)
    epochs: int = Field(default=10, ge=1)


class FeaturesConfig(Section):
    """The columns that models read, and how features are made of them.

    Attributes:
        profile: Categorical columns of customers.
        profile_numbers: Numeric columns of customers.
        categorical: Categorical columns of articles.
        numbers: Numeric columns of articles.
        sets: Columns of articles that hold several values each, such as `cotton|wool`.
        set_separator: The separator of these values.
        min_articles: Values of fewer articles are out of vocabulary.
        min_customers: Profile values of fewer customers are out of vocabulary.
        num_text_buckets: Hash buckets for the words of `description`; 0 leaves the text out.
        sentence_encoder: The folder of a SavedModel that embeds descriptions; empty leaves it out.
        images: Images of articles.
        history: Whether the towers read the features of histories (docs/reference/history_features.md).
        article_weeks: Whether they read the weekly features of articles (docs/reference/article_weeks.md).
        week_days: Days of such a week; fewer if the data are too short for weeks.
        roles: Which columns of articles have which role.
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
        test_days: Length in days of the test window.
        validation_days: Length in days of the window before it.
        share: Share of a customer's baskets that stays visible with `kind = "share"`.
        in_store_days: An article is in store if it was sold in this many days before the cutoff.
        never_sold_in_store: Whether an article of the catalogue that was never sold is in store too, unless its dates
            say otherwise. If a catalogue lists what it will sell, new articles then compete with the others.
    """

    kind: Literal["window", "last_basket", "share", "leave_one_out"] = "window"
    test_days: int = Field(default=7, ge=1)
    validation_days: int = Field(default=7, ge=1)
    share: float = Field(default=0.7, gt=0, lt=1)
    in_store_days: int = Field(default=28, ge=1)
    never_sold_in_store: bool = False

    @property
    def cuts(self) -> dict[str, Any]:
        """The arguments of `data.split.make_splits`."""
        return self.model_dump(exclude={*self.store})

    @property
    def store(self) -> dict[str, Any]:
        """The arguments of `features.view.make_view` that determine which articles are in store."""
        return self.model_dump(include={"in_store_days", "never_sold_in_store"})


def suggest(name: str, known: Iterable[str]) -> str:
    """Says which known name is nearest to an unknown one, or lists all that are known if none is near."""
    known = list(known)
    near = find_nearest(name, known)
    return f"did you mean `{near}`?" if near else f"known are {', '.join(known)}"


class RecommenderConfig(Section):
    """The settings of one recommender, and the facts about its kind that a pipeline reads.

    Attributes:
        kind: The kind of recommender.
    """

    kind: str

    # Whether its scores rank any article that is asked for, as `restricted` and `two_stage.similar` need.
    scores_articles: ClassVar[bool] = False
    # Whether the fit depends on `[features]`; see also `depends_on_features`.
    reads_features: ClassVar[bool] = False
    # What is chosen on validation before the refit: the epochs of a model, a blend's method, the length of rankers.
    chooses: ClassVar[Choice] = ""
    # Whether validation also chooses who serves cold-start customers, the recommender or the fallback.
    chooses_cold_start: ClassVar[bool] = False
    # Whether it is exported once for each of `index.kinds`.
    has_index: ClassVar[bool] = False
    # Whether everyone, or everyone in a group, gets the same list by design.
    is_constant: ClassVar[bool] = False
    # Whether it recommends only articles that were never sold.
    is_new_arrivals: ClassVar[bool] = False
    # Whether it needs the catalogue's `product_code`.
    needs_product_codes: ClassVar[bool] = False
    # Whether it learns from the candidates of past weeks, so that it cannot be a generator itself.
    learns_from_weeks: ClassVar[bool] = False

    @property
    def depends_on_features(self) -> bool:
        """Whether the fit depends on `[features]` with these settings."""
        return self.reads_features

    @property
    def predicts_probabilities(self) -> bool:
        """Whether scores are purchase probabilities."""
        return False

    def made_from(self, known: Mapping[str, "RecommenderConfig"]) -> tuple[str, ...]:
        """Returns the names of the recommenders fitted before it on the same view.

        Args:
            known: All recommenders of the pipeline by name.
        """
        return ()

    def blend_of(self, name: str) -> str:
        """Returns the name of the blend whose weeks it learns from; empty if it does not learn from weeks.

        Args:
            name: The recommender's own name.
        """
        return ""

    def scores_from(self) -> tuple[str, ...]:
        """Returns the names of the recommenders whose scores are features of it, fitted before its training weeks."""
        return ()

    def check_parts(self, name: str, known: Mapping[str, "RecommenderConfig"]) -> None:
        """Checks that the recommenders it names exist and are of a fitting kind.

        Args:
            name: The recommender's own name.
            known: All recommenders of the pipeline by name.

        Raises:
            ValueError: One of them is not.
        """

    def check(self, name: str, features: FeaturesConfig, known: Mapping[str, "RecommenderConfig"]) -> None:
        """Checks a recommender that is going to be fitted against the rest of the pipeline.

        Args:
            name: The recommender's own name.
            features: The features that the pipeline declares.
            known: All recommenders of the pipeline by name.

        Raises:
            ValueError: It cannot be fitted with these features.
        """


class IndexConfig(Section):
    """Settings of the candidate indices.

    Attributes:
        kinds: Each kind is exported and evaluated; the first one carries the recommender's own name, others a suffix,
            as in `two_tower_scann`. `exact` and `scann` hold the articles in store, `new_arrivals` those of the
            catalogue that were never sold.
        num_leaves: Number of ScaNN's partitions; 0 chooses the square root of the number of articles.
        leaves_to_search_share: Share of the partitions that a query visits.
        num_reordering_candidates: Number of candidates that ScaNN scores again exactly; longer lists come from the
            exact index.
    """

    kinds: tuple[IndexKind, ...] = ("exact", "scann")
    num_leaves: int = Field(default=0, ge=0)
    leaves_to_search_share: float = Field(default=0.7, gt=0, le=1)
    num_reordering_candidates: int = Field(default=500, ge=1)


class EvaluationConfig(Section):
    """Settings of the evaluation.

    Attributes:
        k: Length of the evaluated list.
        num_candidates: Length of the candidate list, for `recall@num_candidates`.
        num_new_arrivals: Length of the list on which articles never sold before are evaluated.
        bootstrap_samples: Number of resamples behind each 95% interval.
        baselines: Recommenders that each other one is compared with, customer by customer; names that `recommenders`
            leaves out are ignored.
        num_clusters: Maximum number of clusters of articles and of customers that the report describes; 0 leaves them
            out.
        full_ranking_customers: Maximum number of customers of the window, sampled by the seed, for whom every article
            in store is ranked; 0 for none.
        full_ranking_at: The instant at which they are ranked for: the `cutoff`, or the `first_purchase` of the window,
            with what was known at the cutoff.
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
        recommender: The released artifact that recommends, e.g. `two_tower` or `two_tower_scann`.
        k: Articles per customer.
        exclude_bought: Whether to leave out articles that the customer bought before.
        batch_size: Customers per call; also when artifacts are evaluated.
    """

    recommender: str = "two_tower"
    k: int = Field(default=12, ge=1)
    exclude_bought: bool = False
    batch_size: int = Field(default=256, ge=1)


class TensorBoardConfig(Section):
    """The log for TensorBoard, in `tensorboard/` of the run folder; it has no influence on what is fitted.

    Attributes:
        enabled: Whether trainings write a log.
        histograms: Whether it holds the values of weights after each epoch.
        profile: Whether it holds a trace of ten training steps.
        num_projected: Maximum number of articles, and of customers, whose embeddings the projector shows; 0 for none.
    """

    enabled: bool = True
    histograms: bool = True
    profile: bool = False
    num_projected: int = Field(default=5000, ge=0)


class ExportConfig(Section):
    """What artifacts contain, and where released ones are written: `<folder>/<name>/<version>/`.

    Attributes:
        fallback: The recommender of kind `popularity` in every artifact: it answers customers for whom the artifact's
            own recommender has no answer, and fills up lists that are too short. With `by` customers get what sells to
            their group, or to everyone if their group is unknown.
        folder: The folder, relative to the working directory.
        k: Number of articles that the signature `serving_default` returns; the other signatures take it from the
            request.
    """

    fallback: str = "popularity_7d"
    folder: str = "saved_models"
    k: int = Field(default=12, ge=1)
