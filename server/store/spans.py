"""What did each device's stream look like, hour by hour?

A *span* is a slice of time of one device and one model: how many samples it saw, sent or not, the sums of their drift
signals, and how often each class was predicted. Spans start at whole multiples of their length, so that those of all
devices lie side by side. Old ones are folded into longer ones: what is long ago is not looked at as closely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

import sqlalchemy as sa

from server.store.schema import span

SPAN_MS = 3_600_000
"""Shorter, and neighbours resemble each other; longer, and a change is told late."""
OLD_SPAN_MS = 24 * SPAN_MS
OLD_AFTER_MS = 14 * OLD_SPAN_MS
"""Fewer days, and what came on slowly is seen coarsely; more, and 1,000 devices fill some 200 MB a week."""


class Span(NamedTuple):
    """signals: samples, then sums in 1/4096 (StreamCounts). classes: predicted."""

    device: str
    model_version: int
    start_ms: int
    signals: list[int]
    classes: list[int]


def add(
    connection: sa.Connection, device: str, version: int, sums: Mapping[str, Sequence[float]], *, now_ms: int
) -> None:
    """Add what was heard just now; of no known model, or without signals, it says nothing."""
    signals = [int(n) for n in sums.get("signals", ())]
    if version and signals and signals[0] > 0:
        classes = [int(n) for n in sums.get("classes", ())]
        _put(connection, Span(device, version, now_ms // SPAN_MS * SPAN_MS, signals, classes))


def of_version(connection: sa.Connection, version: int, *, before_ms: int) -> dict[str, list[Span]]:
    """Spans of a model that ended before `before_ms`, by device, in order of time."""
    query = sa.select(span).where(span.c.model_version == version, span.c.start_ms <= before_ms - SPAN_MS)
    found: dict[str, list[Span]] = {}
    for row in connection.execute(query.order_by(span.c.device, span.c.start_ms)):
        found.setdefault(row.device, []).append(Span(*row))
    return found


def fold(connection: sa.Connection, *, now_ms: int) -> None:
    """Make days of the hours of long ago."""
    edge = (now_ms - OLD_AFTER_MS) // OLD_SPAN_MS * OLD_SPAN_MS
    old = sa.and_(span.c.start_ms < edge, span.c.start_ms % OLD_SPAN_MS != 0)
    for row in connection.execute(sa.delete(span).where(old).returning(span)).all():
        _put(connection, Span(*row)._replace(start_ms=row.start_ms // OLD_SPAN_MS * OLD_SPAN_MS))


def _put(connection: sa.Connection, new: Span) -> None:
    mine = (
        span.c.device == new.device,
        span.c.model_version == new.model_version,
        span.c.start_ms == new.start_ms,
    )
    there = connection.execute(sa.select(span).where(*mine)).first()
    if there is None:
        connection.execute(sa.insert(span).values(new._asdict()))
        return
    values = {"signals": _added(there.signals, new.signals), "classes": _added(there.classes, new.classes)}
    connection.execute(sa.update(span).where(*mine).values(values))


def _added(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip_longest(one, other, fillvalue=0)]
