"""Pipelines with some settings changed: in memory, and as files that keep their comments."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError
from tomlkit.container import Container
from tomlkit.items import AbstractTable

from tfrs_fashion.schema import InputError, find_nearest
from tfrs_fashion.settings.base import Section
from tfrs_fashion.settings.errors import explain
from tfrs_fashion.settings.overrides import put, read_override
from tfrs_fashion.settings.pipeline import PipelineConfig
from tfrs_fashion.settings.tune import plain


def read_setting(config: PipelineConfig, name: str) -> Any:
    """Reads a setting by its dotted name, e.g. `generators.gru.dropout`.

    Raises:
        InputError: There is none; the nearest valid name is given.
    """
    found: Any = config
    for place, part in enumerate(name.split(".")):
        known = list(type(found).model_fields) if isinstance(found, Section) else list(found)
        if part not in known:
            near = find_nearest(part, known)
            above = ".".join(name.split(".")[:place])
            hint = f"did you mean `{f'{above}.' if above else ''}{near}`?" if near else f"known are {', '.join(known)}."
            raise InputError(f"unknown setting `{name}`; {hint}")
        found = getattr(found, part) if isinstance(found, Section) else found[part]
    return found


def read_default(config: PipelineConfig, name: str) -> Any:
    """Reads what a setting is where a pipeline file does not say; its own value where there is no such thing."""
    above, _dot, key = name.rpartition(".")
    section = read_setting(config, above)
    field = type(section).model_fields.get(key) if isinstance(section, Section) else None
    own = read_setting(config, name)
    return own if field is None or field.is_required() else field.get_default(call_default_factory=True)


def change(config: PipelineConfig, values: Mapping[str, Any]) -> PipelineConfig:
    """Returns a pipeline with other settings.

    Args:
        config: The pipeline.
        values: Settings by their dotted names.

    Raises:
        InputError: A name is unknown, or a value is out of range.
    """
    # Sections that stay are taken over whole: some are checked by what their file says, and not by all that they hold.
    changed = {name.partition(".")[0] for name in values}
    raw = {name: getattr(config, name) for name in type(config).model_fields if name not in changed}
    raw |= config.model_dump(include=changed)
    for name, value in values.items():
        read_setting(config, name)
        put(raw, name, value, where=name)
    try:
        return PipelineConfig.model_validate(raw)
    except ValidationError as error:
        told = ", ".join(f"{name} = {value!r}" for name, value in values.items())
        raise InputError(f"{told}: {explain(error, PipelineConfig)}") from error


def _put(document: Container | AbstractTable, key: str, value: Any) -> None:
    section, dot, rest = key.partition(".")
    if not dot:
        document[section] = plain(value)
        return
    if section not in document:
        document[section] = tomlkit.table(is_super_table="." in rest)
    _put(document[section], rest, value)


def write_pipeline(source: Path, path: Path, *, name: str, overrides: Sequence[str], values: Mapping[str, Any]) -> None:
    """Writes a pipeline file like another, with other settings.

    Args:
        source: The pipeline file that it comes from.
        path: Where to write; `name` makes it the same pipeline, in the same run folder.
        name: Of the pipeline.
        overrides: `section.key=value` each, as `--set` takes them.
        values: Settings by their dotted names.
    """
    document = tomlkit.parse(source.read_text(encoding="utf-8"))
    if "name" not in document:
        # Before the first section, where alone a key of the whole file can stand.
        head = tomlkit.document()
        head.add("name", tomlkit.item(name))
        document = tomlkit.parse(tomlkit.dumps(head) + tomlkit.dumps(document))
    for override in overrides:
        _put(document, *read_override(override))
    for key, value in values.items():
        _put(document, key, value)
    text = tomlkit.dumps(document)
    tomllib.loads(text)  # what is written is read by another parser
    path.write_text(text, encoding="utf-8")
