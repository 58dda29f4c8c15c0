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
from server.keep.rules import CLASSES, DAY_MS, YOUNG_MS, enough
from server.store import passing, rules, trail, usage
from server.store.schema import sample
from server.store.shards import Shards
from server.store.store import Store

log = logging.getLogger(__name__)

EVERY_MS = 3_600_000
AT_ONCE = 1000  # samples to a transaction: more hold up ingest, fewer make a longer trail
LOOK = 20_000  # that are found at once: a look goes over all that may not go
FREED = 0.5  # of the bytes that went; less, and small bodies went that leave pages half empty: these are put together
LEAVES = 0.95  # of the bound, so that the next sample does not begin another sweep

_NAMED = 20  # devices in an entry of the trail
_END = object()
Find = Callable[[sa.Connection], Sequence[Any]]


class Sweep:
    """For a running server."""

    def __init__(self, store: Store, settings: Retention) -> None:
        """Nothing happens yet."""
        self._store, self._settings = store, settings
        self._days = settings.days()
        self._under_way: Iterator[None] | None = None
        self._next_ms = 0
        self._gone: Counter[str] = Counter()

    def tick(self, now_ms: int) -> None:
        """Begin a sweep when one is due; go on with the one that is under way."""
        if self._under_way is None and now_ms >= self._next_ms:
            self._next_ms = now_ms + EVERY_MS
            self._under_way = self._sweep(now_ms)
        if self._under_way is not None and next(self._under_way, _END) is _END:
            self._under_way = None

    def run(self, now_ms: int) -> dict[str, int]:
        """A whole sweep, at once; table -> rows that went."""
        self._gone.clear()
        for _ in self._sweep(now_ms):
            pass
        return dict(+self._gone)

    def _sweep(self, now_ms: int) -> Iterator[None]:
        """Some of it at a time."""
        for name, days, wanted in self._limits(now_ms):
            if days:
                older = partial(passing.older, wanted=wanted, before_ms=now_ms - days * DAY_MS, limit=LOOK)
                yield from self._old(older, f"{name}: kept for {days} days", now_ms)
        yield from self._room(now_ms)
        passing.drop_bytes(self._store)  # what a killed sweep left
        self._gone.update(tables.tidy(self._store, self._settings, now_ms=now_ms))
        usage.note(self._store, now_ms=now_ms)

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

    def _old(self, find: Find, why: str, now_ms: int) -> Iterator[None]:
        while found := self._found(find):
            yield from self._remove(found, why, now_ms)

    def _room(self, now_ms: int) -> Iterator[None]:
        find = partial(passing.least_useful, before_ms=now_ms - YOUNG_MS, limit=LOOK)
        over = self._over()
        while over > 0:
            wanted = over + int((1.0 - LEAVES) * self._settings.max_bytes)
            found = list(enough(self._found(find), wanted))
            if not found:
                return
            yield from self._remove(found, f"the store was {over} bytes over its bound", now_ms)
            before, over = over, self._over()
            if before - over < FREED * sum(row.body_bytes for row in found) and isinstance(self._store.blobs, Shards):
                for _ in self._store.blobs.pack():
                    yield
                over = self._over()
            if over >= before:
                log.warning(
                    "%d samples were removed, and the store is no smaller: no more go in this sweep", len(found)
                )
                return

    def _over(self) -> int:
        return usage.over(self._store, self._settings.max_bytes)

    def _found(self, find: Find) -> Sequence[Any]:
        with self._store.database.read() as connection:  # looked for without the right to write
            return find(connection)

    def _remove(self, found: Sequence[Any], why: str, now_ms: int) -> Iterator[None]:
        for start in range(0, len(found), AT_ONCE):
            self._forget(found[start : start + AT_ONCE], why, now_ms)
            yield

    def _forget(self, found: Sequence[Any], why: str, now_ms: int) -> None:
        with self._store.database.write() as connection:
            rows = passing.still(connection, found)
            if rows:
                passing.remove(connection, rows)
                detail = {
                    "samples": len(rows),
                    "bytes": sum(row.body_bytes for row in rows),
                    "devices": dict(Counter(row.device for row in rows).most_common(_NAMED)),
                    "until_ms": max(row.received_at_ms for row in rows),
                }
                trail.record(connection, "remove", "samples", why=why, detail=detail, now_ms=now_ms)
        passing.drop_bytes(self._store)
        self._gone["sample"] += len(rows)
        log.info("%d samples were removed: %s", len(rows), why)
