"""Arrays that belong together and are kept in one file."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np


@dataclass(frozen=True)
class StoredArrays:
    """A dataclass of arrays, kept as `.npz`."""

    def save(self, path: Path) -> None:
        """Writes all arrays."""
        np.savez(path, allow_pickle=False, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{name: stored[name] for name in stored.files})
