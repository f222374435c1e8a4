"""The space of a search as keras-tuner knows it: settings, their ranges, and what is tried of a value that was drawn."""

import json
import math
from collections.abc import Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine.hyperparameters import Choice, Float, HyperParameter, Int
from keras_tuner.src.engine.conditions import Parent

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.tune import ParameterConfig, TuneConfig, ordered, plain


def _is_numeric(parameter: ParameterConfig) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in parameter.values)


def encode(parameter: ParameterConfig, value: Any) -> Any:
    """Returns a value as keras-tuner knows it: choices of one type, so that lists and mixed ones are JSON."""
    if parameter.type == "choice" and not _is_numeric(parameter):
        return json.dumps(plain(value))
    if parameter.type == "float" or (
        parameter.type == "choice" and any(isinstance(v, float) for v in parameter.values)
    ):
        return float(value)
    return value


def decode(parameter: ParameterConfig, value: Any) -> Any:
    """Returns the setting that `encode` was given."""
    if parameter.type == "choice":
        return value if _is_numeric(parameter) else json.loads(value)
    return int(value) if parameter.type == "int" else float(value)


def write_down(hp: HyperParameter, value: Any) -> Any:
    """Returns what is tried of a drawn value: four digits, as one would write it down, or a step of the range; the default as it is."""
    if value == hp.default or not isinstance(hp, Float | Int):
        return value
    # At the upper end of a logarithmic range keras-tuner rounds whole numbers beyond it.
    drawn = int(value) if isinstance(hp, Int) else float(f"{value:.{4 if hp.step is None else 10}g}")
    return min(max(drawn, hp.min_value), hp.max_value)


def count_settings(space: Mapping[str, ParameterConfig]) -> float:
    """Counts the settings that a space holds; conditions are not looked at, so that it is at most so many."""

    def count(parameter: ParameterConfig) -> float:
        if parameter.type == "choice":
            return len(parameter.values)
        step = parameter.step or (1 if parameter.type == "int" else None)
        assert parameter.low is not None
        assert parameter.high is not None
        return math.inf if step is None else math.floor((parameter.high - parameter.low) / step + 1e-9) + 1

    return math.prod(count(parameter) for parameter in space.values())


def count_hyperband_draws(max_epochs: int, factor: int) -> int:
    """Counts the settings that Hyperband draws in one sweep."""
    oracle = keras_tuner.oracles.HyperbandOracle(
        keras_tuner.Objective("any", "max"), max_epochs=max_epochs, factor=factor
    )
    return sum(oracle._get_size(bracket, 0) for bracket in range(oracle._get_num_brackets()))


def _holds(parameter: ParameterConfig, value: Any) -> bool:
    if parameter.type == "choice":
        return plain(value) in plain(parameter.values)
    assert parameter.low is not None
    assert parameter.high is not None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and parameter.low <= value <= parameter.high


def make_space(settings: TuneConfig, own: Mapping[str, Any]) -> keras_tuner.HyperParameters:
    """Makes the space of a search, in which every setting starts from the pipeline's own.

    Args:
        settings: Of the search.
        own: What the pipeline says of each setting of the space.

    Raises:
        InputError: The pipeline's own value of a setting is not in the space, so there would be nothing to compare with.
    """
    space = keras_tuner.HyperParameters()
    for name in ordered(settings.space):
        parameter = settings.space[name]
        if not _holds(parameter, own[name]):
            known = (
                f"none of {', '.join(repr(plain(value)) for value in parameter.values)}"
                if parameter.type == "choice"
                else f"not between {parameter.low:g} and {parameter.high:g}"
            )
            raise InputError(
                f"tune.space.{name}: the pipeline's own value is {plain(own[name])!r}, which is {known}. A search starts from it, to have "
                "what it is compared with: widen the range, or change the pipeline's value."
            )
        space.merge([_make_parameter(name, parameter, settings.space, default=encode(parameter, own[name]))])
    return space


def _make_parameter(
    name: str, parameter: ParameterConfig, others: Mapping[str, ParameterConfig], *, default: Any
) -> HyperParameter:
    conditions = [
        Parent(other, [encode(others[other], value) for value in values]) for other, values in parameter.when.items()
    ]
    told: dict[str, Any] = {"default": default, "conditions": conditions}
    if parameter.type == "choice":
        choices = [encode(parameter, value) for value in parameter.values]
        return Choice(name, choices, ordered=_is_numeric(parameter), **told)
    assert parameter.low is not None
    assert parameter.high is not None
    told["sampling"] = "log" if parameter.log else "linear"
    if parameter.type == "float":
        return Float(name, parameter.low, parameter.high, step=parameter.step, **told)
    step = None if parameter.log else int(parameter.step or 1)
    return Int(name, int(parameter.low), int(parameter.high), step=step, **told)
