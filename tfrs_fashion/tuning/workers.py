"""Several processes that run the trials of one search, which a chief among them chooses, by keras-tuner's protocol."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tfrs_fashion.schema import InputError, RunError

_LOOPBACK = "127.0.0.1"
# By which keras-tuner knows the chief of a search and its workers.
_VARIABLES = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")
# How often the chief looks after its workers, and a worker after its chief, in seconds.
_EVERY = 0.5
# How long what is at an end may take to end, in seconds.
_GRACE = 5.0
# How long a trial may take to notice an interrupt: a step that is not in Python is ended first.
_INTERRUPT_GRACE = 30.0
_MAX_IN_VAIN = 5
# How long a worker waits for its chief, in seconds.
_PATIENCE = 600.0


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((_LOOPBACK, 0))
        return int(found.getsockname()[1])


def worker_id() -> str:
    """Names this process among those of one search, by keras-tuner's own variable; empty where it searches alone."""
    return os.environ.get("KERASTUNER_TUNER_ID", "") if "KERASTUNER_ORACLE_IP" in os.environ else ""


def is_worker() -> bool:
    """Tells whether this process runs trials that a chief elsewhere chooses."""
    return bool(worker_id()) and "chief" not in worker_id()


def check_environment() -> None:
    """Refuses keras-tuner's variables where some of them are missing.

    Raises:
        InputError: Naming them.
    """
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    if missing and len(missing) < len(_VARIABLES):
        raise InputError(
            f"{', '.join(missing)}: not set. A search by several processes needs {', '.join(_VARIABLES)}; one by this process alone "
            "needs none of them."
        )
    if not missing and not os.environ[_VARIABLES[1]].isdigit():
        raise InputError(f"{_VARIABLES[1]}: expected a number, got {os.environ[_VARIABLES[1]]!r}.")


def check_port() -> None:
    """Refuses to be the second chief at one address: gRPC would let both serve the workers in turns.

    Raises:
        InputError: Something listens there.
    """
    place = os.environ["KERASTUNER_ORACLE_IP"], int(os.environ["KERASTUNER_ORACLE_PORT"])
    with socket.socket() as found:
        # Connections of a chief that was killed linger; who listens is still in the way.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(place)
        except OSError as error:
            raise InputError(
                f"KERASTUNER_ORACLE_IP, KERASTUNER_ORACLE_PORT: {place[0]}:{place[1]} cannot be listened on ({error.strerror}). "
                "Another search may do so: choose another port for this one and its workers."
            ) from error


def end_with_parent(parent: int) -> None:
    """Ends this process when the one that started it is gone: its search is, too.

    Args:
        parent: Its process id.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def wait_for_chief(tell: Callable[[str], None]) -> None:
    """Waits until the chief of this worker's search answers.

    Args:
        tell: Is told, once, that it is waited for.

    Raises:
        InputError: It does not, for too long.
    """
    place = os.environ["KERASTUNER_ORACLE_IP"], int(os.environ["KERASTUNER_ORACLE_PORT"])
    end, is_told = time.monotonic() + _PATIENCE, False
    while True:
        with contextlib.suppress(OSError), socket.create_connection(place, timeout=_EVERY):
            return
        if time.monotonic() > end:
            raise InputError(f"no chief answers at {place[0]}:{place[1]}. Start it first, with the same two variables.")
        if not is_told:
            tell(f"waiting for the chief at {place[0]}:{place[1]}")
            is_told = True
        time.sleep(_EVERY)


def run_workers(
    search: Callable[[threading.Event], None],
    arguments: Sequence[str],
    *,
    num_workers: int,
    progress: Callable[[], int],
    logs: Path,
    tell: Callable[[str], None] = lambda _line: None,
) -> None:
    """Runs a search with several workers on this machine, and restarts those that are killed.

    A worker that is killed takes up its trial again when it is restarted; the trial itself counts how often.

    Args:
        search: Serves as the chief until the search ends, or until what it is given is set.
        arguments: Of the command of a worker, after `tfrs-fashion`.
        num_workers: How many.
        progress: Counts what workers have begun; one that is killed again and again before it begins anything is given up.
        logs: Folder of what workers say.
        tell: Is told where that is, and which worker was killed.

    Raises:
        RunError: The chief or a worker failed by itself, and not by a trial.
    """
    if any(name in os.environ for name in _VARIABLES):
        raise InputError(
            f"--workers: makes {', '.join(_VARIABLES)} itself, and they are set. Leave them out, or leave out --workers."
        )
    logs.mkdir(parents=True, exist_ok=True)
    tell(f"{num_workers} workers; what they say is in {logs}")
    told = {"KERASTUNER_ORACLE_IP": _LOOPBACK, "KERASTUNER_ORACLE_PORT": str(_free_port())}
    cores = max(1, (os.cpu_count() or 1) // num_workers)
    shared = {name: str(cores) for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")}
    failures: list[BaseException] = []
    ended = threading.Event()
    in_vain, grace = 0, _GRACE

    def serve() -> None:
        try:
            search(ended)
        except BaseException as error:
            failures.append(error)

    def start(number: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **shared, **told, "KERASTUNER_TUNER_ID": f"worker{number}"}
        with (logs / f"worker{number}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tfrs_fashion.cli", *arguments, "--ends-with-parent", str(os.getpid())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    workers = {number: start(number) for number in range(num_workers)}
    begun = progress()
    os.environ.update(told, KERASTUNER_TUNER_ID="chief")
    chief = threading.Thread(target=serve, daemon=True)
    chief.start()
    try:
        while workers and chief.is_alive():
            time.sleep(_EVERY)
            for number, worker in list(workers.items()):
                code = worker.poll()
                if code is None:
                    continue
                del workers[number]
                said = logs / f"worker{number}.log"
                if code < 0:
                    # By a signal; how often one trial may be is told in its record.
                    in_vain, begun = (0, progress()) if progress() > begun else (in_vain + 1, begun)
                    if in_vain > _MAX_IN_VAIN:
                        raise RunError(
                            f"worker {number} is killed (signal {-code}) before it begins anything; see {said}."
                        )
                    tell(f"worker {number} was killed (signal {-code}) and is started again")
                    workers[number] = start(number)
                elif code > 0:
                    last = said.read_text(encoding="utf-8", errors="replace").strip()
                    raise RunError(
                        f"worker {number} of the search ended with {code}: {last[-400:]}. All it said is in {said}. The same "
                        "command goes on where the search stands."
                    )
        # The chief ends when there is no further trial and none is under way. Who asks it only now would wait for an hour.
        end = time.monotonic() + _GRACE
        while not failures and time.monotonic() < end and any(worker.poll() is None for worker in workers.values()):
            time.sleep(_EVERY)
        if failures:
            raise RunError(f"the search ended: {failures[0]}. The same command goes on where it stands.") from failures[
                0
            ]
    except KeyboardInterrupt:
        grace = _INTERRUPT_GRACE
        raise
    finally:
        # An interrupt, so that a trial under way knows that it is not to blame.
        for worker in workers.values():
            worker.send_signal(signal.SIGINT)
        end = time.monotonic() + grace
        for worker in workers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(max(0.0, end - time.monotonic()))
            worker.kill()
            worker.wait()
        # What its thread holds is let go of before the process ends.
        ended.set()
        chief.join(_GRACE)
        for name in _VARIABLES:
            os.environ.pop(name, None)
