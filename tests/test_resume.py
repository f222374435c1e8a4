"""Killed in any stage, the next run completes and equals a run that nobody disturbed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tfrs_fashion.evaluation.report.page import load_metrics
from tfrs_fashion.outputs import (
    damage,
    exclusive_lock,
    fingerprint,
    recover,
    run_stage,
    stored_fingerprint,
    write_atomically,
)
from tfrs_fashion.schema import InputError, RunError

PIPELINE = Path(__file__).parent.parent / "pipelines" / "tiny.toml"
# Where each kill falls; `{released}` is the folder of released artifacts.
STAGES = (
    "{run}/tables",
    "{run}/timelines",
    "{run}/models/als",
    "{run}/models/two_tower",
    "{run}/saved_models/two_tower/1",
    "{run}/candidates/two_tower",
    "{run}/target_ranks/als",
    "{run}/report",
    "{released}/two_tower/1",
    "{run}/recommendations",
)


# One process imports TensorFlow and does nothing with it; each command is a fork of it, a process of its own. Every
# line of its input is a command's arguments and the size that no file may exceed.
STARTER = """
import json, os, resource, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tfrs_fashion.run.run
from tfrs_fashion.cli import main
for line in sys.stdin:
    arguments, limit = json.loads(line)
    if process := os.fork():
        print("started", process, flush=True)
        print("ended", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
        continue
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv[1:] = arguments
    main()
"""


class Starter:
    """Runs commands one after the other, each in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", STARTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def __call__(
        self, arguments: list[str], *, kill_at: str | None = None, largest_file: int | None = None
    ) -> tuple[int, str]:
        """Returns the exit code and all output; kills the process a moment after it has written some line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([arguments, largest_file]) + "\n")
        self._process.stdin.flush()
        pid, output = 0, []
        for line in self._process.stdout:
            match line.split():
                case ["started", number]:
                    pid = int(number)
                case ["ended", code]:
                    return int(code), "".join(output)
                case _:
                    output.append(line)
            if kill_at is not None and line.strip() == kill_at:
                time.sleep(0.05)
                os.kill(pid, signal.SIGKILL)
        raise AssertionError("".join(output))

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def start() -> Iterator[Starter]:
    starter = Starter()
    yield starter
    starter.stop()


def arguments_of(folder: Path) -> list[str]:
    settings = ("recommender.two_tower.epochs=2", "data.num_customers=80", f"export.folder={folder / 'released'}")
    overrides = [word for setting in settings for word in ("--set", setting)]
    return ["run", str(PIPELINE), "--run-dir", str(folder / "run"), *overrides]


def finish(start: Starter, folder: Path) -> None:
    code, output = start(arguments_of(folder))
    assert code == 0, output


def kill_in(start: Starter, folder: Path, stage: str) -> None:
    """Runs until a stage has begun, and kills the process a moment later."""
    place = stage.format(run=folder / "run", released=folder / "released")
    code, output = start(arguments_of(folder), kill_at=f"writing {place}")
    assert f"writing {place}\n" in output, f"{place} was never written: {output}"
    assert code == -signal.SIGKILL


def test_a_killed_run_ends_as_one_that_was_not(start: Starter, tmp_path: Path) -> None:
    finish(start, tmp_path / "undisturbed")
    for stage in STAGES:
        kill_in(start, tmp_path / "killed", stage)
    finish(start, tmp_path / "killed")
    left, right = tmp_path / "undisturbed", tmp_path / "killed"
    recommendations = [
        pd.read_parquet(folder / "run/recommendations/recommendations.parquet") for folder in (left, right)
    ]
    pd.testing.assert_frame_equal(*recommendations)
    assert load_metrics(left / "run/report")["recommenders"] == load_metrics(right / "run/report")["recommenders"]
    for folder in (left, right):
        assert sorted(path.name for path in (folder / "released").iterdir() if path.name != ".lock") == [
            "als", "models.config", "popularity_7d", "repurchase", "two_tower",
        ]  # fmt: skip
        assert not list(folder.rglob(".*.partial"))
        assert not list(folder.rglob(".*.former"))


def write_word(folder: Path, word: str) -> None:
    (folder / "word.txt").write_text(word)


def test_a_stage_that_fails_leaves_the_last_whole_output(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    run_stage(folder, "1", lambda partial: write_word(partial, "first"))

    def fail(partial: Path) -> None:
        write_word(partial, "second")
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        run_stage(folder, "2", fail)
    assert (folder / "word.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["stage"]


def test_a_stage_is_skipped_only_while_its_fingerprint_holds(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    written = [run_stage(folder, wanted, lambda partial: write_word(partial, "x")) for wanted in ("1", "1", "2")]
    assert written == [True, False, True]
    assert run_stage(folder, "2", lambda partial: write_word(partial, "y"), force=True)
    assert stored_fingerprint(folder) == "2"


@pytest.mark.parametrize("lost", ["word.txt", "stage.json"])
@pytest.mark.parametrize("how", ["remove", "empty"])
def test_a_damaged_output_is_not_up_to_date(tmp_path: Path, lost: str, how: str) -> None:
    folder = tmp_path / "stage"
    run_stage(folder, "1", lambda partial: write_word(partial, "first"))
    assert damage(folder) is None
    if how == "remove":
        (folder / lost).unlink()
    else:
        (folder / lost).write_text("")
    assert lost in str(damage(folder))
    assert stored_fingerprint(folder) is None
    assert run_stage(folder, "1", lambda partial: write_word(partial, "again"))
    assert (folder / "word.txt").read_text() == "again"


def test_a_kill_between_the_two_renames_restores_the_former_output(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    run_stage(folder, "1", lambda partial: write_word(partial, "first"))
    folder.rename(tmp_path / ".stage.former")
    (tmp_path / ".stage.partial").mkdir()
    recover(folder)
    assert (folder / "word.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["stage"]


@pytest.mark.parametrize("number", [28, 27, 122])
def test_a_full_disk_is_named_and_replaces_nothing(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "stage"
    run_stage(folder, "1", lambda partial: write_word(partial, "first"))

    def fail(partial: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(RunError, match=r"the disk is full, or a quota is reached. Nothing was replaced"):
        run_stage(folder, "2", fail)
    assert (folder / "word.txt").read_text() == "first"


def test_a_disk_that_fills_up_half_way_leaves_the_last_tables(start: Starter, tmp_path: Path) -> None:
    """No file may grow beyond some size, which ends a write as a full disk does."""
    arguments = ["prepare", str(PIPELINE), "--run-dir", str(tmp_path / "run")]
    code, output = start(arguments)
    assert code == 0, output
    tables = tmp_path / "run" / "tables"
    before = {path.name: path.read_bytes() for path in tables.iterdir()}
    larger = [*arguments, "--set", "data.num_customers=2000"]
    code, output = start(larger, largest_file=20_000)
    assert code == 1
    assert f"failed: {tables}: the disk is full" in output
    assert "Traceback" not in output
    assert {path.name: path.read_bytes() for path in tables.iterdir()} == before
    code, output = start(larger)
    assert code == 0, output


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write here"), write_atomically(tmp_path / "file" / "stage"):
        pass
    with pytest.raises(InputError, match="cannot write here"), exclusive_lock(tmp_path / "file" / "run"):
        pass


def test_two_processes_do_not_share_a_run_folder(tmp_path: Path) -> None:
    with (
        exclusive_lock(tmp_path),
        pytest.raises(InputError, match="another process is at work here"),
        exclusive_lock(tmp_path),
    ):
        pass
    with exclusive_lock(tmp_path):
        pass


def test_fingerprints_follow_their_parts() -> None:
    assert fingerprint("a", {"x": 1, "y": 2}) == fingerprint("a", {"y": 2, "x": 1})
    assert fingerprint("a", {"x": 1}) != fingerprint("a", {"x": 2})
    assert len(fingerprint()) == len(hashlib.sha256().hexdigest())
