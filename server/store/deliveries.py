"""Which messages wait for a webhook, and what became of the others?

A message waits from the transaction that made it until its receiver has taken it, or it is given up: it is *dead* then,
with the reason. The newest of both are kept to be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from server.store.schema import delivery

WAITING_MAX = 1000  # of one receiver; one that is away for hours needs fewer, one that never comes back fills the disk
KEPT = 200  # of those that ended, of each receiver and state
FULL = f"more than {WAITING_MAX} wait"


class Delivery(NamedTuple):
    """A message to a receiver."""

    id: int
    url: str
    type: str
    body: str
    made_at_ms: int
    state: str
    tries: int
    next_at_ms: int
    ended_at_ms: int | None
    error: str


def put(connection: sa.Connection, url: str, type_: str, body: str, *, now_ms: int) -> list[int]:
    """Have a message wait; returns the ids of the oldest that had to give way, dead now."""
    values = {"url": url, "type": type_, "body": body, "made_at_ms": now_ms, "next_at_ms": now_ms}
    connection.execute(sa.insert(delivery).values(**values, state="waiting", tries=0))
    mine = sa.and_(delivery.c.state == "waiting", delivery.c.url == url)
    newest = sa.select(delivery.c.id).where(mine).order_by(delivery.c.id.desc())
    over = list(connection.scalars(newest.offset(WAITING_MAX)))
    for number in over:
        end(connection, number, "dead", error=FULL, now_ms=now_ms)
    return over


def due(connection: sa.Connection, url: str, *, now_ms: int, limit: int) -> Sequence[Delivery]:
    """Those that may go to a receiver now, the oldest first."""
    mine = (delivery.c.state == "waiting", delivery.c.url == url, delivery.c.next_at_ms <= now_ms)
    return [
        Delivery(*row)
        for row in connection.execute(sa.select(delivery).where(*mine).order_by(delivery.c.id).limit(limit))
    ]


def next_ms(connection: sa.Connection, url: str) -> int | None:
    """When the next may go to a receiver; None: none waits."""
    mine = (delivery.c.state == "waiting", delivery.c.url == url)
    found: int | None = connection.scalar(sa.select(sa.func.min(delivery.c.next_at_ms)).where(*mine))
    return found


def failed(connection: sa.Connection, number: int, *, error: str, next_at_ms: int) -> None:
    """A try failed; there will be another."""
    values = {"tries": delivery.c.tries + 1, "next_at_ms": next_at_ms, "error": error}
    connection.execute(sa.update(delivery).where(delivery.c.id == number).values(values))


def end(connection: sa.Connection, number: int, state: str, *, error: str = "", now_ms: int) -> None:
    """It was `delivered`, or is `dead`; of each receiver and state the newest are kept."""
    values: dict[str, Any] = {"state": state, "ended_at_ms": now_ms, "error": error}
    if error != FULL:
        values["tries"] = delivery.c.tries + 1
    url = connection.execute(
        sa.update(delivery).where(delivery.c.id == number).values(values).returning(delivery.c.url)
    ).scalar_one()
    mine = sa.and_(delivery.c.state == state, delivery.c.url == url)
    newest = sa.select(delivery.c.id).where(mine).order_by(delivery.c.id.desc()).offset(KEPT - 1).limit(1)
    connection.execute(sa.delete(delivery).where(mine, delivery.c.id < newest.scalar_subquery()))


def abandon(connection: sa.Connection, urls: Sequence[str], *, now_ms: int) -> int:
    """What waits for a receiver that is none of these is dead; returns how many."""
    orphans = sa.and_(delivery.c.state == "waiting", delivery.c.url.not_in(urls))
    values = {"state": "dead", "ended_at_ms": now_ms, "error": "the receiver is no longer configured"}
    return connection.execute(sa.update(delivery).where(orphans).values(values)).rowcount


def counts(connection: sa.Connection) -> dict[tuple[str, str], int]:
    """(url, state) -> messages; of those that ended, the kept."""
    query = sa.select(delivery.c.url, delivery.c.state, sa.func.count()).group_by(delivery.c.url, delivery.c.state)
    return {(url, state): number for url, state, number in connection.execute(query)}


def last(connection: sa.Connection, url: str, *states: str) -> Delivery | None:
    """The newest of a receiver in one of these states."""
    query = sa.select(delivery).where(delivery.c.url == url, delivery.c.state.in_(states))
    row = connection.execute(query.order_by(delivery.c.id.desc()).limit(1)).first()
    return None if row is None else Delivery(*row)
