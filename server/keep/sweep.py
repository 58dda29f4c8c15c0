"""When does what was kept for long enough go?

Once an hour a sweep begins; each look then removes some samples, so that ingest never waits long, until none is left
that may go:

    old     longer here than its class is kept, or than a data rule says
    room    the store is larger than its bound
    done    tables are tidied (tables.py), and what is used is noted (usage.py)

Each group that goes is an entry of the audit trail, in its transaction. A sweep that is killed is begun again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from server.config import Retention
from server.keep import tables
from server.keep.rules import CLASSES, DAY_MS, YOUNG_MS
from server.store import passing, rules, trail, usage
from server.store.schema import sample
from server.store.store import Store

log = logging.getLogger(__name__)

EVERY_MS = 3_600_000
AT_ONCE = 1000  # samples to a transaction: more hold up ingest, fewer make a longer trail
LEAVES = 0.97  # of the bound, so that the next sample does not begin another sweep

Step = Callable[[int], bool]
"""Given the clock, does a part of the work; whether there may be more."""


class Sweep:
    """For a running server."""

    def __init__(self, store: Store, settings: Retention) -> None:
        """Nothing happens yet."""
        self._store, self._settings = store, settings
        self._days = settings.days()
        self._steps: list[Step] = []
        self._next_ms = 0

    def tick(self, now_ms: int) -> None:
        """Begin a sweep when one is due; go on with the one that is under way."""
        if not self._steps and now_ms >= self._next_ms:
            self._next_ms = now_ms + EVERY_MS
            self._steps = [self._old, self._room, self._done]
        if self._steps and not self._steps[0](now_ms):
            self._steps.pop(0)

    def run(self, now_ms: int) -> None:
        """A whole sweep, at once."""
        for step in (self._old, self._room, self._done):
            while step(now_ms):
                pass

    def _old(self, now_ms: int) -> bool:
        for name, days, wanted in self._limits(now_ms):
            before_ms = now_ms - days * DAY_MS
            older = partial(passing.older, wanted=wanted, before_ms=before_ms, limit=AT_ONCE)
            if days and self._remove(older, why=f"{name}: kept for {days} days", now_ms=now_ms):
                return True
        return False

    def _limits(self, now_ms: int) -> Iterator[tuple[str, int, sa.ColumnElement[bool]]]:
        """What is kept for how long: (words, days, which samples)."""
        for name in CLASSES:
            yield name, self._days[name], passing.of_class(name)
        if self._settings.by_rules:
            with self._store.database.read() as connection:
                due = rules.due(connection, now_ms=now_ms)
            for one in due:
                mine = sa.and_(sample.c.device == one.device, sample.c.stream == one.stream)
                yield f"data rule {one.retention} of {one.device}/{one.stream}", one.retention_days, mine

    def _room(self, now_ms: int) -> bool:
        over = usage.over(self._store, self._settings.max_bytes)
        if over <= 0:
            return False
        wanted = over + int((1.0 - LEAVES) * self._settings.max_bytes)

        def some(connection: sa.Connection) -> Sequence[Any]:
            found = passing.least_useful(connection, before_ms=now_ms - YOUNG_MS, limit=AT_ONCE)
            return list(_as_many_as(found, wanted))

        return self._remove(some, why=f"the store is {over} bytes over its bound", now_ms=now_ms)

    def _remove(self, find: Callable[[sa.Connection], Sequence[Any]], *, why: str, now_ms: int) -> bool:
        with self._store.database.read() as connection:  # looked for without the right to write
            found = find(connection)
        if not found:
            return False
        with self._store.database.write() as connection:
            rows = passing.still(connection, found)
            passing.remove(connection, rows)
            devices = Counter(row.device for row in rows)
            detail = {
                "samples": len(rows),
                "bytes": sum(row.body_bytes for row in rows),
                "devices": dict(devices.most_common(20)),
                "until_ms": max((row.received_at_ms for row in rows), default=0),
            }
            trail.record(connection, "remove", "samples", why=why, detail=detail, now_ms=now_ms)
        passing.drop_bytes(self._store)
        log.info("%d samples were removed: %s", len(rows), why)
        return True

    def _done(self, now_ms: int) -> bool:
        passing.drop_bytes(self._store)  # what a killed sweep left
        tables.tidy(self._store, self._settings, now_ms=now_ms)
        usage.note(self._store, now_ms=now_ms)
        return False


def _as_many_as(rows: Sequence[Any], wanted_bytes: int) -> Iterator[Any]:
    for row in rows:
        if wanted_bytes <= 0:
            return
        wanted_bytes -= row.body_bytes
        yield row
