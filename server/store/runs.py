r"""Which trainings were there, and how did they end?

training -> judging -> passed -> published      its version is in `version`
      \         \ `-> rejected -> passed        the gates said no, and perhaps a person said yes; the report says why
       `---------`---> failed                    error says why; "interrupted": the server died under it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from server.store.schema import curve, run, version

INTERRUPTED = "interrupted"
UNFINISHED = ("training", "judging")
JUDGED = ("passed", "published", "rejected")


class Run(NamedTuple):
    """One training."""

    id: int
    snapshot_id: str
    champion: int
    recipe: str
    state: str
    started_at_ms: int
    ended_at_ms: int | None
    report: dict[str, Any]  # settings, counts, losses, figures, verdict, and the candidate's blobs
    error: str | None


class Brief(NamedTuple):
    """A training without its report, which may be large."""

    id: int
    state: str
    snapshot_id: str
    champion: int  # 0: from nothing
    recipe: str
    version: int | None  # that it led to
    epochs: int  # that it has told of
    started_at_ms: int
    ended_at_ms: int | None
    error: str | None


def insert(
    connection: sa.Connection,
    *,
    snapshot_id: str,
    champion: int,
    recipe: str,
    report: dict[str, Any],
    now_ms: int,
) -> int:
    """A run in state training; returns its id."""
    values = {
        "snapshot_id": snapshot_id,
        "champion": champion,
        "recipe": recipe,
        "state": "training",
        "started_at_ms": now_ms,
        "report": report,
    }
    run_id: int = connection.execute(sa.insert(run).values(values).returning(run.c.id)).scalar_one()
    return run_id


def mark(connection: sa.Connection, run_id: int, *, state: str) -> bool:
    """Take an unfinished run on to `state`; False when it had ended."""
    return _unfinished(connection, run_id, state=state)


def finish(connection: sa.Connection, run_id: int, *, state: str, report: dict[str, Any], now_ms: int) -> bool:
    """End an unfinished run with its report; False when it had ended."""
    return _unfinished(connection, run_id, state=state, report=report, ended_at_ms=now_ms)


def fail(connection: sa.Connection, run_id: int, *, error: str, now_ms: int) -> bool:
    """End an unfinished run as failed; False when it had ended."""
    return _unfinished(connection, run_id, state="failed", error=error, ended_at_ms=now_ms)


def publish(connection: sa.Connection, run_id: int) -> bool:
    """The candidate of a run that passed becomes a version; False when it is one already."""
    query = sa.update(run).where(run.c.id == run_id, run.c.state == "passed")
    return connection.execute(query.values(state="published")).rowcount > 0


def override(connection: sa.Connection, run_id: int, *, report: dict[str, Any]) -> bool:
    """Let a rejected run pass, with what its report says from now on; False when it is not rejected."""
    query = sa.update(run).where(run.c.id == run_id, run.c.state == "rejected")
    return connection.execute(query.values(state="passed", report=report)).rowcount > 0


def _unfinished(connection: sa.Connection, run_id: int, **values: object) -> bool:
    query = sa.update(run).where(run.c.id == run_id, run.c.state.in_(UNFINISHED))
    return connection.execute(query.values(values)).rowcount > 0


def get(connection: sa.Connection, run_id: int) -> Run | None:
    """The run of that id."""
    row = connection.execute(sa.select(run).where(run.c.id == run_id)).one_or_none()
    return None if row is None else Run(*row)


def briefs(connection: sa.Connection, *numbers: int, below: int = 0, limit: int) -> Sequence[Brief]:
    """The newest first; those of `numbers` alone, if some are said, and below `below`, if that is not 0."""
    led_to = sa.select(version.c.number).where(version.c.run_id == run.c.id).limit(1).scalar_subquery()
    epochs = sa.select(sa.func.coalesce(sa.func.max(curve.c.epoch), 0)).where(curve.c.run_id == run.c.id)
    made = {"version": led_to, "epochs": epochs.scalar_subquery()}
    query = sa.select(*(made[name] if name in made else run.c[name] for name in Brief._fields))
    query = query.where(run.c.id.in_(numbers)) if numbers else query
    query = query.where(run.c.id < below) if below else query
    return [Brief(*row) for row in connection.execute(query.order_by(run.c.id.desc()).limit(limit))]


def in_state(connection: sa.Connection, *states: str) -> Sequence[Run]:
    """Runs in one of these states, oldest first."""
    query = sa.select(run).where(run.c.state.in_(states)).order_by(run.c.id)
    return [Run(*row) for row in connection.execute(query)]


def following(connection: sa.Connection, *states: str, after: int) -> Run | None:
    """The oldest run whose id is above `after`; where states are named, in one of them."""
    query = sa.select(run).where(run.c.id > after).order_by(run.c.id).limit(1)
    row = connection.execute(query.where(run.c.state.in_(states)) if states else query).one_or_none()
    return None if row is None else Run(*row)


def last_id(connection: sa.Connection) -> int:
    """Of the newest run, however it ended; 0: there was none."""
    return connection.scalar(sa.select(sa.func.max(run.c.id))) or 0


def latest(connection: sa.Connection, *, limit: int = 1) -> Sequence[Run]:
    """The newest runs that were not interrupted, newest first."""
    query = sa.select(run).where(run.c.error.is_distinct_from(INTERRUPTED)).order_by(run.c.id.desc()).limit(limit)
    return [Run(*row) for row in connection.execute(query)]


def interrupted(connection: sa.Connection) -> int:
    """How many of the newest were, one after the other."""
    ended = sa.select(sa.func.coalesce(sa.func.max(run.c.id), 0)).where(run.c.error.is_distinct_from(INTERRUPTED))
    return connection.scalar(sa.select(sa.func.count()).where(run.c.id > ended.scalar_subquery())) or 0


def of_snapshot(connection: sa.Connection, snapshot_id: str) -> list[int]:
    """The numbers of those that learned from a snapshot."""
    return list(connection.scalars(sa.select(run.c.id).where(run.c.snapshot_id == snapshot_id).order_by(run.c.id)))


def led_to(connection: sa.Connection, run_id: int) -> int | None:
    """The version that a run led to; None: none yet."""
    return connection.scalar(sa.select(version.c.number).where(version.c.run_id == run_id))


def rounds(connection: sa.Connection) -> int:
    """Runs that set out from a champion and were not interrupted."""
    query = sa.select(sa.func.count()).where(run.c.champion > 0, run.c.error.is_distinct_from(INTERRUPTED))
    return connection.scalar(query) or 0
