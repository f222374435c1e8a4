"""Workers and chiefs that fail, are killed, or are started with wrong variables."""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfrs_fashion.schema import InputError, RunError
from tfrs_fashion.tuning.workers import check_environment, is_worker, run_workers, wait_for_chief


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., float]:
    """Runs shell scripts as workers; returns the seconds that they took."""

    def start(script: str, search: Callable[[threading.Event], Any], *, num_workers: int = 2) -> float:
        worker = tmp_path / "worker"
        worker.write_text(f"#!/bin/sh\n{script}\n")
        worker.chmod(0o755)
        monkeypatch.setattr("tfrs_fashion.tuning.workers.sys.executable", str(worker))
        begin = time.monotonic()
        run_workers(search, ["tune"], num_workers=num_workers, progress=lambda: 0, logs=tmp_path / "logs")
        return time.monotonic() - begin

    return start


def test_failing_worker_ends_the_search_with_its_output(run: Callable[..., float]) -> None:
    with pytest.raises(RunError, match=r"worker \d of the search ended with 2: no such pipeline"):
        run("echo no such pipeline; exit 2", lambda ended: ended.wait(60))
    assert "KERASTUNER_TUNER_ID" not in os.environ


def test_failing_chief_ends_the_search_at_once(run: Callable[..., float]) -> None:
    def fail(_ended: threading.Event) -> None:
        raise OSError("no space left")

    with pytest.raises(RunError, match="the search ended: no space left"):
        run("exec sleep 60", fail)


def test_workers_are_stopped_soon_after_the_chief_has_ended(run: Callable[..., float]) -> None:
    assert run("exec sleep 60", lambda _ended: None) < 20


def test_worker_that_is_killed_again_and_again_ends_the_search(run: Callable[..., float]) -> None:
    with pytest.raises(RunError, match=r"is killed \(signal 9\) before it begins any trial"):
        run("kill -9 $$", lambda ended: ended.wait(60), num_workers=1)


def test_workers_are_given_their_id_and_the_address_of_the_chief(run: Callable[..., float], tmp_path: Path) -> None:
    run("echo $KERASTUNER_TUNER_ID $KERASTUNER_ORACLE_IP", lambda ended: ended.wait(2))
    outputs = {(tmp_path / "logs" / f"worker{number}.log").read_text() for number in range(2)}
    assert outputs == {"worker0 127.0.0.1\n", "worker1 127.0.0.1\n"}


@pytest.mark.parametrize(("name", "expected"), [("worker0", True), ("chief", False), ("", False)])
def test_process_is_a_worker_only_with_an_address_and_an_id_other_than_chief(
    name: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
    assert not is_worker()
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    assert is_worker() is expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"IP": "127.0.0.1"}, "KERASTUNER_ORACLE_PORT, KERASTUNER_TUNER_ID: not set"),
        ({"PORT": "8000"}, "KERASTUNER_ORACLE_IP, KERASTUNER_TUNER_ID: not set"),
        ({"IP": "127.0.0.1", "PORT": "http", "ID": "chief"}, "KERASTUNER_ORACLE_PORT: expected a number, got 'http'"),
    ],
)
def test_incomplete_or_wrong_variables_are_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_environment()
    names = {"IP": "KERASTUNER_ORACLE_IP", "PORT": "KERASTUNER_ORACLE_PORT", "ID": "KERASTUNER_TUNER_ID"}
    for name, value in variables.items():
        monkeypatch.setenv(names[name], value)
    with pytest.raises(InputError, match=message):
        check_environment()


def test_worker_waits_for_its_chief_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as chief:
        chief.bind(("127.0.0.1", 0))
        port = chief.getsockname()[1]
        monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))
        lines: list[str] = []
        threading.Timer(1.2, chief.listen).start()
        wait_for_chief(lines.append)
        assert lines == [f"waiting for the chief at 127.0.0.1:{port}"]
    monkeypatch.setattr("tfrs_fashion.tuning.workers._CHIEF_TIMEOUT_SECONDS", 0.6)
    with pytest.raises(InputError, match="no chief answers at"):
        wait_for_chief(lines.append)


def test_workers_are_refused_if_the_variables_are_set_already(
    run: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(InputError, match="leave out --workers"):
        run("exec sleep 60", lambda ended: ended.wait(60))
