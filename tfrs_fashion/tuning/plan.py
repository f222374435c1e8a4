"""What a search is to do: which settings of which recommender it tries, by which figure, and whether that makes sense."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tfrs_fashion.evaluation.metrics.accuracy import ACCURACY_METRICS
from tfrs_fashion.run.objective import Objective
from tfrs_fashion.schema import InputError, find_nearest
from tfrs_fashion.settings.file import change, read_default, read_setting
from tfrs_fashion.settings.pipeline import PipelineConfig
from tfrs_fashion.settings.rankers import TwoStageConfig
from tfrs_fashion.settings.tune import ParameterConfig, ordered, plain
from tfrs_fashion.tuning.space import count_hyperband_draws, count_settings, make_space

# Settings that a search may not touch: what is judged would be another thing from trial to trial, or would be prepared anew.
_TUNABLE = ("two_tower", "generators", "blend", "features")
_FIXED = (
    "blend.week_days",
    "features.profile",
    "features.profile_numbers",
    "features.images",
    "features.sentence_encoder",
    "features.roles",
)
# Metrics of how alike articles are, which their categories tell.
_BY_CATEGORIES = ("diversity",)
# Where within a range of numbers a value lies that no whole number is.
_INNER = math.sqrt(2.0) - 1.0


@dataclass
class SearchPlan:
    """The search that a pipeline declares.

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
        """What settings are chosen by."""
        tune = self.config.tune
        return Objective(tune.objective or f"map@{self.config.evaluation.k}", tune.direction)

    @property
    def is_two_stage(self) -> bool:
        """Whether settings of a ranker are searched."""
        return isinstance(self.config.generators.get(self.recommender), TwoStageConfig)

    @cached_property
    def budget(self) -> str:
        """The setting that says how many epochs (of trees: rounds) a trial has; empty where there is none."""
        name = self.recommender
        if name == "two_tower":
            return "two_tower.epochs"
        made = self.config.generators.get(name)
        if isinstance(made, TwoStageConfig):
            kind = "network.epochs" if made.rankers == ("network",) else "lightgbm.rounds"
            return f"generators.{name}.{kind}"
        return f"generators.{name}.epochs" if hasattr(made, "epochs") else ""

    @property
    def can_be_ended_early(self) -> bool:
        """Whether trials are judged after each of several epochs, as many for all."""
        return self.budget.endswith(".epochs") and self.budget not in self.config.tune.space

    @property
    def own(self) -> dict[str, Any]:
        """What the pipeline says of the settings that are searched."""
        return {name: read_setting(self.config, name) for name in self.config.tune.space}

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Completes what a trial tries: what matters with the pipeline's own settings, and not with these, is at its default.

        Args:
            values: Settings of the space by their names; those whose condition does not hold are left out.
        """
        tried = {name: values[name] for name in self._active(values)}
        left = [name for name in self._active(self.own) if name not in tried]
        return {**tried, **{name: read_default(self.config, name) for name in left}}

    def _active(self, values: Mapping[str, Any]) -> list[str]:
        space = self.config.tune.space
        active: list[str] = []
        for name in ordered(space):
            conditions = space[name].when.items()
            if name in values and all(
                other in active and plain(values[other]) in plain(wanted) for other, wanted in conditions
            ):
                active.append(name)
        return active

    def _condition(self, setting: str) -> dict[str, Any]:
        """Values of other settings with which one matters: the pipeline's own, where it does with these."""
        found: dict[str, Any] = {}
        for other, wanted in self.config.tune.space[setting].when.items():
            own = self.own[other]
            found |= {**self._condition(other), other: own if plain(own) in plain(wanted) else wanted[0]}
        return found

    def check(self) -> None:
        """Refuses a search that could not be run, before anything is prepared.

        Raises:
            InputError: Saying which setting of the search is wrong.
        """
        tune, config, name = self.config.tune, self.config, self.recommender
        known = dict.fromkeys([*config.fitted, *config.generators, "two_tower", "blend"])
        if name not in known:
            near = find_nearest(name, list(known))
            hint = f"did you mean `{near}`?" if near else f"known are {', '.join(known)}."
            raise InputError(f"tune.recommender: nothing makes `{name}`; {hint}")
        if not tune.space:
            raise InputError(
                "tune.space: nothing to search. Name settings of the pipeline there and what each may be, e.g. "
                '"two_tower.learning_rate" = {type = "float", low = 0.001, high = 0.02, log = true}.'
            )
        for setting, parameter in tune.space.items():
            self._check_setting(setting, parameter)
        if self.is_two_stage:
            self._check_two_stage()
        elif not self.objective.k and not config.evaluation.full_ranking_customers:
            near = find_nearest(self.objective.figure, ACCURACY_METRICS)
            raise InputError(
                f"tune.objective: `{self.objective.figure}` has no length such as {near or 'map'}@{config.evaluation.k}, and figures without "
                "one are of full rankings. Name a figure of lists with its length, or set `evaluation.full_ranking_customers`."
            )
        if tune.algorithm == "hyperband":
            self._check_hyperband()
        make_space(tune, self.own)

    def _check_setting(self, setting: str, parameter: ParameterConfig) -> None:
        config, name = self.config, self.recommender
        if setting.partition(".")[0] not in _TUNABLE or setting.startswith(_FIXED):
            raise InputError(
                f"tune.space: `{setting}` cannot be searched. Settings of {', '.join(_TUNABLE)} can, but for {', '.join(_FIXED)}: "
                "others would change what trials are judged by, or what is prepared for all of them."
            )
        if setting == "features.categorical" and config.features.images.folder and not config.features.images.weights:
            raise InputError(
                "tune.space: `features.categorical` cannot be searched here, since the network of the images learns from them, and "
                "is fitted once for all trials. Give it weights (`features.images.weights`), or leave the setting out."
            )
        try:
            read_setting(config, setting)
        except InputError as error:
            raise InputError(f"tune.space: {error}") from error
        tried: list[Any] = [plain(value) for value in parameter.values]
        if parameter.type != "choice":
            assert parameter.low is not None
            assert parameter.high is not None
            ends = [parameter.low, parameter.high]
            # A whole number at both ends would hide that the setting takes no others.
            inner = parameter.low + _INNER * (parameter.high - parameter.low)
            tried = [int(value) for value in ends] if parameter.type == "int" else [*ends, inner]
        if setting == "features.categorical" and self.objective.metric in _BY_CATEGORIES:
            raise InputError(
                f"tune.space: `features.categorical` cannot be searched by `{self.objective.figure}`, which is measured by them."
            )
        others = {**self.own, **self._condition(setting)}
        before, *changed = (
            change(config, self.complete(values))
            for values in (others, *({**others, setting: value} for value in tried))
        )
        if all(other.settings_of(name) == before.settings_of(name) for other in changed):
            raise InputError(
                f"tune.space: `{setting}` changes nothing of `{name}`, so that all trials would be alike. Leave it out, or search "
                "for settings of another recommender (`tune.recommender`)."
            )

    def _check_two_stage(self) -> None:
        made, k = self.config.generators[self.recommender], self.config.evaluation.k
        assert isinstance(made, TwoStageConfig)
        if len(made.rankers) != 1:
            raise InputError(
                f"generators.{self.recommender}.rankers: {len(made.rankers)} rankers are fitted apart, and each has settings of its "
                "own. Search for those of one at a time."
            )
        if not self.objective.is_of_customers:
            known = ", ".join(f"{metric}@{k}" for metric in ACCURACY_METRICS)
            raise InputError(
                f"tune.objective: `{self.objective.figure}` is not known of a ranker; choose one of {known}."
            )

    def _check_hyperband(self) -> None:
        tune, config, budget = self.config.tune, self.config, self.budget
        if not budget:
            raise InputError(
                f'tune.algorithm: "hyperband" gives trials epochs, and `{self.recommender}` has none; choose another.'
            )
        if budget in tune.space:
            raise InputError(f"tune.space: `{budget}` is what Hyperband gives its trials; leave it out.")
        if (epochs := read_setting(config, budget)) < tune.factor:
            raise InputError(
                f"{budget}: {epochs}, and Hyperband divides it by {tune.factor} (`tune.factor`) for its first trials; raise it, or "
                "choose another `tune.algorithm`."
            )
        needed, known = count_hyperband_draws(epochs, tune.factor), count_settings(tune.space)
        if known < needed:
            raise InputError(
                f"tune.space: {known:.0f} settings at most, and Hyperband draws {needed} in a sweep of {epochs} epochs; none would go on "
                'to more of them. Try all of them with tune.algorithm = "random", or widen the space.'
            )
