"""What does the broker keep for other programs, that must go when a device goes?

Kept by topic, so that what a killed server told, or another configuration, is found and withdrawn. A topic that was
withdrawn stays known: a broker may not have heard it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa

from server.store.insert import insert
from server.store.schema import announcement, device

WITHDRAWN = ""


class Heard(NamedTuple):
    """What a device said of itself, as far as others are told; None: it has not."""

    name: str
    site: str
    machine: str | None
    agent: str | None
    interval_s: float | None  # between heartbeats, as a rule
    longest_s: float | None  # to the next heartbeat, now


def heard(connection: sa.Connection) -> list[Heard]:
    """Of all devices that have said something, and were not erased since."""
    columns = (
        device.c.name,
        device.c.site,
        device.c.birth["machine"].as_string(),
        device.c.birth["agent"].as_string(),
        device.c.birth["interval_s"].as_float(),
        device.c.heartbeat["link"]["heartbeat_s"].as_float(),
    )
    said = sa.or_(device.c.birth.is_not(None), device.c.heartbeat.is_not(None))
    return [Heard(*row) for row in connection.execute(sa.select(*columns).where(said))]


def known(connection: sa.Connection) -> dict[str, str]:
    """Topic -> sha256 of what was told there last, or WITHDRAWN."""
    return {row.topic: row.sha256 for row in connection.execute(sa.select(announcement))}


def note(connection: sa.Connection, told: Mapping[str, str]) -> None:
    """Something was told, or withdrawn."""
    for topic, sha256 in told.items():
        statement = insert(connection, announcement).values(topic=topic, sha256=sha256)
        connection.execute(statement.on_conflict_do_update(index_elements=["topic"], set_={"sha256": sha256}))
