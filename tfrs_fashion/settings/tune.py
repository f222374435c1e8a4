"""The section `[tune]` of a pipeline file: what a search over settings may try, and by which figure it chooses."""

import math
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tfrs_fashion.settings.base import Section

Value = bool | int | float | str | tuple[bool | int | float | str, ...]


class ParameterConfig(Section):
    """What a search may set one setting of the pipeline to.

    Attributes:
        type: `float` and `int` lie between `low` and `high`, both included; `choice` is one of `values`.
        low: The lowest value.
        high: The highest one.
        step: Between two values; none for any number in the range.
        log: Whether values are drawn evenly by their logarithm.
        values: To choose from. Lists are values too, e.g. `[[], [128], [128, 64]]`.
        when: Other settings of the space, all of which must have one of the values named for this one to matter.
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
            if (
                told := [name for name in ("low", "high", "step") if getattr(self, name) is not None]
                + ["log"] * self.log
            ):
                raise ValueError(f"a choice has `values` alone; leave out {', '.join(told)}")
            return self
        if self.values:
            raise ValueError(f'`values` are for the type "choice", and this is "{self.type}"')
        if self.low is None or self.high is None:
            raise ValueError(f"a {self.type} needs `low` and `high`")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"`low` is {self.low:g} and `high` is {self.high:g}; expected `low` below `high`")
        if self.log and self.low <= 0:
            raise ValueError(f"`log` needs a `low` above 0, and it is {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("`step` and `log` exclude each other; leave one out")
        if self.type == "int" and any(value != int(value) for value in (self.low, self.high, self.step or 1)):
            raise ValueError("an int has whole numbers as `low`, `high` and `step`")
        return self

    @model_validator(mode="after")
    def _check_conditions(self) -> Self:
        if empty := [key for key, values in self.when.items() if not values]:
            raise ValueError(f"`when.{empty[0]}` names no value, so this setting would never be tried")
        return self


class TuneConfig(Section):
    """A search over settings of one recommender, judged on the validation window.

    Attributes:
        recommender: Which one; `recommend.recommender`'s own where empty.
        objective: A figure of the report, e.g. `map@12`, `recall@200`, `ndcg@12` or `map@12_new`.
        direction: Whether it is to rise or to fall.
        algorithm: `random`, `bayesian` (a Gaussian process), or `hyperband` (many trials of few epochs, few of all).
        max_trials: Trials at most, the pipeline's own settings being the first; of `hyperband`, `num_sweeps` says how many.
        max_minutes: After so long no further trial begins; 0 for no limit. Of a search that goes on, the time counts anew.
        num_sweeps: Of `hyperband`: sweeps over all its brackets.
        factor: Of `hyperband`: how many times more epochs each next round has, and how many times fewer trials.
        num_initial_trials: Of `bayesian`: trials by chance before the process is asked; 0 for three for each setting.
        stops_hopeless: Whether a trial ends that after some epoch is below the median of those before it at that epoch.
        min_trials: Finished trials before any is called hopeless.
        max_failures: So many trials in a row that fail end the search.
        max_kills: So many times a trial may be killed with its process (by the system, for want of memory, say) before it is
            given up as failed.
        space: Settings by their dotted names, e.g. `two_tower.learning_rate`, and what each may be.
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
    stops_hopeless: bool = True
    min_trials: int = Field(default=5, ge=2)
    max_failures: int = Field(default=3, ge=1)
    max_kills: int = Field(default=3, ge=1)
    space: dict[str, ParameterConfig] = {}

    @field_validator("space", mode="before")
    @classmethod
    def _check_quotes(cls, space: Any) -> Any:
        for section, inner in space.items() if isinstance(space, dict) else ():
            if (
                isinstance(inner, dict)
                and "type" not in inner
                and any(isinstance(held, dict) for held in inner.values())
            ):
                key = next(key for key, held in inner.items() if isinstance(held, dict))
                raise ValueError(f'put the whole name of a setting in quotes: "{section}.{key}" = {{...}}')
        return space

    @model_validator(mode="after")
    def _check_space(self) -> Self:
        for name, parameter in self.space.items():
            for other, values in parameter.when.items():
                if other == name or other not in self.space:
                    raise ValueError(
                        f"`tune.space.{name}.when` names `{other}`, which is no other setting of the space"
                    )
                found = self.space[other]
                if found.type != "choice":
                    raise ValueError(
                        f"`tune.space.{name}.when` names `{other}`, which is a {found.type}; a condition needs a choice"
                    )
                if unknown := [value for value in values if value not in found.values]:
                    raise ValueError(
                        f"`tune.space.{name}.when.{other}` names {unknown[0]!r}, which is none of the values of `{other}`"
                    )
        ordered(self.space)
        return self


def ordered(space: dict[str, ParameterConfig]) -> list[str]:
    """Orders the settings of a space so that each comes after those that it depends on.

    Raises:
        ValueError: Some depend on each other in a circle.
    """
    done: list[str] = []
    left = list(space)
    while left:
        ready = [name for name in left if set(space[name].when) <= set(done)]
        if not ready:
            raise ValueError(f"`tune.space`: {', '.join(left)} depend on each other in a circle")
        done += ready
        left = [name for name in left if name not in done]
    return done


def plain(value: Any) -> Any:
    """Returns a value as TOML and JSON know it, with lists for tuples."""
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value
