"""The search space as keras-tuner's hyperparameters, and the values of settings as keras-tuner stores them."""

import json
from collections.abc import Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine.hyperparameters import Choice, Float, HyperParameter, Int
from keras_tuner.src.engine.conditions import Parent

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.tune import ParameterConfig, TuneConfig, ordered, plain


def encode(parameter: ParameterConfig, value: Any) -> Any:
    """Encodes the value of a setting for keras-tuner, whose choices are of one type: lists and mixed types become JSON."""
    if parameter.type == "choice" and not parameter.is_numeric:
        return json.dumps(plain(value))
    has_floats = parameter.type == "float" or any(isinstance(other, float) for other in parameter.values)
    return float(value) if has_floats else value


def decode(parameter: ParameterConfig, value: Any) -> Any:
    """Returns the value that `encode` was given."""
    if parameter.type == "choice":
        return value if parameter.is_numeric else json.loads(value)
    return int(value) if parameter.type == "int" else float(value)


def round_values(space: keras_tuner.HyperParameters, values: Mapping[str, Any]) -> dict[str, Any]:
    """Rounds drawn values as one would write them down: to four digits, or to a step of the range; defaults are kept."""
    parameters = {parameter.name: parameter for parameter in space.space}
    return {name: _round(parameters[name], v) if name in parameters else v for name, v in values.items()}


def _round(parameter: HyperParameter, value: Any) -> Any:
    if value == parameter.default or not isinstance(parameter, Float | Int):
        return value
    rounded = int(value) if isinstance(parameter, Int) else float(f"{value:.{4 if parameter.step is None else 10}g}")
    # keras-tuner may round whole numbers beyond the upper end of a logarithmic range.
    return min(max(rounded, parameter.min_value), parameter.max_value)


def make_space(settings: TuneConfig, own: Mapping[str, Any]) -> keras_tuner.HyperParameters:
    """Makes the space of a search, with the pipeline's own settings as defaults.

    Args:
        settings: The section `[tune]`.
        own: The pipeline's own value of each setting of the space.

    Raises:
        InputError: The pipeline's own value of a setting is not in the space, so there would be no baseline.
    """
    space = keras_tuner.HyperParameters()
    for name in ordered(settings.space):
        parameter = settings.space[name]
        if own[name] not in parameter:
            allowed = (
                f"none of {', '.join(repr(plain(value)) for value in parameter.values)}"
                if parameter.type == "choice"
                else "not between {:g} and {:g}".format(*parameter.bounds)
            )
            raise InputError(
                f"tune.space.{name}: the pipeline's own value is {plain(own[name])!r}, which is {allowed}. A search starts from it, as "
                "its baseline: widen the range, or change the pipeline's value."
            )
        space.merge([_make_hyperparameter(name, settings.space, default=encode(parameter, own[name]))])
    return space


def _make_hyperparameter(name: str, space: Mapping[str, ParameterConfig], *, default: Any) -> HyperParameter:
    parameter = space[name]
    conditions = [
        Parent(other, [encode(space[other], value) for value in values]) for other, values in parameter.when.items()
    ]
    kwargs: dict[str, Any] = {"default": default, "conditions": conditions}
    if parameter.type == "choice":
        choices = [encode(parameter, value) for value in parameter.values]
        return Choice(name, choices, ordered=parameter.is_numeric, **kwargs)
    low, high = parameter.bounds
    kwargs["sampling"] = "log" if parameter.log else "linear"
    if parameter.type == "float":
        return Float(name, low, high, step=parameter.step, **kwargs)
    return Int(name, int(low), int(high), step=None if parameter.log else int(parameter.step or 1), **kwargs)
