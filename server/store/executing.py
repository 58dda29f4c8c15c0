"""Which devices execute which version?

By what they said last: their heartbeat, else their birth. It is counted by the database, for ten thousand heartbeats
are not decoded to say one number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from server.store.schema import device


class Count(NamedTuple):
    """Devices that execute a version."""

    devices: int
    online: int


class Place(NamedTuple):
    """Where they are."""

    channel: str
    site: str
    slot: str  # steady, staged, trial
    devices: int
    online: int


class Pace(NamedTuple):
    """How fast it is on one kind of machine."""

    machine: str
    devices: int  # that said so
    mean_ms: float  # of their 95 % quantiles
    worst_ms: float


def _said(*path: str) -> tuple[Any, Any]:
    """A value of the last heartbeat and of the last birth."""
    heartbeat, birth = device.c.heartbeat[path[0]], device.c.birth[path[0]]
    for part in path[1:]:
        heartbeat, birth = heartbeat[part], birth[part]
    return heartbeat, birth


_executed = sa.func.coalesce(*(word.as_integer() for word in _said("model", "version")))
_slot = sa.func.coalesce(*(word.as_string() for word in _said("model", "slot")), "")
_online = sa.func.sum(sa.case((device.c.online, 1), else_=0))


def names(connection: sa.Connection, number: int) -> list[str]:
    """Devices that said last that they execute it."""
    return list(connection.scalars(sa.select(device.c.name).where(_executed == number).order_by(device.c.name)))


def counts(connection: sa.Connection) -> dict[int, Count]:
    """Of every version that some device executes, how many do; 0: those that said none."""
    number = sa.func.coalesce(_executed, 0)
    query = sa.select(number, sa.func.count(), _online).group_by(number)
    return {row[0]: Count(row[1], row[2]) for row in connection.execute(query)}


def places(connection: sa.Connection, number: int) -> list[Place]:
    """Where a version runs: channel, site and slot; the most devices first."""
    of = (device.c.channel, device.c.site, _slot)
    query = sa.select(*of, sa.func.count().label("n"), _online).where(_executed == number).group_by(*of)
    return [Place(*row) for row in connection.execute(query.order_by(sa.desc("n"), *of))]


def paces(connection: sa.Connection, number: int) -> list[Pace]:
    """How long a version takes on the machines that run it, where their devices say so."""
    machine = sa.func.coalesce(device.c.birth["machine"].as_string(), "")
    took = device.c.heartbeat["latency_p95_ms"].as_float()
    here = (device.c.heartbeat["model"]["version"].as_integer() == number, took > 0.0)
    query = sa.select(machine, sa.func.count().label("n"), sa.func.avg(took), sa.func.max(took)).where(*here)
    return [Pace(*row) for row in connection.execute(query.group_by(machine).order_by(sa.desc("n"), machine))]
