"""How is what a device says written down?

Several may write at once what different devices say (`reserve`), and each may be slow: what one takes in may have been
heard before what another has written already. So nothing here goes back:

    last_seen_ms, online    by when it was heard
    birth, session          by the boot, and within one by when it was heard
    heartbeat               the same, and within a session by the time that the agent is up

A clock that was set back is no reason not to listen: what seems older by more than BACK_MS is the newer one.
Bad messages are counted for ever; only the newest are kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from edge_agent.contract.wire import Birth, Death, Heartbeat
from server.config import POSTGRESQL
from server.store.among import Question, looked_up
from server.store.encoded import text
from server.store.fitting import without_nul
from server.store.insert import insert
from server.store.many import Many
from server.store.schema import device, quarantine
from server.store.spoken import Spoken

QUARANTINE_PAYLOAD_BYTES = 4096
QUARANTINE_REASON_CHARS = 500  # it may quote an id as long as a header
QUARANTINE_ROWS = 100
"""Kept of each device. Fewer may not show what is wrong; more lets one broken device fill the disk."""

BACK_MS = 3_600_000
"""Less, and a group that waited for the store is taken for new; more, and devices stand still for longer after a clock
was set back."""

RESERVED = 1
"""The first of the two numbers of devices' locks; the catalogue's own lock is one of the others (postgresql.py)."""


class Outbox(msgspec.Struct, frozen=True, gc=False):
    """Of a word, which outbox it speaks of."""

    since_boot: int = 0


class Word(msgspec.Struct, frozen=True, gc=False):
    """Of a birth or heartbeat, what tells it from another."""

    session: str
    outbox: Outbox
    uptime_s: float = 0.0


_WORD = msgspec.json.Decoder(Word)


class Last(NamedTuple):
    """Of a device, what it said last."""

    boot: int
    session: str
    said_ms: int
    birth: Word | None
    heartbeat: Word | None


def reserve(connection: sa.Connection, names: Collection[str]) -> None:
    """Let nobody else write what is these devices' until the transaction ends: whoever writes `together` begins so.

    By advisory locks, as a device that is new has no row to lock; in one order, so that no two wait for each other. Two
    names with one number only wait for each other. A file has one writer anyway.
    """
    if connection.dialect.name == POSTGRESQL:
        numbers = sorted({zlib.crc32(name.encode()) >> 1 for name in names})  # an INTEGER of theirs has a sign
        take = "SELECT pg_advisory_xact_lock(:space, number) FROM unnest(CAST(:numbers AS integer[])) AS number"
        connection.execute(sa.text(take), {"space": RESERVED, "numbers": numbers})


def last(connection: sa.Connection, names: Collection[str]) -> dict[str, Last]:
    """What these devices said last, those that were seen."""
    found = {}
    for name, boot, session, said_ms, *said in _LAST.ask(connection, list(names)):
        birth, heartbeat = (None if word is None else _WORD.decode(word) for word in said)
        found[name] = Last(boot, session, said_ms, birth, heartbeat)
    return found


def _last(connection: sa.Connection) -> sa.Select[Any]:
    words = (sa.cast(device.c[name], sa.Text) for name in ("birth", "heartbeat"))
    query = sa.select(device.c.name, device.c.boot, device.c.session, device.c.said_ms, *words)
    return looked_up(connection, query, device.c.name)


_LAST = Question(_last)


def record_seen(connection: sa.Connection, seen_ms: Mapping[str, int]) -> None:
    """Devices gave a sign of life, at those times; one that is new is added."""
    _SEEN.run(connection, [{"name": name, "first_seen_ms": at, "last_seen_ms": at} for name, at in seen_ms.items()])


def _seen(connection: sa.Connection) -> sa.Executable:
    statement = insert(connection, device)
    now_ms = statement.excluded.last_seen_ms
    earlier, lost = (
        sa.and_(now_ms < than_ms, now_ms > than_ms - sa.literal_column(str(BACK_MS)))
        for than_ms in (device.c.last_seen_ms, device.c.lost_ms)
    )
    given: dict[str, Any] = {name: sa.literal_column(value) for name, value in _NEW.items()}
    made: sa.Executable = statement.values(given).on_conflict_do_update(
        index_elements=[device.c.name],
        set_={
            "last_seen_ms": sa.case((earlier, device.c.last_seen_ms), else_=now_ms),
            "online": sa.case((sa.or_(earlier, lost), device.c.online), else_=sa.true()),
            "lost_ms": sa.case((sa.or_(earlier, lost), device.c.lost_ms), else_=sa.literal_column("0")),
        },
    )
    return made


_NEW = {"online": "TRUE", "session": "''", "boot": "0", "messages_bad": "0", "throttled": "0", "desired_revision": "0"}
_SEEN = Many(_seen, "name", "first_seen_ms", "last_seen_ms")


def record_births(
    connection: sa.Connection, said: Sequence[Spoken[Birth]], known: Mapping[str, Last] | None = None
) -> None:
    """Devices (that were seen) have connected: their sessions are now these. `known`: as `last` has it."""
    known = last(connection, [one.device for one in said]) if known is None else known
    rows = []
    for one in said:
        found = known.get(one.device)
        if found is not None and _begins(one, found):
            outweighed = found.heartbeat is not None and found.heartbeat.session == one.word.session
            rows.append(_row(one) | {"at_ms": found.said_ms if outweighed else one.at_ms})
    _BORN.run(connection, rows)


def _begins(one: Spoken[Birth], found: Last) -> bool:
    mine = one.word.session
    if found.session == mine and (found.birth is None or found.birth.session != mine):
        return True  # its heartbeat was quicker
    return found.boot < one.word.boot or not _earlier(one.at_ms, found.said_ms)


def record_heartbeats(
    connection: sa.Connection, said: Sequence[Spoken[Heartbeat]], known: Mapping[str, Last] | None = None
) -> None:
    """Keep the latest; one from before the last known boot, or from earlier in its session, changes nothing.

    It carries the session too: the birth may have passed while no server listened. `known`: as `last` has it.
    """
    known = last(connection, [one.device for one in said]) if known is None else known
    rows = [_row(one) for one in said if (found := known.get(one.device)) is not None and _is_news(one, found)]
    _BEATEN.run(connection, rows)


def _is_news(one: Spoken[Heartbeat], found: Last) -> bool:
    word, before = one.word, found.heartbeat
    if word.boot != found.boot:
        return word.boot > found.boot
    if before is not None and before.session == word.session:
        return word.uptime_s >= before.uptime_s
    return found.session == word.session or not _earlier(one.at_ms, found.said_ms)


def _earlier(at_ms: int, than_ms: int) -> bool:
    return than_ms - BACK_MS < at_ms < than_ms


def _row(one: Spoken[Birth] | Spoken[Heartbeat]) -> dict[str, object]:
    word = one.word
    return {
        "of": one.device,
        "its_session": word.session,
        "its_boot": word.boot,
        "at_ms": one.at_ms,
        "word": text(word),
    }


def _said(**more: sa.ColumnElement[Any]) -> sa.Update:
    mine = sa.update(device).where(device.c.name == sa.bindparam("of"))
    mine = mine.values(
        session=sa.bindparam("its_session"), boot=sa.bindparam("its_boot"), said_ms=sa.bindparam("at_ms")
    )
    return mine.values(**more)


_BORN = Many(lambda _: _said(birth=sa.bindparam("word", type_=sa.JSON), online=sa.true()))
_BEATEN = Many(lambda _: _said(heartbeat=sa.bindparam("word", type_=sa.JSON)))


def record_death(connection: sa.Connection, said: Spoken[Death]) -> None:
    """The broker lost a device. A will of an earlier session is ignored: it may come after the next birth.

    So is one after which the device was heard, by a process that was quicker; and what was heard before the death, and
    is written later, does not bring it back.
    """
    mine = (device.c.name == said.device, device.c.session == said.word.session, device.c.last_seen_ms <= said.at_ms)
    connection.execute(sa.update(device).where(*mine).values(online=False, lost_ms=said.at_ms))


def record_bad(connection: sa.Connection, name: str, *, topic: str, payload: bytes, reason: str, now_ms: int) -> None:
    """Count a message that is not of the wire format, and set it aside; `name` is "" when even the topic is none."""
    connection.execute(sa.update(device).where(device.c.name == name).values(messages_bad=device.c.messages_bad + 1))
    connection.execute(
        sa.insert(quarantine).values(
            device=name,
            topic=without_nul(topic[:200]),
            received_at_ms=now_ms,
            reason=without_nul(reason[:QUARANTINE_REASON_CHARS]),  # it may quote what no text may hold
            payload=payload[:QUARANTINE_PAYLOAD_BYTES],
            payload_bytes=len(payload),
        )
    )
    newest = sa.select(quarantine.c.id).where(quarantine.c.device == name).order_by(quarantine.c.id.desc())
    oldest_kept = newest.offset(QUARANTINE_ROWS - 1).limit(1).scalar_subquery()
    connection.execute(sa.delete(quarantine).where(quarantine.c.device == name, quarantine.c.id < oldest_kept))


def record_throttled(connection: sa.Connection, counts: Mapping[str, int]) -> None:
    """Count messages that were left for want of room (turns.py); their devices send them again."""
    for name, count in counts.items():
        connection.execute(sa.update(device).where(device.c.name == name).values(throttled=device.c.throttled + count))
