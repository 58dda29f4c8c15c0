"""When are the bytes of what was erased gone?

Rows go in the erasure's own transaction; which bytes they named is noted there. Those that no other row names are
deleted then, and every file that held any is written anew. Killed in between, it is done again until it is done.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from server.store import chores, erasures
from server.store.schema import doomed_blob, metadata
from server.store.store import Store

AGAIN_MS = 60_000  # between tries of a running server: writing a large catalogue anew takes seconds


def finish(store: Store, *, now_ms: int) -> None:
    """Delete the bytes of all that was erased; nothing to do when they are gone. StoreError: to be done again."""
    with store.database.read() as connection:
        if not erasures.unfinished(connection):
            return
    chores.drop_exports(store)
    with store.database.write() as connection:  # nobody puts bytes meanwhile that we are about to delete
        store.blobs.erase(_orphans(connection))
        connection.execute(sa.delete(doomed_blob))
    store.blobs.scrub()
    store.database.forget_deleted()
    with store.database.write() as connection:
        erasures.finish(connection, now_ms=now_ms)


def _orphans(connection: sa.Connection) -> list[str]:
    """The doomed blobs that no row names."""
    named = [column for table in metadata.sorted_tables for column in table.c if _names_blob(column)]
    query = sa.select(doomed_blob.c.sha256)
    for column in named:
        query = query.where(doomed_blob.c.sha256.not_in(sa.select(column).where(column.is_not(None))))
    return list(connection.scalars(query))


def _names_blob(column: sa.Column[Any]) -> bool:
    if column.table.name in ("doomed_blob", "part"):
        return False
    if column.table.name == "parcel":
        return column.name.endswith("sha256")
    return column.name in ("body_sha256", "manifest_sha256", "weights_sha256")


class Scrub:
    """For a running server: what a command that was killed left undone."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._not_before_ms = 0

    def tick(self, now_ms: int) -> None:
        """Look whether something is left to delete; not while the command is likely at it still."""
        if now_ms < self._not_before_ms:
            return
        self._not_before_ms = now_ms + AGAIN_MS
        with self._store.database.read() as connection:
            waits = [one for one in erasures.every(connection) if one.finished_at_ms is None]
        if waits and now_ms - waits[-1].at_ms >= AGAIN_MS:
            finish(self._store, now_ms=now_ms)
