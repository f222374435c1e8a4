import json
import math
from pathlib import Path
from typing import Any

import pytest
from keras_tuner import HyperParameters
from keras_tuner.engine.hyperparameters import Float, HyperParameter, Int

from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.file import read_setting
from tfrs_fashion.settings.pipeline import load_config
from tfrs_fashion.settings.tune import ParameterConfig, TuneConfig
from tfrs_fashion.tuning.oracle import count_hyperband_draws
from tfrs_fashion.tuning.space import decode, encode, make_space, round_values

SPACE: dict[str, Any] = {
    "depth": {"type": "int", "low": 1, "high": 9},
    "rate": {"type": "float", "low": 0.001, "high": 0.1, "log": True},
    "dims": {"type": "choice", "values": [[], [8], [8, 4]]},
    "kind": {"type": "choice", "values": ["plain", "cross"]},
    "crosses": {"type": "int", "low": 1, "high": 4, "when": {"kind": ["cross"]}},
}
OWN: dict[str, Any] = {"depth": 3, "rate": 0.01, "dims": (8,), "kind": "plain", "crosses": 2}


def round_one(parameter: HyperParameter, value: float) -> float:
    space = HyperParameters()
    space.merge([parameter])
    return float(round_values(space, {parameter.name: value})[parameter.name])


@pytest.mark.parametrize("name", list(SPACE))
def test_decode_inverts_encode(name: str) -> None:
    parameter = TuneConfig.model_validate({"space": SPACE}).space[name]
    for value in parameter.values or (int(parameter.low or 0) or parameter.low, parameter.high):
        decoded = decode(parameter, json.loads(json.dumps(encode(parameter, value))))
        assert decoded == (list(value) if isinstance(value, tuple) else value)


def test_drawn_numbers_are_rounded_to_four_digits_within_their_range() -> None:
    rate = Float("rate", 0.0123456, 0.0987654, sampling="log", default=0.0234567)
    # The pipeline's own value is not drawn.
    assert [round_one(rate, value) for value in (0.0345678, 0.0123456, 0.0987654, 0.0234567)] == [
        *(0.03457, 0.01235, 0.0987654),
        0.0234567,
    ]
    steps = Float("steps", 1.0, 1.001, step=0.00005, default=1.0)
    assert round_one(steps, 1.0 + 7 * 0.00005) == 1.00035
    assert round_one(Int("size", 1, 20, sampling="log", default=1), 21) == 20


def test_num_values_and_hyperband_draws_are_counted() -> None:
    space = TuneConfig.model_validate({"space": SPACE}).space
    num_values = {name: parameter.num_values for name, parameter in space.items()}
    assert num_values == {"depth": 9, "rate": math.inf, "dims": 3, "kind": 2, "crosses": 4}
    assert ParameterConfig(type="float", low=0.0, high=0.3, step=0.1).num_values == 4
    # Li et al. 2018, table 1, with brackets of keras-tuner's sizes.
    assert count_hyperband_draws(9, 3) == 9 + 5 + 3


def test_numeric_choices_stay_numbers_and_mixed_ones_become_text() -> None:
    space = TuneConfig.model_validate(
        {"space": {"a": {"type": "choice", "values": [1, 2.5]}, "b": {"type": "choice", "values": [1, "two", True]}}}
    ).space
    assert [encode(space["a"], value) for value in (1, 2.5)] == [1.0, 2.5]
    assert [encode(space["b"], value) for value in (1, "two", True)] == ["1", '"two"', "true"]


def test_own_value_outside_the_space_is_refused() -> None:
    settings = TuneConfig.model_validate({"space": SPACE})
    with pytest.raises(
        InputError, match=r"tune\.space\.depth: the pipeline's own value is 12, which is not between 1 and 9"
    ):
        make_space(settings, {**OWN, "depth": 12})
    with pytest.raises(InputError, match=r"tune\.space\.dims: .* is \[3\], which is none of \[\], \[8\], \[8, 4\]"):
        make_space(settings, {**OWN, "dims": (3,)})


def test_own_settings_of_every_shipped_pipeline_lie_in_its_space(root: Path) -> None:
    searched = []
    for path in sorted((root / "pipelines").glob("*.toml")):
        config = load_config(path)
        if config.tune.space:
            make_space(config.tune, {name: read_setting(config, name) for name in config.tune.space})
            searched.append(path.stem)
    assert searched == ["complete_journey", "rent_the_runway", "tiny"]
