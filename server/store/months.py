"""How are stretches of long ago kept?

By the month. Stretches (stretches.py) that follow each other in a run, under one model, are one stretch as well: their
counts and sums add up, and every sample is still of the stretch that has its number. So nothing that is counted by
sequence numbers changes; only that days are not told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from server.store import stretches
from server.store.database import Database
from server.store.schema import stretch

DAY_MS = 86_400_000
FOLDED_DAYS = 62
"""Stretches are kept by the day for so long: twice as long as anything looks back by days."""


def newest() -> sa.Select[tuple[int]]:
    """The last of each device's stream: the next begins where it ends."""
    return sa.select(sa.func.max(stretch.c.id)).group_by(stretch.c.device, stretch.c.stream)


def fold_before(now_ms: int) -> str:
    """Stretches of days before that one are to be months: it is the first of a month, FOLDED_DAYS ago or more."""
    return stretches.day_of(now_ms - FOLDED_DAYS * DAY_MS)[:8] + "01"


def fold(database: Database, *, before_day: str) -> int:
    """Make one stretch of those of a month that follow each other in a run, under one model; how many went.

    No sum changes, and every sample is of the stretch that has its number, as before. Its day is the last of them. A
    device to a transaction; a fold that was cut short is made good by the next.
    """
    month = sa.func.substr(stretch.c.day, 1, 7)
    run = (stretch.c.device, stretch.c.stream, stretch.c.boot, stretch.c.session, stretch.c.model_version, month)
    query = sa.select(stretch.c.device).where(stretch.c.day < before_day).group_by(*run).having(sa.func.count() > 1)
    with database.read() as connection:
        devices = sorted(set(connection.scalars(query)))
    return sum(_fold(database, device, before_day) for device in devices)


def _fold(database: Database, device: str, before_day: str) -> int:
    gone = 0
    with database.write() as connection:
        query = sa.select(stretch).where(stretch.c.device == device, stretch.c.day < before_day)
        rows = connection.execute(query.order_by(stretch.c.stream, stretch.c.boot, stretch.c.session, stretch.c.id))
        for some in _following(rows.all()):
            last, earlier = some[-1], [row.id for row in some[:-1]]
            if earlier:
                connection.execute(sa.delete(stretch).where(stretch.c.id.in_(earlier)))
                connection.execute(sa.update(stretch).where(stretch.c.id == last.id).values(_together(some)))
                gone += len(earlier)
    return gone


def _following(rows: Sequence[Any]) -> Iterator[list[Any]]:
    """Those that follow each other, in groups that become one."""
    group: list[Any] = []
    for row in rows:
        if group and not _continues(group[-1], row):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _continues(one: Any, other: Any) -> bool:
    same = ("stream", "boot", "session", "model_version")
    alike = all(getattr(one, name) == getattr(other, name) for name in same) and one.day[:7] == other.day[:7]
    return alike and one.last_seq + 1 == other.first_seq


def _together(rows: Sequence[Any]) -> dict[str, Any]:
    selected: Counter[str] = Counter()
    sums: stretches.Sums = {}
    for row in rows:
        selected.update(row.selected)
        sums = stretches.added(sums, row.sums)
    values: dict[str, Any] = {name: sum(getattr(row, name) for row in rows) for name in ("read", "scored", "invalid")}
    return values | {"first_seq": rows[0].first_seq, "selected": dict(selected), "sums": sums}
