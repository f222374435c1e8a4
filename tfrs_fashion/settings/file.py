"""Pipeline files: loaded, with some settings changed in memory, and written as files that keep their comments."""

import re
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
from tfrs_fashion.settings.errors import explain, moved_key
from tfrs_fashion.settings.pipeline import PipelineConfig
from tfrs_fashion.settings.tune import plain


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Reads a pipeline file.

    Args:
        path: The TOML file.
        overrides: `section.key=value` each, where a value is TOML, or a plain string.

    Returns:
        The pipeline with every default filled in.

    Raises:
        InputError: The file is missing or is not TOML, a key is unknown (the nearest valid name is given), or a value
            is out of range.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the pipeline file ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}.") from error
    for override in overrides:
        key, value = _read_override(override)
        if present := moved_key(key):
            raise InputError(f"--set {override}: `{key}` is now `{present}`.")
        _put_raw(raw, key, value, where=f"--set {override}")
    raw.setdefault("name", path.stem)
    try:
        return PipelineConfig.model_validate(raw)
    except ValidationError as error:
        explanation = explain(error, PipelineConfig)
        raise InputError(f"{path}: {explanation}{'' if explanation.endswith('?') else '.'}") from error


def _read_override(override: str) -> tuple[str, Any]:
    """Reads `section.key=value`, where the value is TOML, or a plain string."""
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*", key.strip()):
        raise InputError(f"--set {override}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return key.strip(), value


def _put_raw(raw: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Sets the value of a dotted key, and makes the sections that it lies in; `where` begins messages."""
    *sections, last = key.split(".")
    inner = raw
    for section in sections:
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InputError(f"{where}: `{section}` is not a section")
    inner[last] = value


def read_setting(config: PipelineConfig, name: str) -> Any:
    """Reads a setting by its dotted name, e.g. `recommender.gru.dropout`.

    Raises:
        InputError: There is none; the nearest valid name is given.
    """
    if present := moved_key(name):
        raise InputError(f"unknown setting `{name}`, which is now `{present}`.")
    value: Any = config
    for place, part in enumerate(name.split(".")):
        known = list(type(value).model_fields) if isinstance(value, Section) else list(value)
        if part not in known:
            near = find_nearest(part, known)
            above = ".".join(name.split(".")[:place])
            hint = f"did you mean `{f'{above}.' if above else ''}{near}`?" if near else f"known are {', '.join(known)}."
            raise InputError(f"unknown setting `{name}`; {hint}")
        value = getattr(value, part) if isinstance(value, Section) else value[part]
    return value


def read_default(config: PipelineConfig, name: str) -> Any:
    """Reads the default of a setting; the pipeline's own value if it has no default."""
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
    # Unchanged sections are passed on as they are: some are validated by the file's own keys, not by all that they hold.
    changed = {name.partition(".")[0] for name in values}
    raw = {name: getattr(config, name) for name in type(config).model_fields if name not in changed}
    raw |= config.model_dump(include=changed)
    for name, value in values.items():
        read_setting(config, name)
        _put_raw(raw, name, value, where=name)
    try:
        return PipelineConfig.model_validate(raw)
    except ValidationError as error:
        settings = ", ".join(f"{name} = {value!r}" for name, value in values.items())
        raise InputError(f"{settings}: {explain(error, PipelineConfig)}") from error


def _put(document: Container | AbstractTable, key: str, value: Any) -> None:
    section, dot, rest = key.partition(".")
    if not dot:
        document[section] = plain(value)
        return
    if section not in document:
        document[section] = tomlkit.table(is_super_table="." in rest)
    _put(document[section], rest, value)


def write_pipeline(source: Path, path: Path, *, name: str, overrides: Sequence[str], values: Mapping[str, Any]) -> None:
    """Writes a copy of a pipeline file with other settings.

    Args:
        source: The pipeline file to copy.
        path: Where to write; `name` makes it the same pipeline, in the same run folder.
        name: Name of the pipeline.
        overrides: `section.key=value` each, as `--set` takes them.
        values: Settings by their dotted names.
    """
    document = tomlkit.parse(source.read_text(encoding="utf-8"))
    if "name" not in document:
        # A key of the whole file must stand before the first section.
        head = tomlkit.document()
        head.add("name", tomlkit.item(name))
        document = tomlkit.parse(tomlkit.dumps(head) + tomlkit.dumps(document))
    for override in overrides:
        _put(document, *_read_override(override))
    for key, value in values.items():
        _put(document, key, value)
    text = tomlkit.dumps(document)
    tomllib.loads(text)  # cross-checks with another parser
    path.write_text(text, encoding="utf-8")
