"""What did each device's stream look like, hour by hour?

A *span* is a slice of time of one device and one model: how many samples it saw, sent or not, the sums of their drift
signals, and how often each class was predicted. Spans start at whole multiples of their length, so that those of all
devices lie side by side. Old ones are folded into longer ones: what is long ago is not looked at as closely.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from server.store.among import Question, looked_up
from server.store.database import Database
from server.store.insert import insert
from server.store.many import Many
from server.store.schema import span
from server.store.vectors import added, pack, table, unpack

SPAN_MS = 3_600_000
"""Shorter, and neighbours resemble each other; longer, and a change is told late."""
OLD_SPAN_MS = 24 * SPAN_MS
OLD_AFTER_MS = 14 * OLD_SPAN_MS
"""Fewer days, and what came on slowly is seen coarsely; more, and 1,000 devices fill some 200 MB a week."""


class History(NamedTuple):
    """The m spans of a device under one model, in order of time.

    start_ms: (m,). signals: (m, 1 + F) float32, samples, then sums in 1/4096 (StreamCounts). classes: (m, C) predicted.
    """

    start_ms: NDArray[np.int64]
    signals: NDArray[np.float32]
    classes: NDArray[np.float32]


class Seen(NamedTuple):
    """What a device saw under a model, as sums (StreamCounts): `signals` and `classes` are looked at."""

    device: str
    version: int
    sums: Mapping[str, Sequence[float]]
    at_ms: int


def add(connection: sa.Connection, seen: Sequence[Seen]) -> None:
    """Add what was heard just now; of no known model, or without signals, it says nothing."""
    found: dict[int, dict[tuple[str, int], list[tuple[Sequence[float], Sequence[float]]]]] = {}
    for one in seen:
        signals, classes = one.sums.get("signals", ()), one.sums.get("classes", ())
        if one.version and signals and signals[0] > 0:
            hour = found.setdefault(one.at_ms // SPAN_MS * SPAN_MS, {})
            hour.setdefault((one.device, one.version), []).append((signals, classes))
    for start_ms, parts in found.items():
        _add(connection, start_ms, parts)


def _add(
    connection: sa.Connection,
    start_ms: int,
    found: dict[tuple[str, int], list[tuple[Sequence[float], Sequence[float]]]],
) -> None:
    by_version: dict[int, list[str]] = defaultdict(list)
    for device, version in found:
        by_version[version].append(device)
    for version, names in by_version.items():
        for device, signals, classes in _THERE.ask(connection, names, version=version, start_ms=start_ms):
            found[device, version].append((unpack(signals), unpack(classes)))
    rows = []
    for (device, version), parts in found.items():
        signals, classes = (added(*vectors) for vectors in zip(*parts, strict=True))
        rows.append({"device": device, "model_version": version, "start_ms": start_ms} | _row(signals, classes))
    _ADDED.run(connection, rows)


def _there(connection: sa.Connection) -> sa.Select[Any]:
    mine = span.c.model_version == sa.bindparam("version"), span.c.start_ms == sa.bindparam("start_ms")
    return looked_up(connection, sa.select(span.c.device, span.c.signals, span.c.classes).where(*mine), span.c.device)


_THERE = Question(_there)


def _added(connection: sa.Connection) -> sa.Executable:
    new, keys = insert(connection, span), [span.c.device, span.c.model_version, span.c.start_ms]
    changes = {name: new.excluded[name] for name in ("signals", "classes")}
    made: sa.Executable = new.on_conflict_do_update(index_elements=keys, set_=changes)
    return made


_ADDED = Many(_added, *span.c.keys())


def of_version(connection: sa.Connection, version: int, *, before_ms: int) -> dict[str, History]:
    """What each device looked like under a model, in the spans that ended before `before_ms`."""
    query = (
        sa.select(span.c.device, span.c.start_ms, span.c.signals, span.c.classes)
        .where(span.c.model_version == version, span.c.start_ms <= before_ms - SPAN_MS)
        .order_by(span.c.device, span.c.start_ms)
    )
    found = {}
    for device, rows in groupby(connection.execute(query), key=lambda row: str(row[0])):
        _, start_ms, signals, classes = zip(*rows, strict=True)
        found[device] = History(np.array(start_ms, np.int64), table(signals), table(classes))
    return found


def of_device(connection: sa.Connection, device: str, *, since_ms: int) -> History:
    """What a device looked like from then on, under whatever model; one span after the other."""
    query = sa.select(span.c.start_ms, span.c.signals, span.c.classes)
    rows = connection.execute(
        query.where(span.c.device == device, span.c.start_ms >= since_ms).order_by(span.c.start_ms)
    ).all()
    start_ms, signals, classes = zip(*rows, strict=True) if rows else ((), (), ())
    return History(np.array(start_ms, np.int64), table(signals), table(classes))


def by_hour(connection: sa.Connection, *, since_ms: int) -> list[float]:
    """How many samples all devices saw in each hour of the day, UTC: 24 numbers, of hours that are not folded yet."""
    seen = [0.0] * 24
    query = sa.select(span.c.start_ms, span.c.signals).where(span.c.start_ms >= since_ms)
    for start_ms, signals in connection.execute(query):
        seen[start_ms // SPAN_MS % 24] += unpack(signals)[0]
    return seen


def old_before(now_ms: int) -> int:
    """Spans from before then are to be days: it moves once a day."""
    return (now_ms - OLD_AFTER_MS) // OLD_SPAN_MS * OLD_SPAN_MS


def fold(database: Database, *, before_ms: int, stopped: Callable[[], bool] = lambda: False) -> None:
    """Make days of the hours before a midnight: a device to a transaction, so that ingest waits for none of them long.

    A fold that was cut short, or `stopped`, is made good by the next.
    """
    hours = sa.and_(span.c.start_ms < before_ms, span.c.start_ms % OLD_SPAN_MS != 0)
    since = sa.func.min(span.c.start_ms)
    query = sa.select(span.c.device, span.c.model_version, since).where(hours)
    with database.read() as connection:
        old = connection.execute(query.group_by(span.c.device, span.c.model_version)).all()
    for device, version, first_ms in old:
        if stopped():
            return
        with database.write() as connection:
            _fold(connection, device, version, first_ms // OLD_SPAN_MS * OLD_SPAN_MS, before_ms)


def _fold(connection: sa.Connection, device: str, version: int, first_ms: int, before_ms: int) -> None:
    mine = sa.and_(span.c.device == device, span.c.model_version == version)
    gone = sa.delete(span).where(mine, span.c.start_ms >= first_ms, span.c.start_ms < before_ms)
    days = defaultdict(list)
    for row in connection.execute(gone.returning(span.c.start_ms, span.c.signals, span.c.classes)):
        days[row.start_ms // OLD_SPAN_MS * OLD_SPAN_MS].append((unpack(row.signals), unpack(row.classes)))
    if days:  # else somebody erased the device since
        rows = [(start_ms, *(added(*part) for part in zip(*day, strict=True))) for start_ms, day in days.items()]
        key = {"device": device, "model_version": version}
        connection.execute(sa.insert(span), [key | {"start_ms": at} | _row(one, other) for at, one, other in rows])


def _row(signals: Sequence[float], classes: Sequence[float]) -> dict[str, bytes]:
    return {"signals": pack(signals), "classes": pack(classes)}
