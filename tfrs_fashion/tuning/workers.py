"""The processes of one search, by keras-tuner's protocol: a chief chooses the settings, and workers run the trials."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from tfrs_fashion.schema import InputError, RunError

_LOOPBACK = "127.0.0.1"
# keras-tuner's own variables.
_IP, _PORT, _ID = VARIABLES = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")
_POLL_SECONDS = 0.5
# How long workers may take to end when the search is over; after an interrupt, a trial first ends a step that is not in Python.
_GRACE_SECONDS, _INTERRUPT_GRACE_SECONDS = 5.0, 30.0
# How often a worker may be killed without any trial having begun in between.
_MAX_KILLS_IN_VAIN = 5
_CHIEF_TIMEOUT_SECONDS = 600.0


def is_worker() -> bool:
    """Tells whether this process runs trials that a chief in another process chooses."""
    name = os.environ.get(_ID, "") if _IP in os.environ else ""
    return bool(name) and "chief" not in name


def check_environment() -> None:
    """Refuses keras-tuner's variables if some are missing, or if the port is none.

    Raises:
        InputError: With the names of the variables.
    """
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if len(missing) == len(VARIABLES):
        return
    if missing:
        raise InputError(
            f"{', '.join(missing)}: not set. A search by several processes needs {', '.join(VARIABLES)}; one by this process alone "
            "needs none of them."
        )
    if not os.environ[_PORT].isdigit():
        raise InputError(f"{_PORT}: expected a number, got {os.environ[_PORT]!r}.")


def end_with_parent(parent: int) -> None:
    """Ends this process when the process that started it, of a given id, is gone: the search is over then."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def wait_for_chief(show: Callable[[str], None]) -> None:
    """Waits until the chief of this worker's search can be reached; `show` prints that it is waiting.

    Raises:
        InputError: It cannot, for too long.
    """
    ip, port = os.environ[_IP], int(os.environ[_PORT])
    for attempt in range(int(_CHIEF_TIMEOUT_SECONDS / _POLL_SECONDS)):
        with contextlib.suppress(OSError), socket.create_connection((ip, port), timeout=_POLL_SECONDS):
            return
        if attempt == 0:
            show(f"waiting for the chief at {ip}:{port}")
        time.sleep(_POLL_SECONDS)
    raise InputError(f"no chief answers at {ip}:{port}. Start it first, with the same two variables.")


def run_workers(
    search: Callable[[threading.Event], None],
    arguments: Sequence[str],
    *,
    num_workers: int,
    progress: Callable[[], int],
    logs: Path,
    show: Callable[[str], None] = lambda _line: None,
) -> None:
    """Runs a search with several workers on this machine, and restarts those that are killed.

    A worker that is restarted repeats the trial that it was killed in; the trial's record counts how often.

    Args:
        search: Serves as the chief, until the search ends or the event that it is given is set.
        arguments: The command line of a worker, after `tfrs-fashion`.
        num_workers: The number of workers.
        progress: Returns the number of attempts at trials that have begun.
        logs: The folder of the workers' outputs.
        show: Prints a line: where the logs are, which worker was killed.

    Raises:
        RunError: The chief or a worker failed, other than by a trial.
    """
    if any(name in os.environ for name in VARIABLES):
        raise InputError(f"--workers: sets {', '.join(VARIABLES)} itself. Unset them, or leave out --workers.")
    logs.mkdir(parents=True, exist_ok=True)
    show(f"{num_workers} workers; their logs are in {logs}")
    with socket.create_server((_LOOPBACK, 0)) as free:
        address = {_IP: _LOOPBACK, _PORT: str(free.getsockname()[1])}
    cores = str(max(1, (os.cpu_count() or 1) // num_workers))
    environment = {**os.environ, **address, "TF_NUM_INTRAOP_THREADS": cores, "OMP_NUM_THREADS": cores}
    command = [sys.executable, "-m", "tfrs_fashion.cli", *arguments, "--ends-with-parent", str(os.getpid())]
    ended, lock = threading.Event(), threading.Lock()
    workers: dict[int, subprocess.Popen[bytes]] = {}

    def supervise(number: int) -> None:
        kills_in_vain, begun, log = 0, progress(), logs / f"worker{number}.log"
        while True:
            with lock, log.open("ab") as file:
                if ended.is_set():
                    return
                workers[number] = subprocess.Popen(
                    command,
                    env={**environment, _ID: f"worker{number}"},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            code = workers[number].wait()
            if code == 0 or ended.is_set():
                return
            if code > 0:
                output = log.read_text(encoding="utf-8", errors="replace").strip()
                raise RunError(
                    f"worker {number} of the search ended with {code}: {output[-400:]}. Its whole output is in {log}. The same command "
                    "resumes the search."
                )
            kills_in_vain, begun = (0, progress()) if progress() > begun else (kills_in_vain + 1, begun)
            if kills_in_vain > _MAX_KILLS_IN_VAIN:
                raise RunError(f"worker {number} is killed (signal {-code}) before it begins any trial; see {log}.")
            show(f"worker {number} was killed (signal {-code}) and is started again")

    grace = _GRACE_SECONDS
    with ThreadPoolExecutor(num_workers) as pool:
        futures: list[Future[None]] = [pool.submit(supervise, number) for number in range(num_workers)]
        for future in futures:
            # Without workers, or when one has failed, the chief has nobody to serve.
            future.add_done_callback(
                lambda done: ended.set() if done.exception() or all(each.done() for each in futures) else None
            )
        os.environ.update(address, **{_ID: "chief"})
        try:
            search(ended)
            # A worker that asks for a trial only now, when the chief has ended, would wait for an hour.
            if not ended.is_set():
                wait(futures, timeout=_GRACE_SECONDS)
        except KeyboardInterrupt:
            grace = _INTERRUPT_GRACE_SECONDS
            raise
        except Exception as error:
            raise RunError(f"the search ended: {error}. The same command resumes it.") from error
        finally:
            with lock:
                ended.set()
            # After an interrupt, a trial knows that it is not to blame.
            for worker in workers.values():
                worker.send_signal(signal.SIGINT)
            wait(futures, timeout=grace)
            for worker in workers.values():
                worker.kill()
            for name in VARIABLES:
                os.environ.pop(name, None)
    for future in futures:
        future.result()
