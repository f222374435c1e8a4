"""Outputs of a run's stages: atomic folders, fingerprints that tell whether an output is up to date, and locks.

The output of a stage is a folder. It is written beside its final place and then renamed, so that a killed run leaves
either the previous complete output or none, never a partial one. `stage.json` in the folder holds the fingerprint of
everything that the output depends on.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfrs_fashion.schema import InputError, RunError

_PARTIAL, _FORMER = ".partial", ".former"


def fingerprint(*values: Any) -> str:
    """Returns a SHA-256 over JSON values: equal values give equal fingerprints."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def code_fingerprint() -> str:
    """Returns a SHA-256 over the package's own source, since an output is outdated once the code has changed."""
    folder = Path(__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".html"})
    return fingerprint(*((str(path.relative_to(folder)), path.read_text(encoding="utf-8")) for path in files))


def files_fingerprint(paths: list[Path]) -> str:
    """Returns a SHA-256 over the names, sizes and modification times of files."""
    stats = [(path.name, path.stat()) for path in sorted(paths)]
    return fingerprint(*((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def _read_metadata(folder: Path) -> dict[str, Any]:
    try:
        metadata = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
        return metadata if isinstance(metadata, dict) else {}
    except (OSError, ValueError):
        return {}


def _file_sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "stage.json")
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(files)}


def damage(folder: Path) -> str | None:
    """Describes how a finished output is damaged: files that are missing or whose size changed. None if it is intact."""
    if not folder.is_dir():
        return None
    recorded = _read_metadata(folder).get("files")
    if recorded is None:
        return "stage.json is missing or cannot be read"
    sizes = _file_sizes(folder)
    lost = [name for name, size in recorded.items() if sizes.get(name) != size]
    return f"{len(lost)} file(s) missing or of another size, e.g. {', '.join(lost[:3])}" if lost else None


def stored_fingerprint(folder: Path) -> str | None:
    """Returns the fingerprint of an output, or None if there is no output or it is damaged."""
    return _read_metadata(folder).get("fingerprint") if damage(folder) is None else None


def stage_seconds(folder: Path) -> float | None:
    """Returns how many seconds it took to write an output, or None if there is no output."""
    return _read_metadata(folder).get("duration_seconds")


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}{suffix}")


def recover(folder: Path) -> None:
    """Cleans up after a killed run: restores an output that was about to be replaced, and removes a partial one."""
    former = _beside(folder, _FORMER)
    if former.exists() and not folder.exists():
        former.rename(folder)
    for leftover in (former, _beside(folder, _PARTIAL)):
        if leftover.exists():
            shutil.rmtree(leftover)


@contextlib.contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to write into, which takes the place of `folder` if the block ends without an error.

    Args:
        folder: The final place. What is there stays until the new content is complete.

    Raises:
        InputError: The place is not writable.
        RunError: The disk is full.
    """
    partial, former = _beside(folder, _PARTIAL), _beside(folder, _FORMER)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover(folder)
        partial.mkdir()
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write here ({error.strerror}). Choose another folder, e.g. --run-dir."
        ) from error
    try:
        yield partial
        if folder.exists():
            folder.rename(former)
        partial.rename(folder)
        shutil.rmtree(former, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if _is_disk_full(error):
            raise RunError(
                f"{folder}: the disk is full, or a quota is reached. Nothing was replaced. Free some space and run "
                "the same command again; finished stages are kept."
            ) from error
        raise


@contextlib.contextmanager
def write_atomically(folder: Path, **metadata: Any) -> Iterator[Path]:
    """Writes the output of a stage as `replace_folder` does, with a `stage.json` that describes it.

    Args:
        folder: The final place of the output.
        **metadata: Values for `stage.json`, which also records the duration in seconds and the files' sizes.
    """
    with replace_folder(folder) as partial:
        start = time.monotonic()
        yield partial
        metadata |= {"duration_seconds": round(time.monotonic() - start, 1), "files": _file_sizes(partial)}
        (partial / "stage.json").write_text(json.dumps(metadata, indent=2), encoding="utf-8")


def _is_disk_full(error: BaseException) -> bool:
    """Recognizes a full disk, which DuckDB and TensorFlow report only in the text of their own errors."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return True
    phrases = ("no space left", "disk quota", "file too large")
    return isinstance(error, Exception) and any(phrase in str(error).lower() for phrase in phrases)


def run_stage(folder: Path, expected: str, write: Callable[[Path], None], *, force: bool = False) -> bool:
    """Runs a stage unless its output is up to date.

    Args:
        folder: Place of the stage's output.
        expected: Fingerprint of everything that the output depends on.
        write: Function that writes the output into the folder passed to it.
        force: Whether to write the output even if it is up to date.

    Returns:
        Whether the stage ran.
    """
    recover(folder)
    if not force and stored_fingerprint(folder) == expected:
        return False
    with write_atomically(folder, fingerprint=expected) as partial:
        write(partial)
    return True


@contextlib.contextmanager
def exclusive_lock(folder: Path, *, waits: bool = False) -> Iterator[None]:
    """Lets only one process at a time work in a folder.

    Args:
        folder: Folder to lock; created if it does not exist.
        waits: Whether to wait for another process that holds the lock, instead of failing.

    Raises:
        InputError: Another process holds the lock, or the folder is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write here ({error.strerror}). Choose another folder: --run-dir, or export.folder."
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except OSError as error:
            raise InputError(
                f"{folder}: another process is at work here. Wait for it, or choose another --run-dir."
            ) from error
        yield
    finally:
        os.close(lock)
