"""Dataclasses of arrays, stored as one file."""

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Record = TypeVar("Record")


def write_arrays(record: Any, path: Path) -> None:
    """Writes a dataclass of arrays as `.npz`."""
    arrays = {field.name: getattr(record, field.name) for field in fields(record)}
    np.savez(path, allow_pickle=False, **arrays)


def read_arrays(record_class: type[Record], path: Path) -> Record:
    """Reads what `write_arrays` wrote into a dataclass."""
    with np.load(path, allow_pickle=False) as stored:
        return record_class(**{name: stored[name] for name in stored.files})
