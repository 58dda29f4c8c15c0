"""What stands that somebody should see to, and since when?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import sqlalchemy as sa

from server.config import AlarmKind
from server.store.schema import alarm


class Alarm(NamedTuple):
    """One that stands, or has just gone."""

    kind: AlarmKind
    subject: str  # "device cam-1", "rollout 3", "labels"
    text: str
    since_ms: int

    @property
    def key(self) -> tuple[AlarmKind, str]:
        """Two of the same key are the same alarm."""
        return self.kind, self.subject


def standing(connection: sa.Connection) -> list[Alarm]:
    """Those that stand, by kind and subject."""
    return [Alarm(*row) for row in connection.execute(sa.select(alarm).order_by(alarm.c.kind, alarm.c.subject))]


def of_device(name: str) -> str:
    """What alarms call a device."""
    return f"device {name}"


def change(connection: sa.Connection, *, raised: Iterable[Alarm], cleared: Iterable[Alarm]) -> None:
    """Some stand now, some no more."""
    for one in cleared:
        connection.execute(sa.delete(alarm).where(alarm.c.kind == one.kind, alarm.c.subject == one.subject))
    if rows := [one._asdict() for one in raised]:
        connection.execute(sa.insert(alarm), rows)
