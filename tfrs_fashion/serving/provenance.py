"""Provenance: the libraries and the commit of the code that makes an artifact or a report."""

import importlib.metadata
import shutil
import subprocess
from pathlib import Path

_LIBRARIES = ("tensorflow", "tf-keras", "tensorflow-recommenders", "scann", "numpy", "pandas", "ibis-framework")


def library_versions() -> dict[str, str]:
    """Returns the version of each library that figures may depend on, of those that are installed."""
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _ask_git(*arguments: str) -> str | None:
    git, folder = shutil.which("git"), Path(__file__).parent.parent
    if git is None:
        return None
    answer = subprocess.run([git, "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def git_commit() -> str | None:
    """Returns the commit of the code that runs, if it runs from a checkout."""
    return _ask_git("rev-parse", "HEAD") or None


def has_uncommitted_changes() -> bool | None:
    """Says whether the package's own files differ from the commit; None where there is none."""
    changed = _ask_git("status", "--porcelain", "--", ".")
    return None if changed is None else bool(changed)
