"""Who does what pages ask for and takes a while?

A thread that looks for orders and has each done by a process of its own (chore.py), one at a time. What a dead server
was at is begun again; an export goes on where it was. Files are kept for a day; they go at once when something is
erased (store/chores.py).
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

from server.child import end, spawn
from server.errors import StoreError
from server.store import chores
from server.store.store import Store

log = logging.getLogger(__name__)

TICK_S = 0.5
KEPT_MS = 86_400_000  # shorter is gone before it is fetched, longer are copies that nobody remembers
SWEEP_MS = 60_000
END_S = 2.0


class Chores:
    """Has them done until it is stopped."""

    def __init__(self, store: Store, *, now_ms: Callable[[], int]) -> None:
        """Nothing happens before `start`."""
        self._store, self._now_ms = store, now_ms
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="chores", daemon=True)
        self._child: tuple[int, subprocess.Popen[bytes]] | None = None
        self._sweep_at_ms = 0
        self._failed = False  # and said so

    def start(self) -> None:
        """Begin with what waits already."""
        with self._store.database.write() as connection:
            chores.recover(connection)
        self._thread.start()

    def stop(self) -> None:
        """End; what is being done is begun again at the next start."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(2 * END_S)

    def _work(self) -> None:
        while not self._stopped.wait(TICK_S):
            try:
                self._tick()
                self._failed = False
            except Exception as error:  # the supervising loop: one bad order must not end it for good
                if not self._failed:
                    where = not isinstance(error, StoreError)
                    log.error("what a page asked for failed, and is looked at again: %s", error, exc_info=where)
                self._failed = True
        if self._child is not None:
            end([self._child[1]], within_s=END_S)

    def _tick(self) -> None:
        if self._now_ms() >= self._sweep_at_ms:
            self._sweep()
        if self._child is not None:
            self._watch(*self._child)
            return
        with self._store.database.read() as connection:
            found = chores.following(connection)
        if found is None:
            return
        with self._store.database.write() as connection:
            chores.begin(connection, found.id)
        command = [sys.executable, "-m", "server.web.chore", *self._store.arguments()]
        child = spawn([*command, f"--chore={found.id}"], output=subprocess.PIPE, death_signal=signal.SIGKILL)
        self._child = found.id, child

    def _watch(self, number: int, child: subprocess.Popen[bytes]) -> None:
        """See whether it has ended, or nobody wants it any more."""
        with self._store.database.read() as connection:
            now = chores.get(connection, number)
        if child.poll() is None:
            if now is not None and now.state == "running":
                return
            end([child], within_s=END_S)
        self._child = None
        said = child.stdout.read().decode(errors="replace").strip() if child.stdout else ""
        why = said.splitlines()[-1] if said else f"ended with {child.returncode}"
        with self._store.database.write() as connection:
            if chores.fail(connection, number, why, now_ms=self._now_ms()):  # unless it has said how it ended
                log.warning("chore %d: %s", number, said or why)
            ended = chores.get(connection, number)
        chores.tidy(self._store, number, keep=ended is not None and ended.state == "done")

    def _sweep(self) -> None:
        now_ms = self._now_ms()
        self._sweep_at_ms = now_ms + SWEEP_MS
        with self._store.database.write() as connection:
            gone = chores.expire(connection, before_ms=now_ms - KEPT_MS)
        for number in gone:
            chores.archive_of(self._store, number).unlink(missing_ok=True)
