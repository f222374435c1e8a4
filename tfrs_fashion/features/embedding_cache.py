"""A cache of embeddings on disk, keyed by the digest of the embedded content, so that interrupted work can resume.

Each encoder (its weights, its input size, …) has a folder of its own. Vectors are stored in Parquet files of bounded size, the
parts. A part is named after the digest of its bytes, written under a temporary name and renamed. So a killed process loses
at most one part, several processes may write at once, and a damaged part is detected when the cache is opened.
"""

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_fashion.schema import InputError, RowCount, RunError

_PARTIAL_SECONDS = 24 * 3600
_ROW_BITS = 32


@dataclass(frozen=True)
class Embeddings:
    """Embeddings in the order in which the articles were given.

    Attributes:
        embedding: `[num_articles, dim]` float32; zeros where `status` is not `ok`.
        status: `[num_articles]` object, `ok` or the cause of a missing vector.
        counts: Number of articles by cause, and of damaged vectors in the cache.
    """

    embedding: np.ndarray
    status: np.ndarray
    counts: list[RowCount]


def digest_bytes(*parts: bytes) -> str:
    """Returns the BLAKE2b digest of the concatenated bytes: 128 bits as 32 hexadecimal digits.

    >>> digest_bytes(b"ab", b"c") == digest_bytes(b"abc")
    True
    """
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def digest_files(paths: Sequence[Path], *, root: Path) -> str:
    """Returns a digest of the content of files and of their names below `root`; reads a megabyte at a time."""
    state = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        state.update(
            f"\0{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape")
        )
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                state.update(piece)
    return state.hexdigest()


def check_finite(vectors: np.ndarray, samples: Sequence[str], *, where: str) -> None:
    """Checks that an encoder's vectors are finite.

    Args:
        vectors: `[batch, dim]` float32.
        samples: `[batch]` str, the input of each vector, for the message.
        where: The encoder's file or folder, for the message.

    Raises:
        InputError: A vector holds NaN or infinity.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        named = ", ".join(repr(samples[row][:60]) for row in bad[:5])
        raise InputError(
            f"{where}: {len(bad):,} of {len(vectors):,} vectors of a batch hold NaN or infinity, e.g. for {named}. "
            "Expected finite numbers: the weights are damaged, or the encoder cannot handle this input. Use another encoder."
        )


class EmbeddingCache:
    """A cache of the vectors of one encoder, by key.

    Use it in a `with` block, which writes the vectors still in memory at its end. One thread may call `claim` while another
    one calls `append`.

    Args:
        folder: The folder of the caches of all encoders.
        identity: Everything that determines the vectors: the encoder, the digest of its weights, the input size.
        dim: Width of a vector.
        rows_per_part: Number of vectors per part, which is the most that a killed process loses.

    Raises:
        InputError: The folder cannot be created or read.
    """

    def __init__(self, folder: Path, *, identity: str, dim: int, rows_per_part: int = 1024) -> None:
        self._identity = f"{identity} dim={dim}".encode()
        self.folder = folder / digest_bytes(self._identity)
        self._dim = dim
        self._rows_per_part = rows_per_part
        # Part and row of each stored key, packed into one integer to save memory.
        self._index: dict[str, int] = {}
        self._parts: list[Path] = []
        self._claimed: set[str] = set()
        self._keys: list[str] = []
        self._vectors: list[np.ndarray] = []
        self._damaged: dict[str, int] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            paths = sorted(self.folder.iterdir())
        except OSError as error:
            raise InputError(
                f"{folder}: cannot keep embeddings here ({error.strerror}). Choose another folder for the cache."
            ) from error
        for path in paths:
            if path.suffix == ".partial":
                self._remove_old(path)
            elif path.suffix == ".parquet":
                self._add_part(path)

    def __enter__(self) -> "EmbeddingCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def __len__(self) -> int:
        return len(self._index)

    def claim(self, key: str) -> bool:
        """Returns whether the caller must compute this key: it is not stored, and was not claimed before in this process."""
        if key in self._index or key in self._claimed:
            return False
        self._claimed.add(key)
        return True

    def append(self, keys: Sequence[str], vectors: np.ndarray) -> None:
        """Adds vectors; writes a part whenever `rows_per_part` have accumulated.

        Args:
            keys: `[batch]` str.
            vectors: `[batch, dim]` float32.

        Raises:
            ValueError: The vectors have another shape.
            RunError: The part cannot be written.
        """
        if vectors.shape != (len(keys), self._dim):
            raise ValueError(f"`vectors` has shape {list(vectors.shape)}, expected {[len(keys), self._dim]}.")
        self._keys += keys
        self._vectors.append(vectors.astype(np.float32))
        if len(self._keys) >= self._rows_per_part:
            self.flush()

    def flush(self) -> None:
        """Writes the vectors that are still in memory.

        Raises:
            RunError: The part cannot be written.
        """
        if not self._keys:
            return
        flat = pa.array(np.concatenate(self._vectors).ravel())
        columns = {"key": pa.array(self._keys), "vector": pa.FixedSizeListArray.from_arrays(flat, self._dim)}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="none", use_dictionary=False)
        content = sink.getvalue().to_pybytes()
        path = self.folder / f"{digest_bytes(self._identity, content)}-{len(self._keys)}.parquet"
        partial = self.folder / f"{uuid.uuid4().hex}.partial"
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise RunError(
                f"{self.folder}: cannot write embeddings ({error.strerror}). Free some space or repair the folder, and "
                f"run the same command again; the {len(self):,} embeddings stored before are kept."
            ) from error
        self._index_part(path, self._keys)
        self._keys, self._vectors = [], []

    def read(self, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Reads the vectors of keys, one part at a time; parts without any of the keys are not read.

        Args:
            keys: `[num_keys]` str, in any order, possibly repeated.

        Returns:
            `[num_keys, dim]` float32, zeros where a key is not stored; and `[num_keys]` bool, whether the key is stored.

        Raises:
            RunError: A part was changed or removed after the cache was opened.
        """
        self.flush()
        location = np.fromiter((self._index.get(key, -1) for key in keys), np.int64, len(keys))
        vectors = np.zeros((len(keys), self._dim), np.float32)
        stored = np.flatnonzero(location >= 0)
        stored = stored[np.argsort(location[stored], kind="stable")]
        parts, starts = np.unique(location[stored] >> _ROW_BITS, return_index=True)
        for part, positions in zip(parts, np.split(stored, starts)[1:], strict=True):
            path = self._parts[part]
            table = self._read_part(path, "vector")
            if table is None:
                raise RunError(
                    f"{path}: this part of the cache was changed or removed during the run. Run the same command again."
                )
            matrix = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self._dim)
            vectors[positions] = matrix[location[positions] & ((1 << _ROW_BITS) - 1)]
        return vectors, location >= 0

    @property
    def counts(self) -> list[RowCount]:
        """The number of vectors in damaged parts, which were renamed to `.damaged` when the cache was opened."""
        if not self._damaged:
            return []
        names = ", ".join(list(self._damaged)[:5])
        rule = f"in {len(self._damaged)} damaged part(s) of {self.folder}, computed again where needed: {names}"
        return [RowCount("embedding cache", rule, sum(self._damaged.values()))]

    def _read_part(self, path: Path, column: str) -> pa.Table | None:
        """Reads a column of a part; None if the part is missing or its bytes differ from its name's digest."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if digest_bytes(self._identity, content) != path.stem.split("-")[0]:
            return None
        return pq.ParquetFile(pa.BufferReader(content)).read(columns=[column])

    def _add_part(self, path: Path) -> None:
        table = self._read_part(path, "key")
        if table is not None:
            self._index_part(path, table["key"].to_pylist())
        elif path.exists():  # Another process may just have renamed it.
            rows = path.stem.rpartition("-")[2]
            self._damaged[path.name] = int(rows) if rows.isdecimal() else 0
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(".damaged"))

    def _index_part(self, path: Path, keys: Sequence[str]) -> None:
        first = len(self._parts) << _ROW_BITS
        self._parts.append(path)
        self._index.update((key, first + row) for row, key in enumerate(keys))

    def _remove_old(self, partial: Path) -> None:
        """Removes what a killed process left behind. A recent file may be a part that another process is writing."""
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > _PARTIAL_SECONDS:
                partial.unlink()
