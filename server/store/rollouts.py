"""How far is each rollout, and why?

Plan and state are plain JSON here; release/rollout.py says what they mean. A state has every device, and may be
megabytes: lists read its brief, which is kept beside it. Steps are only ever added. What operators say waits here until
the running server has answered it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from server.config import STABLE
from server.store import versions
from server.store.schema import rollout, rollout_command, rollout_step, version


class Brief(msgspec.Struct, frozen=True, kw_only=True):
    """A state without its devices."""

    ring: str | None = None  # that is at it
    members: dict[str, int] = {}  # by phase
    paused: bool = False
    asks: str | None = None  # ring that waits for an approval
    reason: str = ""  # it was halted


def brief_of(state: Mapping[str, Any]) -> Brief:
    """What lists show of a state.

    >>> brief_of({"ring": "all", "members": {"cam-1": {"phase": "trial"}, "cam-2": {"phase": "trial"}}}).members
    {'trial': 2}
    """
    return Brief(
        ring=state.get("ring"),
        members=dict(Counter(member.get("phase", "") for member in state.get("members", {}).values())),
        paused=bool(state.get("paused")),
        asks=state.get("asks"),
        reason=str(state.get("reason", "")),
    )


class Rollout(NamedTuple):
    """One version on its way to the devices of a channel."""

    id: int
    version: int
    previous: int
    plan: dict[str, Any]
    state: dict[str, Any]
    status: str  # running, done, halted, superseded
    started_at_ms: int
    ended_at_ms: int | None
    channel: str

    @property
    def brief(self) -> Brief:
        """What lists show of its state."""
        return brief_of(self.state)


class Listed(NamedTuple):
    """One, without plan and state."""

    id: int
    version: int
    previous: int
    status: str
    started_at_ms: int
    ended_at_ms: int | None
    channel: str
    brief: Brief


class Step(NamedTuple):
    """One thing that happened, and why."""

    at_ms: int
    text: str
    kind: str
    ring: str
    device: str


class Command(NamedTuple):
    """What an operator said."""

    id: int
    rollout_id: int
    word: str
    reason: str
    at_ms: int
    answered_at_ms: int | None
    answer: str


NONE_KNOWN: Mapping[str, Rollout] = {}

_WHOLE = sa.select(*(rollout.c[name] for name in Rollout._fields))


def insert(
    connection: sa.Connection,
    *,
    number: int,
    previous: int,
    plan: dict[str, Any],
    state: dict[str, Any],
    now_ms: int,
    channel: str = STABLE,
) -> int:
    """A running rollout of version `number`; returns its id."""
    values = {
        "version": number,
        "previous": previous,
        "plan": plan,
        "state": state,
        "brief": msgspec.to_builtins(brief_of(state)),
        "status": "running",
        "started_at_ms": now_ms,
        "channel": channel,
    }
    rollout_id: int = connection.execute(sa.insert(rollout).values(values).returning(rollout.c.id)).scalar_one()
    return rollout_id


def save(connection: sa.Connection, kept: Rollout, *, state: dict[str, Any], status: str, now_ms: int) -> bool:
    """Keep the state it came to; False, and nothing is changed, when somebody else took it further meanwhile."""
    ended_ms = kept.ended_at_ms if status == kept.status else now_ms
    ended = {"status": status, "ended_at_ms": None if status == "running" else ended_ms}
    values = {"state": state, "brief": msgspec.to_builtins(brief_of(state)), **ended}
    mine = sa.and_(rollout.c.id == kept.id, rollout.c.status == kept.status)
    return bool(connection.execute(sa.update(rollout).where(mine).values(values)).rowcount)


def add_steps(
    connection: sa.Connection, rollout_id: int, steps: Iterable[Mapping[str, Any] | str], *, now_ms: int
) -> None:
    """Keep what happened: texts, or mappings with text, kind, ring and device."""
    rows = [{"text": step} if isinstance(step, str) else dict(step) for step in steps]
    empty = {"kind": "", "ring": "", "device": ""}
    if rows:
        connection.execute(
            sa.insert(rollout_step), [empty | row | {"rollout_id": rollout_id, "at_ms": now_ms} for row in rows]
        )


def get(connection: sa.Connection, rollout_id: int) -> Rollout | None:
    """The rollout of that id."""
    row = connection.execute(_WHOLE.where(rollout.c.id == rollout_id)).one_or_none()
    return None if row is None else Rollout(*row)


def every(connection: sa.Connection) -> Sequence[Rollout]:
    """All of them, oldest first."""
    return [Rollout(*row) for row in connection.execute(_WHOLE.order_by(rollout.c.id))]


def listed(
    connection: sa.Connection, *, version: int = 0, below: int = 0, limit: int | None = None
) -> Sequence[Listed]:
    """The newest first; those of a version alone, if one is said, and below `below`, if that is not 0."""
    query = sa.select(*(rollout.c[name] for name in Listed._fields)).order_by(rollout.c.id.desc()).limit(limit)
    query = query.where(rollout.c.version == version) if version else query
    query = query.where(rollout.c.id < below) if below else query
    found = (Listed(*row) for row in connection.execute(query))
    return [one._replace(brief=msgspec.convert(one.brief, type=Brief)) for one in found]


def by_version(connection: sa.Connection, numbers: Collection[int]) -> dict[int, dict[str, str]]:
    """Of each version: channel -> how its last rollout there stands."""
    query = sa.select(rollout.c.version, rollout.c.channel, rollout.c.status).order_by(rollout.c.id)
    found: dict[int, dict[str, str]] = {}
    for row in connection.execute(query.where(rollout.c.version.in_(list(numbers)))):
        found.setdefault(row.version, {})[row.channel] = row.status
    return found


def newest(connection: sa.Connection, *, known: Mapping[str, Rollout] = NONE_KNOWN) -> dict[str, Rollout]:
    """The newest rollout of each channel, ended or not: it says what every device of the channel should run.

    `known`: as they were found before. What has ended stays as it is, and is not read again: of 10,000 devices it is
    a megabyte.
    """
    last = sa.select(sa.func.max(rollout.c.id)).group_by(rollout.c.channel)
    query = sa.select(rollout.c.id, rollout.c.channel, rollout.c.status).where(rollout.c.id.in_(last))
    found: dict[str, Rollout] = {}
    for number, channel, status in connection.execute(query.order_by(rollout.c.id)).all():
        before = known.get(channel)
        if before is not None and status != "running" and (before.id, before.status) == (number, status):
            found[channel] = before
        else:
            found[channel] = Rollout(*connection.execute(_WHOLE.where(rollout.c.id == number)).one())
    return found


def current(connection: sa.Connection, channel: str = STABLE) -> Rollout | None:
    """The newest rollout of a channel."""
    return newest(connection).get(channel)


def running(connection: sa.Connection) -> bool:
    """Whether any channel has one under way."""
    return connection.execute(sa.select(rollout.c.id).where(rollout.c.status == "running")).first() is not None


def steps(connection: sa.Connection, rollout_id: int, *, last: int = 0) -> Sequence[Step]:
    """What happened in it, oldest first; only the `last` so many, if that is not 0."""
    columns = (rollout_step.c[name] for name in Step._fields)
    query = sa.select(*columns).where(rollout_step.c.rollout_id == rollout_id).order_by(rollout_step.c.id.desc())
    return [Step(*row) for row in connection.execute(query.limit(last) if last else query)][::-1]


def awaited(connection: sa.Connection, channel: str = STABLE) -> int | None:
    """The newest version, when a channel has had no rollout of it yet. Older ones are passed over: nobody needs them.

    Nor does a channel wait for what was halted in another, or for what a rollback brought back there.
    """
    number = connection.scalar(sa.select(sa.func.max(version.c.number)))
    if number is None or versions.is_copy(connection, number):
        return None
    mine = sa.and_(rollout.c.channel == channel, rollout.c.version >= number)
    halted = sa.and_(rollout.c.status == "halted", rollout.c.version == number)
    seen = connection.scalar(sa.select(sa.func.count()).where(sa.or_(mine, halted)))
    return None if seen else number


# --- what operators said ----------------------------------------------------------------------------------------------


def say(connection: sa.Connection, rollout_id: int, word: str, *, reason: str, now_ms: int) -> None:
    """Keep a command for the running server."""
    connection.execute(sa.insert(rollout_command).values(rollout_id=rollout_id, word=word, reason=reason, at_ms=now_ms))


def unanswered(connection: sa.Connection) -> Sequence[Command]:
    """Commands that the server has not answered, oldest first."""
    query = sa.select(rollout_command).where(rollout_command.c.answered_at_ms.is_(None))
    return [Command(*row) for row in connection.execute(query.order_by(rollout_command.c.id))]


def said(connection: sa.Connection, rollout_id: int) -> Sequence[Command]:
    """Every command to a rollout, oldest first."""
    query = sa.select(rollout_command).where(rollout_command.c.rollout_id == rollout_id)
    return [Command(*row) for row in connection.execute(query.order_by(rollout_command.c.id))]


def answer(connection: sa.Connection, command_id: int, text: str, *, now_ms: int) -> None:
    """Keep what came of a command."""
    mine = rollout_command.c.id == command_id
    connection.execute(sa.update(rollout_command).where(mine).values(answered_at_ms=now_ms, answer=text))
