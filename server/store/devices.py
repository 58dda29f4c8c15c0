"""Which devices are there, what did they say last, and what is wanted of them?

A device exists from its first message on. It is online from any sign of life until the broker tells its death, or it
has been silent for too long (the caller's rule). Bad messages are counted for ever; only the newest are kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa

from edge_agent.contract.errors import did_you_mean
from edge_agent.contract.wire import Birth, Death, Desired, Event, Heartbeat, OutboxState
from server.config import POSTGRESQL, STABLE
from server.errors import StoreError
from server.store.encoded import encoded
from server.store.insert import insert
from server.store.schema import device, event, quarantine
from server.store.spoken import Spoken

QUARANTINE_PAYLOAD_BYTES = 4096
QUARANTINE_REASON_CHARS = 500  # it may quote an id as long as a header
QUARANTINE_ROWS = 100
"""Kept of each device. Fewer may not show what is wrong; more lets one broken device fill the disk."""

_AT_ONCE = 500  # names to one question

HEARTBEATS_MISSED = 3
"""Of a device that speaks seldom (quiet hours, a metered link). Fewer, and one lost heartbeat is taken for a death."""

LONGEST_BEAT_S = 1e7
"""Between heartbeats, four months. More is no promise, and times a few thousand no number that a catalogue can hold."""

RESERVED = 1
"""The first of the two numbers of devices' locks; the catalogue's own lock is one of the others (postgresql.py)."""

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True)
class Device:
    """What is known of a device."""

    name: str
    first_seen_ms: int
    last_seen_ms: int
    online: bool
    session: str
    boot: int
    birth: Birth | None
    heartbeat: Heartbeat | None
    messages_bad: int
    throttled: int
    desired: Desired | None
    arm: str | None  # strategy/acquisition that the portfolio told it
    channel: str = STABLE  # whose rollouts concern it
    ring: str | None = None  # where an operator put it; None: drawn anew for every version
    site: str = ""  # where it is, as an operator said
    said_ms: int = 0  # when its word on what it runs came: a sample is a sign of life, and no word on the model

    @property
    def outbox(self) -> OutboxState | None:
        """As it said last; None when it never spoke of it."""
        said = [word for word in (self.heartbeat, self.birth) if word is not None]
        return max(said, key=lambda word: word.boot).outbox if said else None  # of one boot the heartbeat is the later


class Kept(NamedTuple):
    """Of a device, what its outbox keeps."""

    name: str
    online: bool
    outbox: OutboxState | None  # as it said last; None when it never spoke of it


def devices(connection: sa.Connection, names: Collection[str] | None = None) -> list[Device]:
    """All devices, or those of them that have these names; by name."""
    query = _words.order_by(device.c.name)
    if names is None:
        return [_device(row) for row in connection.execute(query)]
    found: list[Device] = []
    wanted = sorted(names)
    for start in range(0, len(wanted), _AT_ONCE):
        some = query.where(device.c.name.in_(wanted[start : start + _AT_ONCE]))
        found += map(_device, connection.execute(some))
    return found


def kept(connection: sa.Connection) -> list[Kept]:
    """Of all devices what their outboxes keep, by name: a third of the time that whole ones take to read."""
    words = [(word["boot"], word["outbox"]) for word in (device.c.heartbeat, device.c.birth)]
    query = sa.select(device.c.name, device.c.online, *(part for word in words for part in word))
    found = []
    for name, online, *said in connection.execute(query.order_by(device.c.name)):
        spoken = [word for word in (said[:2], said[2:]) if word[0] is not None]
        last = max(spoken, key=lambda word: word[0])[1] if spoken else None
        found.append(Kept(name, online, _from_json(last, OutboxState)))
    return found


def get(connection: sa.Connection, name: str) -> Device | None:
    """The device of that name."""
    row = connection.execute(_words.where(device.c.name == name)).one_or_none()
    return None if row is None else _device(row)


def find(connection: sa.Connection, name: str) -> Device:
    """The device of that name. StoreError when there is none."""
    if (found := get(connection, name)) is None:
        raise never_seen(connection, name)
    return found


_WORDS = ("birth", "heartbeat", "desired")
_words = sa.select(
    *(column for column in device.c if column.name not in _WORDS),
    *(sa.cast(device.c[name], sa.Text).label(name) for name in _WORDS),
)
"""Devices with their words as text: to read that as what it is takes a quarter of the time of making objects of it."""


def _device(row: sa.Row[Any]) -> Device:
    return Device(
        name=row.name,
        first_seen_ms=row.first_seen_ms,
        last_seen_ms=row.last_seen_ms,
        online=row.online,
        session=row.session,
        boot=row.boot,
        birth=_from_text(row.birth, Birth),
        heartbeat=_from_text(row.heartbeat, Heartbeat),
        messages_bad=row.messages_bad,
        throttled=row.throttled,
        desired=_from_text(row.desired, Desired),
        arm=row.arm,
        channel=row.channel,
        ring=row.ring,
        site=row.site,
        said_ms=row.said_ms,
    )


def _from_json(value: object, kind: type[T]) -> T | None:
    return None if value is None else msgspec.convert(value, type=kind, str_keys=True)


def _from_text(text: str | None, kind: type[T]) -> T | None:
    return None if text is None else msgspec.json.decode(text, type=kind)


def _to_json(message: msgspec.Struct) -> object:
    return msgspec.to_builtins(message, str_keys=True)


def reserve(connection: sa.Connection, names: Collection[str]) -> None:
    """Let nobody else write what is these devices' until the transaction ends: whoever writes `together` begins so.

    By advisory locks, as a device that is new has no row to lock; in one order, so that no two wait for each other. Two
    names with one number only wait for each other. A file has one writer anyway.
    """
    if connection.dialect.name == POSTGRESQL:
        numbers = sorted({zlib.crc32(name.encode()) >> 1 for name in names})  # an INTEGER of theirs has a sign
        take = "SELECT pg_advisory_xact_lock(:space, number) FROM unnest(CAST(:numbers AS integer[])) AS number"
        connection.execute(sa.text(take), {"space": RESERVED, "numbers": numbers})


def record_seen(connection: sa.Connection, seen_ms: Mapping[str, int]) -> None:
    """Devices gave a sign of life, at those times; one that is new is added."""
    if not seen_ms:
        return
    statement = insert(connection, device)
    statement = statement.on_conflict_do_update(
        index_elements=[device.c.name], set_={"last_seen_ms": statement.excluded.last_seen_ms, "online": True}
    )
    rows = [
        {"name": name, "first_seen_ms": at, "last_seen_ms": at, "online": True, "session": "", "boot": 0}
        | {"messages_bad": 0, "throttled": 0, "desired_revision": 0}
        for name, at in seen_ms.items()
    ]
    connection.execute(statement, rows)


def record_births(connection: sa.Connection, said: Sequence[Spoken[Birth]]) -> None:
    """Devices (that were seen) have connected: their sessions are now these."""
    outweighed = device.c.heartbeat["session"].as_string() == sa.bindparam("its_session")
    values = {
        "online": True,
        "session": sa.bindparam("its_session"),
        "boot": sa.bindparam("its_boot"),
        "birth": sa.bindparam("word", type_=device.c.birth.type),
        "said_ms": sa.case((outweighed, device.c.said_ms), else_=sa.bindparam("at_ms")),
    }
    connection.execute(sa.update(device).where(device.c.name == sa.bindparam("of")).values(values), _each(said))


def record_heartbeats(connection: sa.Connection, said: Sequence[Spoken[Heartbeat]]) -> None:
    """Keep the latest; one from before the last known boot, or from earlier in its session, changes nothing.

    It carries the session too: the birth may have passed while no server listened. An earlier one may come later where
    several processes listen.
    """
    last = device.c.heartbeat
    earlier = sa.and_(
        last["session"].as_string() == sa.bindparam("its_session"),
        last["uptime_s"].as_float() > sa.bindparam("uptime_s", type_=sa.Float),
    )
    mine = (device.c.name == sa.bindparam("of"), device.c.boot <= sa.bindparam("its_boot"))
    values = {
        "session": sa.bindparam("its_session"),
        "boot": sa.bindparam("its_boot"),
        "heartbeat": sa.bindparam("word", type_=last.type),
        "said_ms": sa.bindparam("at_ms"),
    }
    rows = [row | {"uptime_s": one.word.uptime_s} for row, one in zip(_each(said), said, strict=True)]
    connection.execute(
        sa.update(device).where(*mine, sa.not_(sa.func.coalesce(earlier, sa.false()))).values(values), rows
    )


def _each(said: Sequence[Spoken[Birth]] | Sequence[Spoken[Heartbeat]]) -> list[dict[str, object]]:
    return [
        {"of": one.device, "its_session": one.word.session, "its_boot": one.word.boot}
        | {"word": encoded(one.word), "at_ms": one.at_ms}
        for one in said
    ]


def record_death(connection: sa.Connection, said: Spoken[Death]) -> None:
    """The broker lost a device. A will of an earlier session is ignored: it may come after the next birth.

    So is one after which the device was heard, by a process that was quicker.
    """
    name, session = said.device, said.word.session
    mine = sa.and_(device.c.name == name, device.c.session == session, device.c.last_seen_ms <= said.at_ms)
    connection.execute(sa.update(device).where(mine).values(online=False))


def running(connection: sa.Connection) -> list[int]:
    """The versions that devices said they execute, none twice."""
    version = device.c.heartbeat["model"]["version"].as_integer()
    found = connection.scalars(sa.select(version).where(device.c.heartbeat.is_not(None)).distinct())
    return sorted(number for number in found if number is not None)


class Silence(NamedTuple):
    """Who fell silent, and from when on (ms since 1970) somebody else may have; None: nobody is online."""

    names: list[str]
    next_ms: int | None


def mark_offline(connection: sa.Connection, *, now_ms: int, after_ms: int) -> Silence:
    """Devices silent for longer than `after_ms` and than HEARTBEATS_MISSED of their own heartbeats count as offline.

    Named are those for which that is news. Whoever is heard, is silent no earlier than `next_ms`: not to ask before
    spares a walk through all devices every second.
    """
    said_s = sa.func.coalesce(
        sa.func.nullif(device.c.heartbeat["link"]["heartbeat_s"].as_float(), 0.0),
        device.c.birth["interval_s"].as_float(),
        0.0,
    )
    beat_s = sa.case((said_s < LONGEST_BEAT_S, said_s), else_=LONGEST_BEAT_S)  # what an older server took in
    missed_ms = HEARTBEATS_MISSED * 1000.0 * beat_s
    longest_ms = sa.case((missed_ms > after_ms, missed_ms), else_=float(after_ms))
    silent = sa.and_(device.c.online, now_ms - device.c.last_seen_ms > longest_ms)
    names = connection.execute(sa.update(device).where(silent).values(online=False).returning(device.c.name)).scalars()
    found = sorted(names)
    next_ms = connection.scalar(sa.select(sa.func.min(device.c.last_seen_ms + longest_ms)).where(device.c.online))
    return Silence(found, None if next_ms is None else int(next_ms))


def record_event(connection: sa.Connection, heard: Spoken[Event]) -> bool:
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


def record_bad(connection: sa.Connection, name: str, *, topic: str, payload: bytes, reason: str, now_ms: int) -> None:
    """Count a message that is not of the wire format, and set it aside; `name` is "" when even the topic is none."""
    connection.execute(sa.update(device).where(device.c.name == name).values(messages_bad=device.c.messages_bad + 1))
    connection.execute(
        sa.insert(quarantine).values(
            device=name,
            topic=topic[:200],
            received_at_ms=now_ms,
            reason=reason[:QUARANTINE_REASON_CHARS].replace("\0", "\ufffd"),  # it may quote what no text may hold
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


def set_desired(connection: sa.Connection, name: str, wanted: Desired) -> Desired:
    """Remember what is wanted of a device; returns it as it is to be published.

    The revision is given here: one more than the last, or the last when nothing else differs. StoreError when there
    is no such device.
    """
    row = connection.execute(
        sa.select(device.c.desired, device.c.desired_revision).where(device.c.name == name)
    ).first()
    if row is None:
        raise never_seen(connection, name)
    current = msgspec.structs.replace(wanted, revision=row.desired_revision)
    if _from_json(row.desired, Desired) == current:
        return current
    new = msgspec.structs.replace(wanted, revision=row.desired_revision + 1)
    values = {"desired": _to_json(new), "desired_revision": new.revision}
    connection.execute(sa.update(device).where(device.c.name == name).values(values))
    return new


def seen(connection: sa.Connection, name: str) -> bool:
    """Whether there is a device of that name."""
    return connection.execute(sa.select(device.c.name).where(device.c.name == name)).first() is not None


def never_seen(connection: sa.Connection, name: str) -> StoreError:
    """What to raise for a name that no device has."""
    names = connection.execute(sa.select(device.c.name)).scalars()
    return StoreError(f"device {name!r} has never been seen{did_you_mean(name, names)}")
