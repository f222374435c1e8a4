from typing import Any

import pytest

from tfrs_fashion.settings.tune import TuneConfig, ordered


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"a": {"type": "int", "low": 9, "high": 1}}, "`low` is 9 and `high` is 1; expected `low` below `high`"),
        ({"a": {"type": "float", "low": 0.0, "high": 1.0, "log": True}}, "`log` needs a `low` above 0"),
        ({"a": {"type": "float", "low": 0.0}}, "a float needs `low` and `high`"),
        ({"a": {"type": "int", "low": 1, "high": 2.5}}, "an int has whole numbers"),
        ({"a": {"type": "choice", "values": [1]}}, "at least two values, each once"),
        ({"a": {"type": "choice", "values": [1, 1]}}, "at least two values, each once"),
        ({"a": {"type": "choice", "values": [1, 2], "low": 0}}, "leave out low"),
        ({"a": {"type": "int", "low": 1, "high": 2, "values": [1]}}, '`values` are for the type "choice"'),
        ({"a": {"type": "float", "low": 1, "high": 2, "log": True, "step": 1}}, "exclude each other"),
        ({"a": {"type": "float", "low": float("nan"), "high": 2}}, "expected `low` below `high`"),
        ({"a": {"type": "int", "low": 1, "high": 2, "when": {"b": [1]}}}, "names `b`, which is no other setting"),
        (
            {"a": {"type": "int", "low": 1, "high": 2}, "b": {"type": "int", "low": 1, "high": 2, "when": {"a": [1]}}},
            "names `a`, which is a int; a condition needs a choice",
        ),
        (
            {
                "a": {"type": "choice", "values": [1, 2]},
                "b": {"type": "int", "low": 1, "high": 2, "when": {"a": [3]}},
            },
            "names 3, which is none of the values of `a`",
        ),
        (
            {
                "a": {"type": "choice", "values": [1, 2], "when": {"b": [1]}},
                "b": {"type": "choice", "values": [1, 2], "when": {"a": [1]}},
            },
            "a, b depend on each other in a circle",
        ),
    ],
)
def test_invalid_space_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        TuneConfig.model_validate({"space": space})


def test_settings_are_ordered_after_those_in_their_conditions() -> None:
    settings = TuneConfig.model_validate(
        {
            "space": {
                "c": {"type": "int", "low": 1, "high": 2, "when": {"b": [1]}},
                "b": {"type": "choice", "values": [1, 2], "when": {"a": ["x"]}},
                "a": {"type": "choice", "values": ["x", "y"]},
            }
        }
    )
    assert ordered(settings.space) == ["a", "b", "c"]
