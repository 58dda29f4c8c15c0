"""Which rounds did people ask for?

An order waits here until whoever begins rounds begins it; it is answered with the run that came of it. One whose round
died with whoever began it waits again, for another process perhaps.
"""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from server.store import trail
from server.store.schema import training_order


class Order(NamedTuple):
    """A round that somebody asked for."""

    id: int
    at_ms: int
    who: str
    why: str
    run_id: int | None  # null: not begun


def add(connection: sa.Connection, *, who: str, why: str, now_ms: int) -> int:
    """Ask for a round; returns the order's id."""
    values = {"at_ms": now_ms, "who": who, "why": why}
    order_id: int = connection.execute(
        sa.insert(training_order).values(values).returning(training_order.c.id)
    ).scalar_one()
    trail.record(connection, "train", f"order {order_id}", why=why, who=who, now_ms=now_ms)
    return order_id


def waiting(connection: sa.Connection) -> Order | None:
    """The oldest that no round was begun for."""
    query = sa.select(training_order).where(training_order.c.run_id.is_(None)).order_by(training_order.c.id).limit(1)
    row = connection.execute(query).first()
    return None if row is None else Order(*row)


def reopen(connection: sa.Connection, run_id: int) -> None:
    """The round that was to answer them was interrupted."""
    connection.execute(sa.update(training_order).where(training_order.c.run_id == run_id).values(run_id=None))


def last_id(connection: sa.Connection) -> int:
    """Of the newest order; 0: there was none."""
    return connection.scalar(sa.select(sa.func.max(training_order.c.id))) or 0


def begun(connection: sa.Connection, run_id: int, *, until: int) -> None:
    """A round has begun on all that was labelled after the order `until`: it answers every one up to that."""
    waited = (training_order.c.run_id.is_(None), training_order.c.id <= until)
    connection.execute(sa.update(training_order).where(*waited).values(run_id=run_id))
