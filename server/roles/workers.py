"""Who starts the processes that only take in, and starts them again?

Each is a child with a thread of its own here, which waits for its end (server/child.py says why it is the thread that
started it). One that ends is said, in the log and as an event, and started again, later the more often it ends at once.
What was with it comes again from the devices: nothing of it had a receipt.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from server.child import end, spawn
from server.errors import StoreError
from server.store import events
from server.store.store import Store

BACKOFF_MIN_S = 0.2
BACKOFF_MAX_S = 30.0
STEADY_S = 30.0  # after so long a run, the next restart is at once again
STOP_S = 10.0  # to finish the group at hand

ENDED = "worker"
"""Kind of the server's event that says that one ended."""

log = logging.getLogger(__name__)


class Workers:
    """So many of them."""

    def __init__(self, config: Path, count: int, *, ended: Callable[[str], None]) -> None:
        """`config`: the file by which they are configured. `ended` is told of each end that nobody asked for."""
        self._ended = ended
        self._stopping = threading.Event()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        commands = {
            number: [sys.executable, "-m", "server", "ingest", "--worker", f"{number}/{count}", str(config.absolute())]
            for number in range(1, count + 1)
        }
        self._threads = [
            threading.Thread(target=self._supervise, args=one, name=f"worker {one[0]}", daemon=True)
            for one in commands.items()
        ]

    def start(self) -> None:
        """Start them all."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End them; none is started again."""
        self._stopping.set()
        end(list(self._processes.values()), within_s=STOP_S)
        for thread in self._threads:
            thread.join()

    def _supervise(self, number: int, command: list[str]) -> None:
        backoff_s = BACKOFF_MIN_S
        while not self._stopping.is_set():
            started = time.monotonic()
            # Killed with us: what it has in hand comes again, and nobody is there to start it anew.
            try:
                process = spawn(command, output=sys.stderr.fileno(), death_signal=signal.SIGKILL)
            except OSError as error:  # no memory, or no more processes: a while later there may be
                backoff_s = self._again(number, f"could not be started: {error}", min(2 * backoff_s, BACKOFF_MAX_S))
                continue
            self._processes[number] = process
            if self._stopping.is_set():
                process.terminate()
            code = process.wait()
            if self._stopping.is_set():
                return
            steady = time.monotonic() - started > STEADY_S
            backoff_s = self._again(number, _how(code), BACKOFF_MIN_S if steady else min(2 * backoff_s, BACKOFF_MAX_S))

    def _again(self, number: int, how: str, backoff_s: float) -> float:
        """Say it, and wait; returns how long."""
        self._ended(f"worker {number} of {len(self._threads)} {how}: starting it again in {backoff_s:.1f} s")
        self._stopping.wait(backoff_s)
        return backoff_s


def remember(store: Store, *, now_ms: Callable[[], int]) -> Callable[[str], None]:
    """For `Workers`: says in the log and among the events that one ended."""

    def ended(text: str) -> None:
        log.warning("%s", text)
        try:
            with store.database.write() as connection:
                events.say(connection, ENDED, text, version=0, detail={}, now_ms=now_ms())
        except StoreError as error:  # it is in the log
            log.error("%s", error)

    return ended


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
