"""Which devices are there, what did they say last, and what is wanted of them?

A device exists from its first message on. It is online from any sign of life until the broker tells its death, or it
has been silent for too long (silence.py). What it says is written by heard.py.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa

from edge_agent.contract.errors import did_you_mean
from edge_agent.contract.wire import Birth, Desired, Heartbeat, OutboxState
from server.config import STABLE
from server.errors import StoreError
from server.store.schema import device

_AT_ONCE = 500  # names to one question

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


def count(connection: sa.Connection) -> tuple[int, int]:
    """How many there are, and how many of them are online."""
    every, online = connection.execute(
        sa.select(sa.func.count(), sa.func.count().filter(device.c.online)).select_from(device)
    ).one()
    return every, online


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


def running(connection: sa.Connection) -> list[int]:
    """The versions that devices said they execute, none twice."""
    version = device.c.heartbeat["model"]["version"].as_integer()
    found = connection.scalars(sa.select(version).where(device.c.heartbeat.is_not(None)).distinct())
    return sorted(number for number in found if number is not None)


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
