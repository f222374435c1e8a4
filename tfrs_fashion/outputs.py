"""A stage of a run: skipped when it is up to date, written whole or not at all.

A stage's output is a folder. It is written beside its place and renamed, so a killed run leaves either the last whole
output or none, never a half. `stage.json` inside holds the fingerprint of everything that the output depends on.
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


def fingerprint(*parts: Any) -> str:
    """Returns a SHA-256 over JSON values: equal parts give equal fingerprints."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def code_fingerprint() -> str:
    """Returns a SHA-256 over the package's own source, since a changed program makes an output outdated."""
    folder = Path(__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".html"})
    return fingerprint(*((str(path.relative_to(folder)), path.read_text(encoding="utf-8")) for path in files))


def files_fingerprint(paths: list[Path]) -> str:
    """Returns a SHA-256 over the names, sizes and modification times of files."""
    stats = [(path.name, path.stat()) for path in sorted(paths)]
    return fingerprint(*((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
        return about if isinstance(about, dict) else {}
    except (OSError, ValueError):
        return {}


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "stage.json")
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(files)}


def damage(folder: Path) -> str | None:
    """Says what a finished output lost since it was written: files that are gone, or of another size."""
    if not folder.is_dir():
        return None
    sizes = _about(folder).get("files")
    if sizes is None:
        return "stage.json is missing or cannot be read"
    found = _sizes(folder)
    lost = [name for name, size in sizes.items() if found.get(name) != size]
    return f"{len(lost)} file(s) missing or of another size, e.g. {', '.join(lost[:3])}" if lost else None


def stored_fingerprint(folder: Path) -> str | None:
    """Returns the fingerprint of a whole output, or None where there is none or it is damaged."""
    return _about(folder).get("fingerprint") if damage(folder) is None else None


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}{suffix}")


def recover(folder: Path) -> None:
    """Cleans up after a kill: restores an output that was about to be replaced, removes a half-written one."""
    former = _beside(folder, _FORMER)
    if former.exists() and not folder.exists():
        former.rename(folder)
    for left in (former, _beside(folder, _PARTIAL)):
        if left.exists():
            shutil.rmtree(left)


@contextlib.contextmanager
def write_atomically(folder: Path, **about: Any) -> Iterator[Path]:
    """Gives an empty folder to write into, and puts it in place when the block ends without an error.

    Args:
        folder: Where the output belongs; a former output stays until the new one is whole.
        **about: Written to `stage.json`, with the seconds it took.

    Raises:
        InputError: The place cannot be written to.
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
    start = time.monotonic()
    try:
        yield partial
        about |= {"duration_seconds": round(time.monotonic() - start, 1), "files": _sizes(partial)}
        (partial / "stage.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
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


def _is_disk_full(error: BaseException) -> bool:
    """Tells a full disk from other errors; DuckDB and TensorFlow only say it in words."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return True
    words = ("no space left", "disk quota", "file too large")
    return isinstance(error, Exception) and any(word in str(error).lower() for word in words)


def run_stage(folder: Path, wanted: str, write: Callable[[Path], None], *, force: bool = False) -> bool:
    """Runs a stage unless its output is up to date.

    Args:
        folder: Its output.
        wanted: Fingerprint of everything that the output depends on.
        write: Writes the output into the folder that it is given.
        force: Write even if the output is up to date.

    Returns:
        Whether the stage ran.
    """
    recover(folder)
    if not force and stored_fingerprint(folder) == wanted:
        return False
    with write_atomically(folder, fingerprint=wanted) as partial:
        write(partial)
    return True


def stage_seconds(folder: Path) -> float | None:
    """Returns how long it took to write an output, or None where there is none."""
    return _about(folder).get("duration_seconds")


@contextlib.contextmanager
def exclusive_lock(folder: Path, *, waits: bool = False) -> Iterator[None]:
    """Lets one process at a time work in a folder.

    Args:
        folder: Made if it is not there.
        waits: Whether another process is waited for.

    Raises:
        InputError: Another process is at work there, or the folder cannot be written to.
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
