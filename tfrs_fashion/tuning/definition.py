"""The search that a pipeline's section `[tune]` defines: which settings of which recommender, and by which metric."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfrs_fashion.evaluation.metrics.accuracy import ACCURACY_METRICS
from tfrs_fashion.run.objective import Objective
from tfrs_fashion.schema import InputError, find_nearest
from tfrs_fashion.settings.file import change, read_default, read_setting
from tfrs_fashion.settings.pipeline import PipelineConfig
from tfrs_fashion.settings.rankers import TwoStageConfig
from tfrs_fashion.settings.tune import ParameterConfig, ordered, plain
from tfrs_fashion.tuning.oracle import count_hyperband_draws
from tfrs_fashion.tuning.space import make_space

# Other settings would change what trials are evaluated on, or what is prepared once for all of them.
_TUNABLE = ("two_tower", "generators", "blend", "features")
_FIXED = (
    "blend.week_days",
    "features.profile",
    "features.profile_numbers",
    "features.images",
    "features.sentence_encoder",
    "features.roles",
)
# Metrics of the similarity of articles, which is measured by their categorical features.
_METRICS_OF_CATEGORIES = ("diversity",)
# Where in a range a number lies that is no whole number, whatever the ends of the range.
_IRRATIONAL = math.sqrt(2.0) - 1.0


@dataclass(frozen=True)
class SearchDefinition:
    """The search that a pipeline defines.

    Attributes:
        config: The pipeline.
    """

    config: PipelineConfig

    @property
    def recommender(self) -> str:
        """The recommender whose settings are searched."""
        return self.config.tune.recommender or self.config.servable[self.config.recommend.recommender][0]

    @property
    def objective(self) -> Objective:
        """The metric that settings are chosen by."""
        tune = self.config.tune
        return Objective(tune.objective or f"map@{self.config.evaluation.k}", tune.direction)

    @property
    def ranker_settings(self) -> TwoStageConfig | None:
        """The settings of two stages, if theirs are searched."""
        settings = self.config.generators.get(self.recommender)
        return settings if isinstance(settings, TwoStageConfig) else None

    @property
    def epochs_setting(self) -> str:
        """The setting that holds the number of epochs of a trial (for trees: of rounds); empty if there is none."""
        name, settings = self.recommender, self.config.generators.get(self.recommender)
        if name == "two_tower":
            return "two_tower.epochs"
        if isinstance(settings, TwoStageConfig):
            return f"generators.{name}.{'network.epochs' if settings.rankers == ('network',) else 'lightgbm.rounds'}"
        return f"generators.{name}.epochs" if hasattr(settings, "epochs") else ""

    @property
    def max_epochs(self) -> int | None:
        """The number of epochs of a whole trial; None if there are none, or if they are searched themselves."""
        name = self.epochs_setting
        return read_setting(self.config, name) if name and name not in self.config.tune.space else None

    @property
    def own(self) -> dict[str, Any]:
        """The pipeline's own values of the settings that are searched."""
        return {name: read_setting(self.config, name) for name in self.config.tune.space}

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Completes the settings of a trial: those that take effect in the pipeline, but not in the trial, get their defaults.

        Args:
            values: Settings of the space by their names; those whose conditions do not hold are left out.
        """
        active = {name: values[name] for name in self._active(values)}
        inactive = [name for name in self._active(self.own) if name not in active]
        return {**active, **{name: read_default(self.config, name) for name in inactive}}

    def _active(self, values: Mapping[str, Any]) -> list[str]:
        space = self.config.tune.space
        active: list[str] = []
        for name in ordered(space):
            conditions = space[name].when.items()
            if name in values and all(
                other in active and plain(values[other]) in plain(allowed) for other, allowed in conditions
            ):
                active.append(name)
        return active

    def _fulfil_conditions(self, setting: str) -> dict[str, Any]:
        """Returns values of other settings with which a setting takes effect: the pipeline's own where they do."""
        values: dict[str, Any] = {}
        for other, allowed in self.config.tune.space[setting].when.items():
            own = self.own[other]
            values |= {
                **self._fulfil_conditions(other),
                other: own if plain(own) in plain(allowed) else allowed[0],
            }
        return values

    def check(self) -> None:
        """Refuses a search that cannot be run, before anything is prepared.

        Raises:
            InputError: With the setting of the search that is wrong.
        """
        tune, config, name = self.config.tune, self.config, self.recommender
        known = dict.fromkeys([*config.fitted, *config.generators, "two_tower", "blend"])
        if name not in known:
            near = find_nearest(name, list(known))
            hint = f"did you mean `{near}`?" if near else f"known are {', '.join(known)}."
            raise InputError(f"tune.recommender: unknown recommender `{name}`; {hint}")
        if not tune.space:
            raise InputError(
                "tune.space: nothing to search. Name settings of the pipeline and the values that each may take, e.g. "
                '"two_tower.learning_rate" = {type = "float", low = 0.001, high = 0.02, log = true}.'
            )
        for setting, parameter in tune.space.items():
            self._check_setting(setting, parameter)
        self._check_objective()
        if tune.algorithm == "hyperband":
            self._check_hyperband()
        make_space(tune, self.own)

    def _check_setting(self, setting: str, parameter: ParameterConfig) -> None:
        config, name, images = self.config, self.recommender, self.config.features.images
        if setting.partition(".")[0] not in _TUNABLE or setting.startswith(_FIXED):
            raise InputError(
                f"tune.space: `{setting}` cannot be searched. Settings of {', '.join(_TUNABLE)} can, except for {', '.join(_FIXED)}: "
                "others would change what trials are evaluated on, or what is prepared for all of them."
            )
        if setting == "features.categorical" and images.folder and not images.weights:
            raise InputError(
                "tune.space: `features.categorical` cannot be searched here: the image network learns from it, and is fitted once for "
                "all trials. Give the network weights (`features.images.weights`), or leave the setting out."
            )
        if setting == "features.categorical" and self.objective.metric in _METRICS_OF_CATEGORIES:
            raise InputError(
                f"tune.space: `features.categorical` cannot be searched by `{self.objective.figure}`, which is measured by them."
            )
        try:
            read_setting(config, setting)
        except InputError as error:
            raise InputError(f"tune.space: {error}") from error
        values: list[Any] = [plain(value) for value in parameter.values]
        if parameter.type != "choice":
            low, high = parameter.bounds
            # If both ends are whole numbers, a setting that takes nothing else would accept them.
            values = [int(low), int(high)] if parameter.type == "int" else [low, high, low + _IRRATIONAL * (high - low)]
        others = {**self.own, **self._fulfil_conditions(setting)}
        before, *changed = (
            change(config, self.complete(each)).settings_of(name)
            for each in (others, *({**others, setting: value} for value in values))
        )
        if all(each == before for each in changed):
            raise InputError(
                f"tune.space: `{setting}` changes nothing of `{name}`, so all trials would be alike. Leave it out, or search for settings "
                "of another recommender (`tune.recommender`)."
            )

    def _check_objective(self) -> None:
        rankers, objective, k = self.ranker_settings, self.objective, self.config.evaluation.k
        if rankers is None:
            if not objective.k and not self.config.evaluation.full_ranking_customers:
                near = find_nearest(objective.figure, ACCURACY_METRICS) or "map"
                raise InputError(
                    f"tune.objective: `{objective.figure}` has no length such as {near}@{k}, and metrics without one are of full "
                    "rankings. Name a metric of lists with its length, or set `evaluation.full_ranking_customers`."
                )
            return
        if len(rankers.rankers) != 1:
            raise InputError(
                f"generators.{self.recommender}.rankers: {len(rankers.rankers)} rankers are fitted separately, each with settings of its "
                "own. Search for those of one at a time."
            )
        if not objective.is_of_customers:
            known = ", ".join(f"{metric}@{k}" for metric in ACCURACY_METRICS)
            raise InputError(
                f"tune.objective: `{objective.figure}` is not measured for rankers; choose one of {known}."
            )

    def _check_hyperband(self) -> None:
        tune, setting = self.config.tune, self.epochs_setting
        if not setting:
            raise InputError(
                f'tune.algorithm: "hyperband" gives trials epochs, and `{self.recommender}` has none; choose another.'
            )
        if self.max_epochs is None:
            raise InputError(f"tune.space: `{setting}` is what Hyperband gives its trials; leave it out.")
        if self.max_epochs < tune.factor:
            raise InputError(
                f"{setting}: {self.max_epochs}, and Hyperband divides it by {tune.factor} (`tune.factor`) for its first trials; raise it, "
                "or choose another `tune.algorithm`."
            )
        needed = count_hyperband_draws(self.max_epochs, tune.factor)
        # Conditions can only reduce this number.
        available = math.prod(parameter.num_values for parameter in tune.space.values())
        if available < needed:
            raise InputError(
                f"tune.space: {available:.0f} settings at most, and Hyperband draws {needed} in a sweep of {self.max_epochs} epochs; none "
                'would go on to more of them. Try all of them with tune.algorithm = "random", or widen the space.'
            )
