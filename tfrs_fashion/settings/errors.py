"""What is wrong with a pipeline file, in the words of its reader."""

import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from tfrs_fashion.schema import find_nearest
from tfrs_fashion.settings.recommenders import GENERATOR_KINDS


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in {types.UnionType, typing.Union}:
        for part in typing.get_args(annotation):
            if (found := _section_of(part)) is not None:
                return found
    return None


def _valid_keys(location: Sequence[int | str], pipeline: type[BaseModel]) -> list[str]:
    section = pipeline
    if location[:1] == ("generators",) and len(location) == 3:
        # Of a generator the second place is its name, and the third its kind.
        return list(GENERATOR_KINDS[str(location[2])].model_fields)
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
    """Says of each finding which key it is about, what was expected, and what is nearest to a key that does not exist.

    Args:
        error: Of a pipeline file.
        pipeline: The model of the whole file.
    """
    lines = []
    for found in error.errors():
        location = found["loc"]
        # A generator's kind stands in its own section, and is no part of the key.
        shown = location[:2] + location[3:] if location[:1] == ("generators",) else location
        key = ".".join(str(part) for part in shown)
        if found["type"] == "extra_forbidden":
            valid = _valid_keys(location[:-1], pipeline)
            near = find_nearest(str(location[-1]), valid)
            hint = f"did you mean `{near}`?" if near else f"valid keys: {', '.join(valid)}"
            lines.append(f"unknown key `{key}`; {hint}")
        elif found["type"] == "missing":
            lines.append(f"missing key `{key}`")
        elif found["type"] == "union_tag_not_found":
            kinds = ", ".join(GENERATOR_KINDS)
            lines.append(f"missing key `{key}.kind`: the kind of this generator, one of {kinds}")
        elif key == "name":
            lines.append(
                f"`name` is {found['input']!r}, and may hold letters, digits, - and _ alone. It is the file's name "
                'unless the file says otherwise: write name = "..." at its top'
            )
        else:
            message = _plain_words(found["type"], found["msg"])
            where = f"`{key}`: " if key else ""
            whole = isinstance(found["input"], dict | BaseModel)  # of a section the message names the key itself
            lines.append(f"{where}{message}" + (f" (found {found['input']!r})" if key and not whole else ""))
    return "; ".join(lines)
