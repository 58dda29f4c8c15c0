r"""What did somebody ask for that takes longer than a page may?

waiting -> running -> done -> gone     its file is there no more: it was kept for a day, or something was erased since
               \---> failed           error says why

Exports, and the map of embeddings. A row is an order that a running server obeys, and outlives it: what a dead server
left running is begun again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from server.errors import StoreError
from server.store.schema import chore
from server.store.store import Store

Kind = Literal["export", "map"]
OPEN = ("waiting", "running")
FOLDER = "exports"  # beside the store


class Chore(NamedTuple):
    """One thing asked for."""

    id: int
    kind: Kind
    order: dict[str, Any]
    who: str
    why: str
    at_ms: int
    state: str
    ended_at_ms: int | None
    result: dict[str, Any]
    error: str


def ask(connection: sa.Connection, kind: Kind, order: Mapping[str, Any], *, who: str, why: str, now_ms: int) -> int:
    """Ask for it; returns its id. What somebody asked for alike and is not done yet is the same."""
    for one in of_kind(connection, kind, states=OPEN):
        if one.order == dict(order):
            return one.id
    values = {"kind": kind, "order": dict(order), "who": who, "why": why, "at_ms": now_ms}
    made = sa.insert(chore).values(**values, state="waiting", result={}).returning(chore.c.id)
    number: int = connection.execute(made).scalar_one()
    return number


def get(connection: sa.Connection, number: int) -> Chore | None:
    """The one of that id."""
    row = connection.execute(sa.select(chore).where(chore.c.id == number)).one_or_none()
    return None if row is None else Chore(*row)


def of_kind(connection: sa.Connection, kind: Kind, *, states: Sequence[str] = (), limit: int = 50) -> list[Chore]:
    """The newest of a kind, in one of these states, the newest first."""
    query = sa.select(chore).where(chore.c.kind == kind).order_by(chore.c.id.desc()).limit(limit)
    return [Chore(*row) for row in connection.execute(query.where(chore.c.state.in_(states)) if states else query)]


def following(connection: sa.Connection) -> Chore | None:
    """What is to be done next."""
    query = sa.select(chore).where(chore.c.state == "waiting").order_by(chore.c.id).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else Chore(*row)


def begin(connection: sa.Connection, number: int) -> None:
    """It is being done."""
    connection.execute(sa.update(chore).where(chore.c.id == number).values(state="running"))


def recover(connection: sa.Connection) -> None:
    """What a dead server was at waits again."""
    connection.execute(sa.update(chore).where(chore.c.state == "running").values(state="waiting"))


def finish(connection: sa.Connection, number: int, result: Mapping[str, Any], *, now_ms: int) -> bool:
    """It is done; False when nobody wants it any more."""
    return _end(connection, number, state="done", result=dict(result), ended_at_ms=now_ms)


def fail(connection: sa.Connection, number: int, error: str, *, now_ms: int) -> bool:
    """It cannot be done; False when it had ended."""
    return _end(connection, number, state="failed", error=error, ended_at_ms=now_ms)


def _end(connection: sa.Connection, number: int, **values: object) -> bool:
    query = sa.update(chore).where(chore.c.id == number, chore.c.state == "running")
    return connection.execute(query.values(values)).rowcount > 0


def expire(connection: sa.Connection, *, before_ms: int) -> list[int]:
    """Exports that ended before then are gone; returns their ids: their files can go."""
    old = (chore.c.kind == "export", chore.c.state == "done", chore.c.ended_at_ms < before_ms)
    query = sa.update(chore).where(*old).values(state="gone").returning(chore.c.id)
    return list(connection.scalars(query))


def folder_of(store: Store, number: int) -> Path:
    """Where an export is written."""
    return store.folder / FOLDER / str(number)


def archive_of(store: Store, number: int) -> Path:
    """The file that is fetched."""
    return folder_of(store, number).with_suffix(".zip")


def tidy(store: Store, number: int, *, keep: bool) -> None:
    """What it leaves behind goes: its folder, a file that is not whole, and the file too unless it is to be kept."""
    shutil.rmtree(folder_of(store, number), ignore_errors=True)
    archive = archive_of(store, number)
    for path in (beside(archive), *(() if keep else (archive,))):
        path.unlink(missing_ok=True)


def beside(archive: Path) -> Path:
    """Where it is while it is written."""
    return archive.with_suffix(".part")


def drop_exports(store: Store) -> None:
    """Every copy made here goes, finished or not: something in it may be erased. StoreError: to be done again."""
    left = (chore.c.kind == "export", chore.c.state.in_(("running", "done")))
    with store.database.write() as connection:
        connection.execute(sa.update(chore).where(*left).values(state="gone"))
    folder = store.folder / FOLDER
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error
