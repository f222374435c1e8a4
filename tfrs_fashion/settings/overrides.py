"""What a command changes in a pipeline file: `section.key=value`."""

import re
import tomllib
from typing import Any

from tfrs_fashion.schema import InputError


def read_override(override: str) -> tuple[str, Any]:
    """Reads `section.key=value`, where the value is TOML, or a plain string.

    Raises:
        InputError: It is nothing like that.
    """
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*", key.strip()):
        raise InputError(f"--set {override}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return key.strip(), value


def put(raw: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Puts a value where a dotted key says, and makes the sections that it lies in.

    Args:
        raw: Of a pipeline file.
        key: E.g. `generators.gru.dropout`.
        value: Of it.
        where: Who says so, for messages.

    Raises:
        InputError: Something else than a section is on the way.
    """
    *sections, last = key.split(".")
    inner = raw
    for section in sections:
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InputError(f"{where}: `{section}` is not a section")
    inner[last] = value
