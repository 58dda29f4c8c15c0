"""What happened that somebody may want to know?

Devices' events come by ingest. The server's own stand beside them, of device "".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from edge_agent.contract.wire import Event
from server.store.schema import event
from server.store.spoken import Spoken

SERVER = ""


def say(
    connection: sa.Connection, kind: str, text: str, *, version: int, detail: Mapping[str, Any], now_ms: int
) -> None:
    """Add an event of the server's own."""
    said = connection.scalar(sa.select(sa.func.max(event.c.n)).where(event.c.device == SERVER)) or 0
    connection.execute(
        sa.insert(event).values(
            device=SERVER,
            boot=0,
            n=said + 1,
            at_ms=now_ms,
            received_at_ms=now_ms,
            kind=kind,
            text=text,
            model_version=version,
            detail=dict(detail),
        )
    )


def record(connection: sa.Connection, heard: Spoken[Event]) -> bool:
    """Add an event; False when it is here already, known by (boot, n) and its time, as a wiped device counts anew."""
    name, said, now_ms = heard.device, heard.word, heard.at_ms
    same = (event.c.device == name, event.c.boot == said.boot, event.c.n == said.n, event.c.at_ms == said.at_ms)
    if connection.execute(sa.select(event.c.id).where(*same)).first() is not None:
        return False
    connection.execute(
        sa.insert(event).values(
            device=name,
            boot=said.boot,
            n=said.n,
            at_ms=said.at_ms,
            received_at_ms=now_ms,
            kind=said.kind,
            text=said.text,
            model_version=said.model_version,
            detail=said.detail,
        )
    )
    return True


def of_device(connection: sa.Connection, device: str, *, below: int = 0, limit: int) -> Sequence[sa.Row[Any]]:
    """The newest events of a device, newest first; with an id below `below`, if that is not 0."""
    query = sa.select(event).where(event.c.device == device).order_by(event.c.id.desc()).limit(limit)
    return connection.execute(query.where(event.c.id < below) if below else query).all()


def last_said(connection: sa.Connection, kind: str, *, version: int, device: str = "") -> sa.Row[Any] | None:
    """The server's newest event of a kind about a version, or of those about it one whose detail names the device."""
    mine = sa.and_(event.c.device == SERVER, event.c.kind == kind, event.c.model_version == version)
    if device:
        mine = sa.and_(mine, event.c.detail["device"].as_string() == device)
    return connection.execute(sa.select(event).where(mine).order_by(event.c.id.desc()).limit(1)).first()


def last_alarms(connection: sa.Connection, *, version: int) -> dict[str, sa.Row[Any]]:
    """The newest alarm of drift of each device, under a version."""
    alarms = sa.and_(event.c.kind == "alarm", event.c.model_version == version)
    return {row.device: row for row in _last_of_each(connection, alarms, event.c.device)}


def last_said_of_each(connection: sa.Connection, kind: str) -> Sequence[sa.Row[Any]]:
    """The server's newest event of a kind about each version."""
    mine = sa.and_(event.c.device == SERVER, event.c.kind == kind)
    return _last_of_each(connection, mine, event.c.model_version)


def alarms_since(connection: sa.Connection, since_ms: int) -> Sequence[sa.Row[Any]]:
    """The newest alarm of drift of each device under each version, of those that came since then."""
    alarms = sa.and_(event.c.kind == "alarm", event.c.received_at_ms > since_ms)
    return _last_of_each(connection, alarms, event.c.model_version, event.c.device)


def _last_of_each(
    connection: sa.Connection, which: sa.ColumnElement[bool], *by: sa.Column[Any]
) -> Sequence[sa.Row[Any]]:
    newest = sa.select(sa.func.max(event.c.id)).where(which).group_by(*by)
    return connection.execute(sa.select(event).where(event.c.id.in_(newest))).all()


def newest() -> sa.Select[tuple[int]]:
    """The newest of each kind, version and device: what was last said stands, however long ago it was."""
    about = event.c.detail["device"].as_string()  # of the server's own: whom it is about
    return sa.select(sa.func.max(event.c.id)).group_by(event.c.device, event.c.kind, event.c.model_version, about)
