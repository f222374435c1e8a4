"""A pipeline that is written as TOML is read as the same pipeline."""

import tomllib
from pathlib import Path

import pytest

from tfrs_fashion.config_text import write_toml

AWKWARD = {
    "name": 'a "quoted" \\ name\nin two lines \x7f Größe',
    "truth": True,
    "number": -1,
    "rate": 1e-05,
    "empty": [],
    "lists": [[1, 2], ["a"]],
    "rows": [{"Weiß und schwarz": 1, "b": "c", "left out": None}],
    "Größe [x]": {"deep": {"er": 0.5}},
    "nothing": {},
}


def test_awkward_texts_and_keys_come_back() -> None:
    read = tomllib.loads(write_toml(AWKWARD))
    assert read == {**AWKWARD, "rows": [{"Weiß und schwarz": 1, "b": "c"}]}


def test_keys_of_a_section_stay_in_it() -> None:
    # In TOML, what follows a section's head belongs to it.
    assert tomllib.loads(write_toml({"section": {"a": 1}, "b": 2})) == {"section": {"a": 1}, "b": 2}


def test_null_is_left_out() -> None:
    assert write_toml({"a": None, "b": 1}) == "b = 1"


def test_what_has_no_place_in_toml_is_refused() -> None:
    with pytest.raises(TypeError, match="has no place in TOML"):
        write_toml({"a": Path("b")})
