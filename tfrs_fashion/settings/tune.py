"""The section `[tune]` of a pipeline file: which settings a search may try, and the metric that it chooses by."""

import math
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tfrs_fashion.settings.base import Section

Value = bool | int | float | str | tuple[bool | int | float | str, ...]


class ParameterConfig(Section):
    """The values that a search may give one setting of the pipeline.

    Attributes:
        type: `float` and `int` lie between `low` and `high`, both included; `choice` is one of `values`.
        low: The lowest value.
        high: The highest value.
        step: The distance between neighbouring values; by default a `float` may take any value in the range.
        log: Whether values are drawn uniformly on a logarithmic scale.
        values: The values to choose from. Lists are values too, e.g. `[[], [128], [128, 64]]`.
        when: Conditions: other settings of the space, and their values with which this one takes effect. All must hold.
    """

    type: Literal["float", "int", "choice"]
    low: float | None = None
    high: float | None = None
    step: float | None = Field(default=None, gt=0)
    log: bool = False
    values: tuple[Value, ...] = ()
    when: dict[str, tuple[Value, ...]] = {}

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.type == "choice":
            if len(self.values) < 2 or len({repr(value) for value in self.values}) < len(self.values):
                raise ValueError("`values` must name at least two values, each once")
            extra = [name for name in ("low", "high", "step") if getattr(self, name) is not None] + ["log"] * self.log
            if extra:
                raise ValueError(f"a choice has only `values`; leave out {', '.join(extra)}")
        elif self.values:
            raise ValueError(f'`values` are for the type "choice", and this is "{self.type}"')
        elif self.low is None or self.high is None:
            raise ValueError(f"a {self.type} needs `low` and `high`")
        elif not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"`low` is {self.low:g} and `high` is {self.high:g}; expected `low` below `high`")
        elif self.log and self.low <= 0:
            raise ValueError(f"`log` needs a `low` above 0, and it is {self.low:g}")
        elif self.log and self.step is not None:
            raise ValueError("`step` and `log` exclude each other; leave one out")
        elif self.type == "int" and any(value != int(value) for value in (self.low, self.high, self.step or 1)):
            raise ValueError("an int has whole numbers as `low`, `high` and `step`")
        if empty := [name for name, values in self.when.items() if not values]:
            raise ValueError(f"`when.{empty[0]}` names no value, so this setting would never be tried")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest number of a range."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers; booleans are none."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    @property
    def num_values(self) -> float:
        """The number of distinct values; infinite for a continuous range."""
        if self.type == "choice":
            return len(self.values)
        step = self.step or (1 if self.type == "int" else None)
        low, high = self.bounds
        return math.inf if step is None else math.floor((high - low) / step + 1e-9) + 1

    def __contains__(self, value: Any) -> bool:
        if self.type == "choice":
            return plain(value) in plain(self.values)
        low, high = self.bounds
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


class TuneConfig(Section):
    """A search for better settings of one recommender, evaluated on the validation window.

    Attributes:
        recommender: The recommender; by default the one of `recommend.recommender`.
        objective: A metric of the report, e.g. `map@12`, `recall@200`, `ndcg@12` or `map@12_new`; `map` at
            `evaluation.k` by default.
        direction: Whether a higher (`max`) or a lower (`min`) objective is better.
        algorithm: `random`, `bayesian` (a Gaussian process), or `hyperband` (many trials of few epochs, few of all
            epochs).
        max_trials: The maximum number of trials, including the first one, which has the pipeline's own settings.
            `hyperband` ignores it: see `num_sweeps`.
        max_minutes: No trial begins after this time; 0 for no limit. It is counted anew when a search is resumed.
        num_sweeps: The number of sweeps of `hyperband` over all its brackets.
        factor: How many times more epochs, and how many times fewer trials, each next round of `hyperband` has.
        num_initial_trials: The number of random trials before `bayesian` asks the Gaussian process; 0 for three per
            setting.
        prune: Whether a trial ends early if after some epoch it is worse than the median of the trials before it.
        min_trials: The number of finished trials before any is pruned.
        max_failures: The number of trials failing in a row that ends the search.
        max_kills: How often a trial's process may be killed (e.g. out of memory) before the trial counts as failed.
        space: Settings by their dotted names, e.g. `recommender.two_tower.learning_rate`, and the values that each may
            take.
    """

    recommender: str = ""
    objective: str = ""
    direction: Literal["max", "min"] = "max"
    algorithm: Literal["random", "bayesian", "hyperband"] = "bayesian"
    max_trials: int = Field(default=40, ge=2)
    max_minutes: float = Field(default=0.0, ge=0)
    num_sweeps: int = Field(default=1, ge=1)
    factor: int = Field(default=3, ge=2)
    num_initial_trials: int = Field(default=0, ge=0)
    prune: bool = True
    min_trials: int = Field(default=5, ge=2)
    max_failures: int = Field(default=3, ge=1)
    max_kills: int = Field(default=3, ge=1)
    space: dict[str, ParameterConfig] = {}

    @field_validator("space", mode="before")
    @classmethod
    def _check_quotes(cls, space: Any) -> Any:
        for section, inner in space.items() if isinstance(space, dict) else ():
            nested = [key for key, value in inner.items() if isinstance(value, dict)] if isinstance(inner, dict) else []
            if nested and "type" not in inner:
                raise ValueError(f'put the whole name of a setting in quotes: "{section}.{nested[0]}" = {{...}}')
        return space

    @model_validator(mode="after")
    def _check_conditions(self) -> Self:
        conditions = [(name, *item) for name, parameter in self.space.items() for item in parameter.when.items()]
        for name, other, values in conditions:
            if other == name or other not in self.space:
                raise ValueError(f"`tune.space.{name}.when` names `{other}`, which is no other setting of the space")
            parent = self.space[other]
            if parent.type != "choice":
                raise ValueError(
                    f"`tune.space.{name}.when` names `{other}`, which is a {parent.type}; a condition needs a choice"
                )
            if unknown := [value for value in values if value not in parent.values]:
                raise ValueError(
                    f"`tune.space.{name}.when.{other}` names {unknown[0]!r}, which is none of the values of `{other}`"
                )
        ordered(self.space)
        return self


def ordered(space: dict[str, ParameterConfig]) -> list[str]:
    """Orders the settings of a space so that each comes after those that its conditions name.

    Raises:
        ValueError: Some settings depend on each other in a circle.
    """
    names: list[str] = []
    while left := [name for name in space if name not in names]:
        ready = [name for name in left if set(space[name].when) <= set(names)]
        if not ready:
            raise ValueError(f"`tune.space`: {', '.join(left)} depend on each other in a circle")
        names += ready
    return names


def plain(value: Any) -> Any:
    """Returns a value in the types of TOML and JSON, with lists for tuples."""
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value
