"""Several processes that run the trials of one search, which a chief among them chooses, by keras-tuner's protocol."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tfrs_fashion.schema import RunError

_LOOPBACK = "127.0.0.1"
# How often the chief looks after its workers, and a worker after its chief, in seconds.
_EVERY = 0.5


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((_LOOPBACK, 0))
        return int(found.getsockname()[1])


def end_with_parent() -> None:
    """Ends this process when the one that started it is gone: its search is, too."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_workers(search: Callable[[], None], arguments: Sequence[str], *, num_workers: int, logs: Path) -> None:
    """Runs a search with several workers on this machine, and restarts those that are killed.

    A worker that is killed takes up its trial again when it is restarted; the trial itself counts how often.

    Args:
        search: Serves as the chief until the search ends.
        arguments: Of the command of a worker, after `tfrs-fashion`.
        num_workers: How many.
        logs: Folder of what workers say.

    Raises:
        RunError: A worker failed by itself, and not by a trial of its.
    """
    logs.mkdir(parents=True, exist_ok=True)
    told = {"KERASTUNER_ORACLE_IP": _LOOPBACK, "KERASTUNER_ORACLE_PORT": str(_free_port())}
    cores = max(1, (os.cpu_count() or 1) // num_workers)
    shared = {name: str(cores) for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")}

    def start(number: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **shared, **told, "KERASTUNER_TUNER_ID": f"worker{number}"}
        with (logs / f"worker{number}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tfrs_fashion.cli", *arguments, "--ends-with-parent"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    workers = {number: start(number) for number in range(num_workers)}
    os.environ.update(told, KERASTUNER_TUNER_ID="chief")
    # Its server ends some seconds after the last worker; the results are in place when that has ended.
    threading.Thread(target=search, daemon=True).start()
    try:
        while workers:
            time.sleep(_EVERY)
            for number, worker in list(workers.items()):
                code = worker.poll()
                if code is None:
                    continue
                del workers[number]
                if code < 0:
                    # By a signal; how often one trial may be is told in its record.
                    workers[number] = start(number)
                elif code > 0:
                    last = (logs / f"worker{number}.log").read_text(encoding="utf-8", errors="replace").strip()
                    raise RunError(
                        f"worker {number} of the search ended with {code}: {last[-400:]}. All it said is in "
                        f"{logs / f'worker{number}.log'}. The same command goes on where the search stands."
                    )
    finally:
        for worker in workers.values():
            worker.kill()
        for worker in workers.values():
            worker.wait()
        for name in (*told, "KERASTUNER_TUNER_ID"):
            os.environ.pop(name, None)
