"""A pipeline file (TOML) as one pydantic model.

Every section has defaults, so that a pipeline states only what it means to change. A key that does not exist is
refused with the nearest valid one, never ignored.
"""

import inspect
import re
from typing import Any

from pydantic import Field, field_validator, model_validator

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
    suggest,
)
from tfrs_fashion.settings.data import DataConfig
from tfrs_fashion.settings.errors import moved_key
from tfrs_fashion.settings.rankers import BlendConfig, RelevanceConfig
from tfrs_fashion.settings.recommenders import PRESETS, AnyRecommenderConfig, PopularityConfig
from tfrs_fashion.settings.tune import TuneConfig

# As TensorFlow names modules.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INDEX_DESCRIPTIONS: dict[IndexKind, str] = {
    "exact": "Every article is compared.",
    "scann": "Searched approximately by ScaNN, which is faster for large catalogues.",
    "new_arrivals": "Only articles never sold.",
}


class PipelineConfig(Section):
    """A whole pipeline.

    Attributes:
        name: Name of the run folder, and in metadata; the file's name by default.
        seed: Seed of generated tables, initial weights, batches and bootstraps.
        recommenders: Names of the recommenders that are fitted and evaluated. `export.fallback`, which is in every
            artifact, must be one of them.
        recommender: Settings of recommenders by name: those that every pipeline knows, changed here, and others.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_\-]+$")
    seed: int = 1
    recommenders: tuple[str, ...] = ("popularity_7d", "repurchase", "als", "two_tower")
    data: DataConfig
    features: FeaturesConfig = FeaturesConfig()
    split: SplitConfig = SplitConfig()
    recommender: dict[str, AnyRecommenderConfig] = Field(default={}, validate_default=True)
    relevance: RelevanceConfig = RelevanceConfig()
    index: IndexConfig = IndexConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    recommend: RecommendConfig = RecommendConfig()
    export: ExportConfig = ExportConfig()
    tensorboard: TensorBoardConfig = TensorBoardConfig()
    tune: TuneConfig = TuneConfig()

    @model_validator(mode="before")
    @classmethod
    def _refuse_old_form(cls, raw: Any) -> Any:
        """Refuses sections of the form before every recommender was configured alike, and shows the new one."""
        moved = []
        for section, inner in raw.items() if isinstance(raw, dict) else ():
            if moved_key(section):
                are_names = section == "generators" and isinstance(inner, dict)
                moved += [f"{section}.{name}" for name in inner] if are_names else [section]
        if moved:
            raise ValueError("; ".join(f"`[{key}]` is now `[{moved_key(key)}]`" for key in moved))
        return raw

    @field_validator("recommender", mode="before")
    @classmethod
    def _add_presets(cls, value: Any) -> Any:
        """Fills in the recommenders that every pipeline knows, under what the file says of them."""
        if not isinstance(value, dict):
            return value
        known: dict[str, Any] = {name: settings.model_dump() for name, settings in PRESETS.items()}
        for name, settings in value.items():
            preset = known.get(name, {})
            # A recommender of another kind shares the name with the preset and nothing else.
            if isinstance(settings, dict) and settings.get("kind", preset.get("kind")) == preset.get("kind"):
                settings = {**preset, **settings}
            known[name] = settings
        return known

    @model_validator(mode="after")
    def _check_together(self) -> "PipelineConfig":
        if not self.recommenders:
            raise ValueError("`recommenders` is empty: name at least one")
        self._check_fallback()
        if len(set(self.recommenders)) < len(self.recommenders):
            raise ValueError("`recommenders` names one twice")
        for name in self.recommenders:
            if name not in self.recommender:
                raise ValueError(
                    f"`recommenders` names the unknown recommender `{name}`; {suggest(name, self.recommender)}"
                )
        if bad := [name for name in self.recommender if not NAME.fullmatch(name)]:
            raise ValueError(
                f"`recommender.{bad[0]}`: a name may hold only letters, digits and _, and must not begin with a digit"
            )
        for name, settings in self.recommender.items():
            settings.check_parts(name, self.recommender)
        for name in self.fitted:
            self.recommender[name].check(name, self.features, self.recommender)
        if self.index.kinds[:1] == ("new_arrivals",):
            raise ValueError(
                "`index.kinds` must begin with `exact` or `scann`, which carries the recommender's own name"
            )
        if not self.index.kinds or len(set(self.index.kinds)) < len(self.index.kinds):
            raise ValueError("`index.kinds` must name each kind once, and at least one")
        if self.recommend.recommender not in self.servable:
            raise ValueError(
                f"`recommend.recommender` is `{self.recommend.recommender}`, which `recommenders` and `index.kinds` do "
                f"not make; set it to one of {', '.join(self.servable)}"
            )
        known = dict.fromkeys([*self.recommender, *self.servable])
        for name in self.evaluation.baselines:
            if name not in known:
                raise ValueError(
                    f"`evaluation.baselines` names the unknown recommender `{name}`; {suggest(name, known)}"
                )
        return self

    def _check_fallback(self) -> None:
        name = self.export.fallback
        fallback = self.recommender.get(name)
        if not isinstance(fallback, PopularityConfig):
            known = [other for other, settings in self.recommender.items() if isinstance(settings, PopularityConfig)]
            raise ValueError(
                f"`export.fallback` is `{name}`, which is not of kind popularity; set it to one of {', '.join(known)}, or give "
                f'`recommender.{name}` the kind "popularity"'
            )
        if fallback.by in self.features.categorical and fallback.by not in self.features.profile:
            raise ValueError(
                f"`export.fallback` is `{name}`, which goes by the `{fallback.by}` of what a customer bought, and has no answer "
                "for those who bought nothing; let it go by a profile feature, or by nothing"
            )
        if name not in self.recommenders:
            raise ValueError(
                f"`recommenders` must hold `{name}`, which is `export.fallback`: it answers customers without a history"
            )

    @property
    def fitted(self) -> tuple[str, ...]:
        """Every recommender that is fitted on a split: those evaluated, each after those that it is made from."""
        names: list[str] = []
        for name in sorted(self.recommenders, key=lambda name: self.recommender[name].learns_from_weeks):
            names += self._with_parts(name)
        return tuple(dict.fromkeys(names))

    def _with_parts(self, name: str) -> list[str]:
        """Lists a recommender after those that it is made from, and these after theirs."""
        return [*(inner for part in self.made_from(name) for inner in self._with_parts(part)), name]

    def made_from(self, name: str) -> tuple[str, ...]:
        """Returns the recommenders that one is made from, which are fitted before it."""
        return self.recommender[name].made_from(self.recommender)

    def settings_of(self, name: str) -> dict[str, Any]:
        """Returns what the fit of a recommender depends on beside tables, split and seed."""
        settings = self.recommender[name]
        relevant = settings.model_dump()
        if settings.depends_on_features:
            relevant["features"] = self.features.model_dump()
        if settings.chooses in {"epochs", "rankers"}:
            relevant["k"] = self.evaluation.k
        if settings.chooses_cold_start:
            # Whether it serves cold-start customers is chosen against the fallback.
            relevant["fallback"] = self.settings_of(self.export.fallback)
        if settings.learns_from_weeks:
            relevant["blend"] = self.blend_of(name).model_dump()
        if parts := (*self.made_from(name), *settings.scores_from()):
            relevant["parts"] = {part: self.settings_of(part) for part in parts}
        return relevant

    @property
    def descriptions(self) -> dict[str, str]:
        """What each artifact recommends, a sentence each, for readers of the report."""
        descriptions = {}
        for artifact, (name, index) in self.servable.items():
            settings = self.recommender[name]
            shown = {
                "days": getattr(settings, "days", 0),
                **settings.model_dump(exclude={"kind"}, exclude_defaults=True),
            }
            changed = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items() if value)
            first = inspect.cleandoc(type(settings).__doc__ or "").split("\n\n")[0].replace("\n", " ")
            sentence = f"{first.split(';')[0].rstrip('.')}{f' ({changed})' if changed else ''}."
            descriptions[artifact] = sentence if index is None else f"{sentence} {_INDEX_DESCRIPTIONS[index]}"
        return descriptions

    @property
    def new_arrivals(self) -> tuple[str, ...]:
        """Artifacts that hold only articles never sold, and are evaluated on these."""
        siblings = (name for name, (of, _kind) in self.servable.items() if self.recommender[of].is_new_arrivals)
        return (*siblings, *(name for name, (_of, kind) in self.servable.items() if kind == "new_arrivals"))

    @property
    def same_for_all(self) -> tuple[str, ...]:
        """Artifacts that recommend the same to everyone, or to everyone in a group, by design."""
        return tuple(name for name, (of, _kind) in self.servable.items() if self.recommender[of].is_constant)

    @property
    def predicts_probabilities(self) -> tuple[str, ...]:
        """Recommenders whose scores are probabilities of a purchase."""
        return tuple(name for name in self.recommenders if self.recommender[name].predicts_probabilities)

    @property
    def probabilities_are_of_window(self) -> bool:
        """Whether the evaluated window is as long as the weeks that rankers learn from."""
        week_days = {self.blend_of(name).week_days for name in self.predicts_probabilities}
        return self.split.kind == "window" and week_days <= {self.split.test_days}

    def blend_of(self, name: str) -> BlendConfig:
        """Returns the settings of a blend, or of the blend that gives the candidates of two stages."""
        blend = self.recommender[self.recommender[name].blend_of(name)]
        assert isinstance(blend, BlendConfig)
        return blend

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
            if not self.recommender[recommender].has_index:
                names[recommender] = (recommender, None)
                continue
            for position, kind in enumerate(self.index.kinds):
                names[recommender if position == 0 else f"{recommender}_{kind}"] = (recommender, kind)
        return names
