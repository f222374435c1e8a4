"""A pipeline file (TOML) as one pydantic model.

Every section has defaults, so that a pipeline states only what it means to change. A key that does not exist is
refused with the nearest valid one, never ignored.
"""

import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from tfrs_fashion.schema import InputError, find_nearest
from tfrs_fashion.settings.base import (
    EvaluationConfig,
    ExportConfig,
    FeaturesConfig,
    IndexConfig,
    IndexKind,
    RecommendConfig,
    Section,
    SplitConfig,
    TensorBoardConfig,
    TwoTowerConfig,
)
from tfrs_fashion.settings.data import DataConfig
from tfrs_fashion.settings.errors import explain
from tfrs_fashion.settings.overrides import put, read_override
from tfrs_fashion.settings.rankers import RelevanceConfig
from tfrs_fashion.settings.recommenders import (
    EVENT_GROUPS,
    GENERATORS,
    BaseTwoTowerConfig,
    BasketMlpConfig,
    BlendConfig,
    GeneratorConfig,
    PopularityConfig,
    RestrictedConfig,
    ScoringConfig,
    SiblingsConfig,
    TwoStageConfig,
)
from tfrs_fashion.settings.sequences import FashionDnaConfig, NextCategoryConfig, SequentialConfig
from tfrs_fashion.settings.tune import TuneConfig

# As TensorFlow names modules.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Recommenders that have a section of their own.
MODELS = ("two_tower", "blend")
_MODEL_DESCRIPTIONS = {
    "two_tower": "Two networks that put customers (profile and history) and articles (id, content and sales) into one space: "
    "the articles nearest to the customer.",
    "blend": "The candidates of several recommenders in one pool, ordered by what was bought of such pools in past weeks.",
}
_INDEX_DESCRIPTIONS: dict[IndexKind, str] = {
    "exact": "Every article is compared.",
    "scann": "Searched approximately by ScaNN, which is faster where articles are many.",
    "new_arrivals": "Articles never sold alone.",
}


def _unmade(name: str, known: Iterable[str]) -> str:
    """Says that a name is not among those known, and which was meant."""
    known = list(known)
    near = find_nearest(name, known)
    hint = f"did you mean `{near}`?" if near else f"known are {', '.join(known)}"
    return f"`{name}`, which nothing makes; {hint}"


class PipelineConfig(Section):
    """A whole pipeline.

    Attributes:
        name: Of the run folder and in metadata; the file's name by default.
        seed: Of generated tables, initial weights, batches and bootstraps.
        recommenders: Which are fitted and judged, by their names in `generators`, or `two_tower`, or `blend`;
            `export.fallback` is in every artifact, and must be there.
        generators: Settings of candidate generators by name: those of `GENERATORS`, changed here, and others.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_\-]+$")
    seed: int = 1
    recommenders: tuple[str, ...] = ("popularity_7d", "repurchase", "als", "two_tower")
    data: DataConfig
    features: FeaturesConfig = FeaturesConfig()
    split: SplitConfig = SplitConfig()
    generators: dict[str, GeneratorConfig] = Field(default={}, validate_default=True)
    blend: BlendConfig = BlendConfig()
    two_tower: TwoTowerConfig = TwoTowerConfig()
    relevance: RelevanceConfig = RelevanceConfig()
    index: IndexConfig = IndexConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    recommend: RecommendConfig = RecommendConfig()
    export: ExportConfig = ExportConfig()
    tensorboard: TensorBoardConfig = TensorBoardConfig()
    tune: TuneConfig = TuneConfig()

    @field_validator("generators", mode="before")
    @classmethod
    def _add_known(cls, value: Any) -> Any:
        """Fills in the generators that every pipeline knows, under what the file says of them."""
        if not isinstance(value, dict):
            return value
        known = {name: settings.model_dump() for name, settings in GENERATORS.items()}
        for name, settings in value.items():
            if not isinstance(settings, dict):
                continue
            own = known.get(name, {})
            # Of another kind, it shares the name with what is known and nothing else.
            same_kind = settings.get("kind", own.get("kind")) == own.get("kind")
            known[name] = {**(own if same_kind else {}), **settings}
        return {**known, **{name: settings for name, settings in value.items() if not isinstance(settings, dict)}}

    @model_validator(mode="after")
    def _check_together(self) -> "PipelineConfig":
        if not self.recommenders:
            raise ValueError("`recommenders` is empty: name at least one")
        self._check_fallback()
        if len(set(self.recommenders)) < len(self.recommenders):
            raise ValueError("`recommenders` names one twice")
        known = [*self.generators, *MODELS]
        for name in self.recommenders:
            if name not in known:
                raise ValueError(f"`recommenders` names {_unmade(name, known)}")
        if bad := [name for name in self.generators if not NAME.fullmatch(name)]:
            raise ValueError(
                f"`generators.{bad[0]}`: a name holds letters, digits and _ alone, and begins with no digit"
            )
        if taken := [name for name in MODELS if name in self.generators]:
            raise ValueError(f"`generators.{taken[0]}`: this is a model with a section of its own; choose another name")
        if len(set(self.blend.generators)) < len(self.blend.generators) or not self.blend.generators:
            raise ValueError("`blend.generators` must name each generator once, and at least one")
        for name in self.blend.generators:
            if name not in self.generators:
                raise ValueError(f"`blend.generators` names {_unmade(name, self.generators)}")
            if isinstance(self.generators[name], TwoStageConfig):
                raise ValueError(f"`blend.generators` names `{name}`, which is made from the blend; leave it out")
        scoring = ["two_tower", *(name for name, made in self.generators.items() if isinstance(made, ScoringConfig))]
        for name, made in self.generators.items():
            if isinstance(made, RestrictedConfig) and made.of not in scoring:
                raise ValueError(
                    f"`generators.{name}.of` is `{made.of}`, which does not score any article it is asked for; set it to "
                    f"one of {', '.join(scoring)}"
                )
        self._check_sequences()
        self._check_similar(
            [*scoring, *(name for name, made in self.generators.items() if isinstance(made, SequentialConfig))]
        )
        groups = (*self.features.profile, *EVENT_GROUPS, *self.features.categorical)
        for name in self.fitted:
            grouped = self.generators.get(name)
            if isinstance(grouped, PopularityConfig) and grouped.by and grouped.by not in groups:
                near = find_nearest(grouped.by, groups)
                hint = f"did you mean `{near}`?" if near else f"known are {', '.join(groups)}"
                raise ValueError(
                    f"`generators.{name}.by` is `{grouped.by}`, which is no profile feature, no column of transactions that "
                    f"groups, and no categorical feature of articles; {hint}"
                )
        if self.index.kinds[:1] == ("new_arrivals",):
            raise ValueError("`index.kinds` must begin with `exact` or `scann`, which `two_tower` stands for")
        if not self.index.kinds or len(set(self.index.kinds)) < len(self.index.kinds):
            raise ValueError("`index.kinds` must name each kind once, and at least one")
        if self.recommend.recommender not in self.servable:
            raise ValueError(
                f"`recommend.recommender` is `{self.recommend.recommender}`, which `recommenders` and `index.kinds` do "
                f"not make; set it to one of {', '.join(self.servable)}"
            )
        named = list(dict.fromkeys([*known, *self.servable]))
        for name in self.evaluation.baselines:
            if name not in named:
                raise ValueError(f"`evaluation.baselines` names {_unmade(name, named)}")
        return self

    def _check_sequences(self) -> None:
        styles = [name for name, made in self.generators.items() if isinstance(made, FashionDnaConfig)]
        for name, made in self.generators.items():
            if isinstance(made, SequentialConfig) and made.vectors_of and made.vectors_of not in styles:
                raise ValueError(
                    f"`generators.{name}.vectors_of` is `{made.vectors_of}`, which is no generator of kind fashion_dna; "
                    f"set it to one of {', '.join(styles)}"
                )
        known = self.features.categorical
        for name in self.fitted:
            told = self.generators.get(name)
            if not isinstance(told, NextCategoryConfig):
                continue
            if (category := told.category or self.features.roles.category) not in known:
                raise ValueError(
                    f"`generators.{name}.category` (or else `features.roles.category`) is `{category}`, which is none of "
                    f"`features.categorical`; set it to one of {', '.join(known) or 'those, once there are any'}"
                )

    def _check_similar(self, scoring: Sequence[str]) -> None:
        for name in self.fitted:
            made = self.generators.get(name)
            for similar in made.similar if isinstance(made, TwoStageConfig) else ():
                if similar not in scoring:
                    raise ValueError(
                        f"`generators.{name}.similar` names `{similar}`, which does not score any article it is asked for; "
                        f"name some of {', '.join(scoring)}"
                    )

    def _check_fallback(self) -> None:
        name = self.export.fallback
        made = self.generators.get(name)
        if not isinstance(made, PopularityConfig):
            known = [other for other, settings in self.generators.items() if isinstance(settings, PopularityConfig)]
            raise ValueError(
                f"`export.fallback` is `{name}`, which is no popularity; set it to one of {', '.join(known)}, or give "
                f'`generators.{name}` the kind "popularity"'
            )
        if made.by in self.features.categorical and made.by not in self.features.profile:
            raise ValueError(
                f"`export.fallback` is `{name}`, which goes by the `{made.by}` of what a customer bought, and has no answer "
                "for those who bought nothing; let it go by a profile feature, or by nothing"
            )
        if name not in self.recommenders:
            raise ValueError(
                f"`recommenders` must hold `{name}`, which is `export.fallback`: it answers customers without a history"
            )

    @property
    def fitted(self) -> tuple[str, ...]:
        """Every recommender that is fitted on a split: those judged, each after those that it is made from."""
        names: list[str] = []
        for name in sorted(self.recommenders, key=lambda name: name == "blend"):
            names += self._with_parts(name)
        return tuple(dict.fromkeys(names))

    def _with_parts(self, name: str) -> list[str]:
        """Returns a recommender behind those that it is made from, and these behind theirs."""
        return [*(inner for part in self.made_from(name) for inner in self._with_parts(part)), name]

    def made_from(self, name: str) -> tuple[str, ...]:
        """Returns the recommenders that one is made from, which are fitted before it."""
        if name == "blend" or isinstance(self.generators.get(name), TwoStageConfig):
            return self.blend.generators
        match self.generators.get(name):
            case RestrictedConfig(of=inner):
                return (inner,)
            case SequentialConfig(vectors_of=inner) if inner:
                return (inner,)
        return ()

    def settings_of(self, name: str) -> dict[str, Any]:
        """Returns what the fit of a recommender depends on beside tables, split and seed."""
        features, k = self.features.model_dump(), self.evaluation.k

        def against_fallback() -> dict[str, Any]:
            # Whether towers answer strangers is chosen against the fallback.
            return {"k": k, "fallback": self.settings_of(self.export.fallback)}

        if name == "two_tower":
            return {**self.two_tower.model_dump(), **features, **against_fallback()}
        parts = {part: self.settings_of(part) for part in self.made_from(name)}
        if name == "blend":
            return {**self.blend.model_dump(), **features, "parts": parts}
        generator = self.generators[name]
        own = generator.model_dump()
        match generator:
            case BaseTwoTowerConfig() | FashionDnaConfig() | NextCategoryConfig():
                return {**own, **features, "k": k}
            case SequentialConfig():
                return {**own, **features, **against_fallback(), "parts": parts}
            case BasketMlpConfig():
                return {**own, "k": k}
            case PopularityConfig() if generator.by:
                return {**own, **features}
            case RestrictedConfig():
                return {**own, "parts": parts}
            case TwoStageConfig():
                parts |= {part: self.settings_of(part) for part in generator.similar}
                return {**own, **features, "k": k, "blend": self.blend.model_dump(), "parts": parts}
        return own

    @property
    def descriptions(self) -> dict[str, str]:
        """What each artifact recommends, a sentence each, for those who read about it."""
        found = {}
        for artifact, (name, index) in self.servable.items():
            if name in self.generators:
                made = self.generators[name]
                told = {"days": getattr(made, "days", 0), **made.model_dump(exclude={"kind"}, exclude_defaults=True)}
                settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items() if value)
                found[artifact] = (type(made).__doc__ or "").split("\n")[0].split(";")[0].rstrip(".")
                found[artifact] += f" ({settings})." if settings else "."
            else:
                found[artifact] = _MODEL_DESCRIPTIONS[name]
            if index is not None:
                found[artifact] += f" {_INDEX_DESCRIPTIONS[index]}"
        return found

    @property
    def new_arrivals(self) -> tuple[str, ...]:
        """Artifacts that hold articles never sold alone, and are judged on these."""
        siblings = (name for name in self.servable if isinstance(self.generators.get(name), SiblingsConfig))
        return (*siblings, *(name for name, (_of, kind) in self.servable.items() if kind == "new_arrivals"))

    @property
    def same_for_all(self) -> tuple[str, ...]:
        """Artifacts that recommend the same to everyone, or to everyone of a group, by design."""
        kinds = (PopularityConfig, SiblingsConfig)
        return tuple(name for name in self.servable if isinstance(self.generators.get(name), kinds))

    @property
    def tells_probabilities(self) -> tuple[str, ...]:
        """Recommenders whose scores are probabilities of a purchase."""
        two_stages = ((name, self.generators.get(name)) for name in self.recommenders)
        return tuple(
            name for name, made in two_stages if isinstance(made, TwoStageConfig) and made.combination == "score"
        )

    @property
    def probabilities_are_of_window(self) -> bool:
        """Whether what is judged is a window as long as those that rankers learn from."""
        return self.split.kind == "window" and self.split.test_days == self.blend.week_days

    @property
    def ranked_in_full(self) -> tuple[str, ...]:
        """Recommenders that rank every article in store for some customers: all but those of new arrivals, if any do."""
        if not self.evaluation.full_ranking_customers:
            return ()
        return tuple(name for name in self.recommenders if name not in self.new_arrivals)

    @property
    def servable(self) -> dict[str, tuple[str, IndexKind | None]]:
        """Every artifact that this pipeline exports: its name, the recommender in it, and its index if it has one.

        The first index carries the recommender's own name.
        """
        names: dict[str, tuple[str, IndexKind | None]] = {}
        for recommender in self.recommenders:
            if recommender != "two_tower" and not isinstance(self.generators.get(recommender), SequentialConfig):
                names[recommender] = (recommender, None)
                continue
            for position, kind in enumerate(self.index.kinds):
                names[recommender if position == 0 else f"{recommender}_{kind}"] = (recommender, kind)
        return names


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Reads a pipeline file.

    Args:
        path: The TOML file.
        overrides: `section.key=value` each, where a value is TOML, or a plain string.

    Returns:
        The pipeline with every default filled in.

    Raises:
        InputError: The file is missing or no TOML, a key is unknown (its nearest valid name is given), or a value
            is out of range.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the pipeline file ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}.") from error
    for override in overrides:
        put(raw, *read_override(override), where=f"--set {override}")
    raw.setdefault("name", path.stem)
    try:
        return PipelineConfig.model_validate(raw)
    except ValidationError as error:
        explanation = explain(error, PipelineConfig)
        raise InputError(f"{path}: {explanation}{'' if explanation.endswith('?') else '.'}") from error
