"""Writes documents: JSON for programs, and HTML for people as one file with no script and nothing to download."""

import datetime
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np


def to_json_types(value: Any) -> Any:
    """Converts a value to JSON's types: NaN becomes null, dates become ISO strings."""
    if isinstance(value, Mapping):
        return {str(name): to_json_types(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, np.ndarray)):
        return [to_json_types(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def render(template: str, **values: Any) -> str:
    """Renders a template of this package; every value is escaped, and an undefined name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON file atomically; see `to_json_types`."""
    write_text(path, json.dumps(to_json_types(document), indent=2, allow_nan=False, ensure_ascii=False) + "\n")
