"""Which arms are there, what is thought of them, and which device has which?

The state is plain JSON here; teach/portfolio.py says what it means. It is kept together with the id of the last run
that it learned from, and with the arms that follow, so that no run is learned from twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from server.store.insert import insert
from server.store.schema import device, portfolio

CHANNEL = "default"  # one portfolio for the whole fleet, whatever channels of rollouts its devices are in


class Kept(NamedTuple):
    """A portfolio as it was kept."""

    channel: str
    state: dict[str, Any]
    shares: dict[str, float]  # of the fleet, by arm; empty: switched off
    run_id: int
    at_ms: int


def get(connection: sa.Connection, channel: str = CHANNEL) -> Kept | None:
    """What is kept of a channel."""
    row = connection.execute(sa.select(portfolio).where(portfolio.c.channel == channel)).one_or_none()
    return None if row is None else Kept(*row)


def save(connection: sa.Connection, kept: Kept) -> None:
    """Keep it in place of what was."""
    statement = insert(connection, portfolio).values(kept._asdict())
    connection.execute(statement.on_conflict_do_update(index_elements=[portfolio.c.channel], set_=kept._asdict()))


def switch_off(connection: sa.Connection, channel: str = CHANNEL, *, now_ms: int) -> None:
    """Every device goes back to its own configuration; what is thought of the arms stays, for another time."""
    connection.execute(sa.update(portfolio).where(portfolio.c.channel == channel).values(shares={}, at_ms=now_ms))
    connection.execute(sa.update(device).values(arm=None))


def tell(connection: sa.Connection, arms: Mapping[str, str]) -> None:
    """Give devices their arms."""
    for name, arm in arms.items():
        connection.execute(sa.update(device).where(device.c.name == name).values(arm=arm))


def told(connection: sa.Connection, *, seen_since_ms: int = 0, but: Collection[str] = ()) -> dict[str, str | None]:
    """The arm of every device that gave a sign of life since; without those that have one of `but`."""
    other = sa.or_(device.c.arm.is_(None), device.c.arm.not_in(but)) if but else sa.true()
    query = sa.select(device.c.name, device.c.arm).where(device.c.last_seen_ms >= seen_since_ms, other)
    return {row.name: row.arm for row in connection.execute(query)}
