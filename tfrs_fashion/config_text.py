"""A pipeline's settings as the text of a TOML file, from which `load_config` reads the same pipeline again."""

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def _write_text(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _write_text(key)


def _write_value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return _write_text(value)
        case list() | tuple():
            return f"[{', '.join(_write_value(part) for part in value)}]"
        case dict():
            parts = (f"{_write_key(key)} = {_write_value(part)}" for key, part in value.items() if part is not None)
            return f"{{{', '.join(parts)}}}"
    raise TypeError(f"{value!r} has no place in TOML")


def write_toml(settings: Mapping[str, Any], *above: str) -> str:
    """Writes settings as TOML: what is null is left out, since it is the default wherever it may be null.

    Args:
        settings: Texts, numbers, truths, and lists and dictionaries of such, by name.
        *above: Names of the sections that these settings are in.

    >>> print(write_toml({"name": "shop", "seed": 1, "data": {"path": None, "files": ["a", "b"]}}))
    name = "shop"
    seed = 1
    <BLANKLINE>
    [data]
    files = ["a", "b"]
    """
    lines = [f"[{'.'.join(map(_write_key, above))}]"] if above else []
    sections = []
    for key, value in settings.items():
        if isinstance(value, dict):
            sections.append(write_toml(value, *above, key))
        elif value is not None:
            lines.append(f"{_write_key(key)} = {_write_value(value)}")
    return "\n\n".join(["\n".join(lines), *sections])
