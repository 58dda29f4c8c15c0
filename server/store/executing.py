"""Which devices execute which version?

By what they said last: their heartbeat, else their birth. It is looked up by the database, for ten thousand heartbeats
are not decoded to find a few.
"""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from server.store.schema import device


class Pace(NamedTuple):
    """How fast it is on one kind of machine."""

    machine: str
    devices: int  # that said so
    mean_ms: float  # of their 95 % quantiles
    worst_ms: float


_executed = sa.func.coalesce(
    device.c.heartbeat["model"]["version"].as_integer(), device.c.birth["model"]["version"].as_integer()
)


def names(connection: sa.Connection, number: int) -> list[str]:
    """Devices that said last that they execute it."""
    return list(connection.scalars(sa.select(device.c.name).where(_executed == number).order_by(device.c.name)))


def paces(connection: sa.Connection, number: int) -> list[Pace]:
    """How long a version takes on the machines that run it, where their devices say so."""
    machine = sa.func.coalesce(device.c.birth["machine"].as_string(), "")
    took = device.c.heartbeat["latency_p95_ms"].as_float()
    here = (device.c.heartbeat["model"]["version"].as_integer() == number, took > 0.0)
    query = sa.select(machine, sa.func.count().label("n"), sa.func.avg(took), sa.func.max(took)).where(*here)
    return [Pace(*row) for row in connection.execute(query.group_by(machine).order_by(sa.desc("n"), machine))]
