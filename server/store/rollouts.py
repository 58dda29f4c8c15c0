"""How far is each rollout, and why?

Plan and state are plain JSON here; release/rollout.py says what they mean. Steps are only ever added.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from server.store.schema import rollout, rollout_step, version


class Rollout(NamedTuple):
    """One version on its way to the fleet."""

    id: int
    version: int
    previous: int
    plan: dict[str, Any]
    state: dict[str, Any]
    status: str  # running, done, halted
    started_at_ms: int
    ended_at_ms: int | None


class Step(NamedTuple):
    """One thing that happened."""

    at_ms: int
    text: str


def insert(
    connection: sa.Connection, *, number: int, previous: int, plan: dict[str, Any], state: dict[str, Any], now_ms: int
) -> int:
    """A running rollout of version `number`; returns its id."""
    values = {
        "version": number,
        "previous": previous,
        "plan": plan,
        "state": state,
        "status": "running",
        "started_at_ms": now_ms,
    }
    rollout_id: int = connection.execute(sa.insert(rollout).values(values).returning(rollout.c.id)).scalar_one()
    return rollout_id


def save(
    connection: sa.Connection,
    rollout_id: int,
    *,
    state: dict[str, Any],
    status: str,
    steps: Iterable[str],
    now_ms: int,
) -> None:
    """Keep the state it came to, and what happened on the way."""
    values = {"state": state, "status": status, "ended_at_ms": None if status == "running" else now_ms}
    connection.execute(sa.update(rollout).where(rollout.c.id == rollout_id).values(values))
    if rows := [{"rollout_id": rollout_id, "at_ms": now_ms, "text": text} for text in steps]:
        connection.execute(sa.insert(rollout_step), rows)


def current(connection: sa.Connection) -> Rollout | None:
    """The newest rollout, ended or not: it says what every device should run."""
    row = connection.execute(sa.select(rollout).order_by(rollout.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else Rollout(*row)


def steps(connection: sa.Connection, rollout_id: int) -> Sequence[Step]:
    """What happened in it, oldest first."""
    query = sa.select(rollout_step.c.at_ms, rollout_step.c.text).where(rollout_step.c.rollout_id == rollout_id)
    return [Step(*row) for row in connection.execute(query.order_by(rollout_step.c.id))]


def awaited(connection: sa.Connection) -> int | None:
    """The newest version, when it has no rollout yet. Older ones without are passed over: nobody needs them."""
    newest = connection.scalar(sa.select(sa.func.max(version.c.number)))
    started = connection.scalar(sa.select(sa.func.max(rollout.c.version)))
    return newest if newest is not None and newest > (started or 0) else None
