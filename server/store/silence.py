"""Who fell silent?

A device may promise when it speaks next: it is not taken for dead before three of those went by.
"""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from server.store.schema import device

HEARTBEATS_MISSED = 3
"""Of a device that speaks seldom (quiet hours, a metered link). Fewer, and one lost heartbeat is taken for a death."""

LONGEST_BEAT_S = 1e7
"""Between heartbeats, four months. More is no promise, and times a few thousand no number that a catalogue can hold."""


class Silence(NamedTuple):
    """Who fell silent, and from when on (ms since 1970) somebody else may have; None: nobody is online."""

    names: list[str]
    next_ms: int | None


def mark_offline(connection: sa.Connection, *, now_ms: int, after_ms: int) -> Silence:
    """Devices silent for longer than `after_ms` and than HEARTBEATS_MISSED of their own heartbeats count as offline.

    Named are those for which that is news. Whoever is heard, is silent no earlier than `next_ms`: not to ask before
    spares a walk through all devices every second.
    """
    said_s = sa.func.coalesce(
        sa.func.nullif(device.c.heartbeat["link"]["heartbeat_s"].as_float(), 0.0),
        device.c.birth["interval_s"].as_float(),
        0.0,
    )
    beat_s = sa.case((said_s < LONGEST_BEAT_S, said_s), else_=LONGEST_BEAT_S)  # what an older server took in
    missed_ms = HEARTBEATS_MISSED * 1000.0 * beat_s
    longest_ms = sa.case((missed_ms > after_ms, missed_ms), else_=float(after_ms))
    silent = sa.and_(device.c.online, now_ms - device.c.last_seen_ms > longest_ms)
    names = connection.execute(sa.update(device).where(silent).values(online=False).returning(device.c.name)).scalars()
    found = sorted(names)
    next_ms = connection.scalar(sa.select(sa.func.min(device.c.last_seen_ms + longest_ms)).where(device.c.online))
    return Silence(found, None if next_ms is None else int(next_ms))
