"""When are the bytes of what was erased gone?

Rows go in the erasure's own transaction; which bytes they named is noted there. Those that no other row names are
deleted then, and every file that held any is written anew. Killed in between, it is done again until it is done.
"""

from __future__ import annotations

import logging
import threading

import sqlalchemy as sa

from server.errors import StoreError
from server.store import chores, erasures, named
from server.store.schema import doomed_blob
from server.store.store import Store

log = logging.getLogger(__name__)

AGAIN_MS = 60_000  # between tries of a running server: writing a large catalogue anew takes seconds


def finish(store: Store, *, now_ms: int) -> None:
    """Delete the bytes of all that was erased; nothing to do when they are gone. StoreError: to be done again."""
    with store.database.read() as connection:
        if not erasures.unfinished(connection):
            return
    chores.drop_exports(store)
    with store.database.write() as connection:  # nobody puts bytes meanwhile that we are about to delete
        store.blobs.erase(named.orphans(connection))
        connection.execute(sa.delete(doomed_blob))
    store.blobs.scrub()
    store.database.forget_deleted()
    with store.database.write() as connection:
        erasures.finish(connection, now_ms=now_ms)


class Scrub:
    """For a running server: what a command that was killed left undone, in a thread of its own.

    A large catalogue takes longer than a look may, whose process would be taken for one that hangs.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._not_before_ms: int | None = None
        self._thread: threading.Thread | None = None

    def tick(self, now_ms: int) -> None:
        """Look whether something is left to delete, and begin; not while the command is likely at it still."""
        if self._thread is not None and self._thread.is_alive():
            return
        if self._not_before_ms is None:  # not at once: whoever lost its seat over it would lose it again, without end
            self._not_before_ms = now_ms + AGAIN_MS
        if now_ms < self._not_before_ms:
            return
        self._not_before_ms = now_ms + AGAIN_MS
        with self._store.database.read() as connection:
            waits = [one for one in erasures.every(connection) if one.finished_at_ms is None]
        if waits and now_ms - waits[-1].at_ms >= AGAIN_MS:
            self._thread = threading.Thread(target=self._finish, args=(now_ms,), name="scrub", daemon=True)
            self._thread.start()

    def stop(self, *, timeout_s: float) -> None:
        """Wait for what is under way; it may be left behind, and is done again."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _finish(self, now_ms: int) -> None:
        try:
            finish(self._store, now_ms=now_ms)
        except StoreError as error:
            log.warning("bytes of what was erased are still here, and tried again: %s", error)
