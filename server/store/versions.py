"""Which models have been published?

A version is a number that only grows, a manifest by hash, and what is known of how it came to be. The manifest names
its ONNX files by hash; all of them are blobs. The champion is the newest version that no rollout halted: what the fleet
runs, or is about to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from server.config import STABLE
from server.store.schema import rollout, run, version


class Version(NamedTuple):
    """One published model."""

    number: int
    name: str
    parent: int  # 0: none
    snapshot_id: str  # empty when it was given by hand
    run_id: int | None
    manifest_sha256: str
    manifest_bytes: int
    created_at_ms: int
    weights_sha256: str  # empty: none to train on from
    metrics: dict[str, float]


def next_number(connection: sa.Connection) -> int:
    """One more than any so far."""
    return (connection.scalar(sa.select(sa.func.max(version.c.number))) or 0) + 1


def insert(connection: sa.Connection, made: Version) -> None:
    """Publish a version."""
    connection.execute(sa.insert(version).values(made._asdict()))


def get(connection: sa.Connection, number: int) -> Version | None:
    """The version of that number."""
    row = connection.execute(sa.select(version).where(version.c.number == number)).one_or_none()
    return None if row is None else Version(*row)


def every(connection: sa.Connection, *, above: int = 0) -> Sequence[Version]:
    """Every version with a number above `above`, oldest first."""
    query = sa.select(version).where(version.c.number > above).order_by(version.c.number)
    return [Version(*row) for row in connection.execute(query)]


def newest(connection: sa.Connection, *numbers: int, below: int = 0, limit: int) -> Sequence[Version]:
    """The newest versions first; those of `numbers` alone, if some are said, and below `below`, if that is not 0."""
    query = sa.select(version).order_by(version.c.number.desc()).limit(limit)
    query = query.where(version.c.number.in_(numbers)) if numbers else query
    return [Version(*row) for row in connection.execute(query.where(version.c.number < below) if below else query)]


def weights_from(connection: sa.Connection) -> dict[int, int]:
    """Of every version the one whose weights it began with, 0: none; oldest first.

    A run says it; one of an older server, and what came without a run, counts as begun with its parent's.
    """
    said = sa.func.coalesce(run.c.report["went_on_from"].as_integer(), version.c.parent).label("base")
    query = sa.select(version.c.number, said).outerjoin(run, run.c.id == version.c.run_id).order_by(version.c.number)
    return {row.number: row.base for row in connection.execute(query)}


def champion(connection: sa.Connection) -> Version | None:
    """What the fleet runs, or is about to: the newest version whose rollout is done, running or yet to begin.

    What is only tried in another channel than `stable` is not the fleet's.
    """
    started = sa.func.coalesce(sa.select(sa.func.max(rollout.c.version)).scalar_subquery(), 0)
    runs = sa.and_(rollout.c.status.in_(("done", "running")), rollout.c.channel == STABLE)
    return _newest(connection, sa.or_(runs, version.c.number > started))


def rolled_out(connection: sa.Connection, channel: str = STABLE) -> Version | None:
    """What the devices of a channel run: the newest version whose rollout is done."""
    return _newest(connection, sa.and_(rollout.c.status == "done", rollout.c.channel == channel))


def is_copy(connection: sa.Connection, number: int) -> bool:
    """Whether a version is its parent under a new number, as a rollback makes them."""
    made = get(connection, number)
    before = get(connection, made.parent) if made else None
    if made is None or before is None or made.run_id is not None:
        return False
    same = ("name", "snapshot_id", "weights_sha256", "metrics")
    return all(getattr(made, name) == getattr(before, name) for name in same)


def _newest(connection: sa.Connection, where: sa.ColumnElement[bool]) -> Version | None:
    joined = version.outerjoin(rollout, rollout.c.version == version.c.number)
    query = sa.select(version).select_from(joined).where(where).order_by(version.c.number.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else Version(*row)
