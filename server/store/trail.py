"""Who did what, to what, and why?

The audit trail: only ever added to, and chained, so that a changed, removed or inserted entry is found. Each entry's
sha256 covers what it says and the sha256 of the one before (the linked time stamps of Haber and Stornetta, "How to
time-stamp a digital document", 1991). A trail that was cut off at its end is a valid shorter trail: whoever keeps a
`head` elsewhere notices that too.
"""

from __future__ import annotations

import getpass
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from server.store.fitting import without_nul
from server.store.schema import trail

SERVER = "server"  # who, where nobody gave the word
RESTORE = "restore"  # what, where a catalogue was put back from a backup
RAISED = 1_000_000
"""By how much numbers that devices remember are raised then: above any that was given since the backup."""
VERSIONS_RAISED = 1000
"""The same of versions, whose numbers people read: more than a fleet is given between two backups."""
FIRST = "0" * 64  # the sha256 before the first


class Entry(NamedTuple):
    """One thing that was done."""

    id: int
    at_ms: int
    who: str  # a person's name, or SERVER
    what: str  # a verb: "erase", "override", "approve", "publish"
    subject: str  # what it was done to: "version 7", "device cam-1"
    why: str
    detail: dict[str, Any]
    previous_sha256: str
    sha256: str


class Broken(NamedTuple):
    """The first entry that does not continue the one before it."""

    id: int
    why: str


def record(
    connection: sa.Connection,
    what: str,
    subject: str,
    *,
    why: str,
    who: str = SERVER,
    detail: Mapping[str, Any] | None = None,
    now_ms: int,
) -> Entry:
    """Add an entry, in the transaction of what it tells of: both are kept, or neither."""
    last = connection.execute(sa.select(trail.c.id, trail.c.sha256).order_by(trail.c.id.desc()).limit(1)).first()
    previous = last.sha256 if last else FIRST
    kept = msgspec.json.decode(msgspec.json.encode(dict(detail or {})))  # as it will be read: the hash is of that
    who, subject, why = map(without_nul, (who, subject, why))  # which no engine may refuse
    said = Entry((last.id if last else 0) + 1, now_ms, who, what, subject, why, kept, previous, "")
    entry = said._replace(sha256=_hash(said))
    connection.execute(sa.insert(trail).values(entry._asdict()))
    return entry


def entries(
    connection: sa.Connection,
    *,
    subject: str = "",
    below: int = 0,
    hidden: Sequence[str] = (),
    limit: int | None = None,
) -> Sequence[Entry]:
    """The newest entries, oldest first; of one subject, if one is named, and with an id below `below`, if not 0.

    `hidden`: what was done in those that are left out.
    """
    query = sa.select(trail).order_by(trail.c.id.desc()).limit(limit)
    if subject:
        query = query.where(trail.c.subject == subject)
    if below:
        query = query.where(trail.c.id < below)
    if hidden:
        query = query.where(trail.c.what.not_in(hidden))
    return [Entry(*row) for row in connection.execute(query)][::-1]


def versions_from(connection: sa.Connection) -> int:
    """The lowest number that no device was given before the catalogue was last put back; 1: it never was."""
    newest = sa.select(trail.c.detail).where(trail.c.what == RESTORE).order_by(trail.c.id.desc()).limit(1)
    last = (connection.scalar(newest) or {}).get("version")  # who restored before it was noted goes on as it was
    return 1 if last is None else last + VERSIONS_RAISED + 1


def restores(connection: sa.Connection) -> int:
    """How often it was put back from a backup."""
    return connection.scalar(sa.select(sa.func.count()).where(trail.c.what == RESTORE)) or 0


class Wanted(NamedTuple):
    """Which entries; what is empty or None does not matter."""

    who: str = ""
    what: str = ""
    subject: str = ""  # stands in it
    since_ms: int | None = None
    until_ms: int | None = None  # before it
    hidden: tuple[str, ...] = ()  # what was done in those that are left out


def found(connection: sa.Connection, wanted: Wanted, *, before: int | None = None, limit: int) -> Sequence[Entry]:
    """The newest that fit, newest first; those with a lower id than `before`, so that pages never shift."""
    checks = (
        (wanted.who, trail.c.who == wanted.who),
        (wanted.what, trail.c.what == wanted.what),
        (wanted.subject, trail.c.subject.icontains(wanted.subject, autoescape=True)),
        (wanted.since_ms is not None, trail.c.at_ms >= (wanted.since_ms or 0)),
        (wanted.until_ms is not None, trail.c.at_ms < (wanted.until_ms or 0)),
        (before is not None, trail.c.id < (before or 0)),
        (wanted.hidden, trail.c.what.not_in(wanted.hidden)),
    )
    query = sa.select(trail).where(*(check for given, check in checks if given))
    return [Entry(*row) for row in connection.execute(query.order_by(trail.c.id.desc()).limit(limit))]


def words(connection: sa.Connection) -> tuple[list[str], list[str]]:
    """Everybody who did something, and everything that was done."""
    who, what = (sa.select(column).distinct().order_by(column) for column in (trail.c.who, trail.c.what))
    return list(connection.scalars(who)), list(connection.scalars(what))


def head(connection: sa.Connection) -> str:
    """Sha256 of the newest entry: it stands for all before it."""
    return connection.scalar(sa.select(trail.c.sha256).order_by(trail.c.id.desc()).limit(1)) or FIRST


def holds(connection: sa.Connection, sha256: str) -> bool:
    """Whether the entry that was once the head is here still; the head of an empty trail always is."""
    return sha256 == FIRST or connection.scalar(sa.select(sa.exists().where(trail.c.sha256 == sha256))) or False


def last_id(connection: sa.Connection) -> int:
    """Of the newest entry; 0: there is none."""
    return connection.scalar(sa.select(sa.func.max(trail.c.id))) or 0


def verify(connection: sa.Connection) -> Broken | None:
    """The first entry that was tampered with; None when the chain is whole."""
    previous, expected = FIRST, 1
    for row in connection.execute(sa.select(trail).order_by(trail.c.id)):
        entry = Entry(*row)
        if entry.id != expected:
            return Broken(entry.id, f"entry {expected} is missing before it")
        if entry.previous_sha256 != previous:
            return Broken(entry.id, "it does not continue the entry before it")
        if entry.sha256 != _hash(entry):
            return Broken(entry.id, "its content is not what was recorded")
        previous, expected = entry.sha256, expected + 1
    return None


def person() -> str:
    """Who sits at this machine: the name an entry has where the command was given none."""
    return getpass.getuser()


def _hash(entry: Entry) -> str:
    return hashlib.sha256(msgspec.json.encode(entry[:-1], order="sorted")).hexdigest()
