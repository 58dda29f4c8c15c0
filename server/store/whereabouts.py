"""Where does each device belong, as operators said: which channel, which ring, which site?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from server.store.devices import never_seen
from server.store.schema import device

AT_ONCE = 500  # names to one statement


class Place(NamedTuple):
    """Of a device."""

    name: str
    channel: str
    ring: str | None  # None: drawn anew for every version
    site: str
    online: bool


def every(connection: sa.Connection) -> list[Place]:
    """Of all devices, by name, without their words: those of 10,000 take seconds to read."""
    query = sa.select(*(device.c[column] for column in Place._fields)).order_by(device.c.name)
    return [Place(*row) for row in connection.execute(query)]


def put(connection: sa.Connection, names: Sequence[str], **where: str | None) -> None:
    """Put devices into a `channel` or a `ring`, or at a `site`. StoreError when there is none of such a name."""
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        mine = device.c.name.in_(some)
        if missing := set(some).difference(connection.scalars(sa.select(device.c.name).where(mine))):
            raise never_seen(connection, min(missing))
        if where:
            connection.execute(sa.update(device).where(mine).values(where))
