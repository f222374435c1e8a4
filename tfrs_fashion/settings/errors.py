"""Messages about mistakes in a pipeline file, in plain words."""

import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from tfrs_fashion.schema import find_nearest
from tfrs_fashion.settings.recommenders import CONFIGS


def moved_key(key: str) -> str:
    """Returns the present name of a setting from before every recommender was configured alike; empty for any other.

    Args:
        key: Dotted name, e.g. `generators.gru.dropout` or `two_tower.epochs`.
    """
    section, _dot, rest = key.partition(".")
    if section == "generators":
        return f"recommender.{rest}" if rest else "recommender"
    return f"recommender.{key}" if section in {"two_tower", "blend"} else ""


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in {types.UnionType, typing.Union}:
        for part in typing.get_args(annotation):
            if (section := _section_of(part)) is not None:
                return section
    return None


def _valid_keys(location: Sequence[int | str], pipeline: type[BaseModel]) -> list[str]:
    section: type[BaseModel] = pipeline
    if location[:1] == ("recommender",) and len(location) >= 3:
        # The location of a recommender's key is `recommender`, its name, its kind, the key.
        section, location = CONFIGS[str(location[2])], location[3:]
    for name in location:
        field = section.model_fields.get(str(name))
        inner = _section_of(field.annotation) if field else None
        if inner is None:
            break
        section = inner
    return list(section.model_fields)


_EXPECTED = {
    "tuple_type": "expected a list",
    "dict_type": "expected a table of names",
    "model_type": "expected a section of keys",
    "string_type": "expected text in quotes",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "too_short": "expected a longer list",
    "string_too_short": "expected some text",
}


def _plain_words(kind: str, message: str) -> str:
    """Says what was expected without the words of Python."""
    return _EXPECTED.get(kind, message.removeprefix("Value error, ").replace("Input should be", "expected"))


def explain(error: ValidationError, pipeline: type[BaseModel]) -> str:
    """Describes each mistake: its key, what was expected, and the nearest valid key if it does not exist.

    Args:
        error: The error of a pipeline file.
        pipeline: The model of the whole file.
    """
    lines = []
    for mistake in error.errors():
        location = mistake["loc"]
        # A recommender's kind is part of the location, but not of the key.
        shown = location[:2] + location[3:] if location[:1] == ("recommender",) else location
        key = ".".join(str(part) for part in shown)
        if mistake["type"] == "extra_forbidden":
            valid = _valid_keys(location[:-1], pipeline)
            near = find_nearest(str(location[-1]), valid)
            hint = f"did you mean `{near}`?" if near else f"valid keys: {', '.join(valid)}"
            lines.append(f"unknown key `{key}`; {hint}")
        elif mistake["type"] == "missing":
            lines.append(f"missing key `{key}`")
        elif mistake["type"] == "union_tag_not_found":
            lines.append(f"missing key `{key}.kind`: the kind of this recommender, one of {', '.join(CONFIGS)}")
        elif key == "name":
            lines.append(
                f"`name` is {mistake['input']!r}, but may hold only letters, digits, - and _. It is the file's name "
                'unless the file says otherwise: write name = "..." at its top'
            )
        else:
            message = _plain_words(mistake["type"], mistake["msg"])
            where = f"`{key}`: " if key else ""
            whole = isinstance(mistake["input"], dict | BaseModel)  # the message about a section names the key itself
            lines.append(f"{where}{message}" + (f" (found {mistake['input']!r})" if key and not whole else ""))
    return "; ".join(lines)
