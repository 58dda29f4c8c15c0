"""What stands now that somebody should see to?

Read from the store alone, so that a restart knows the same. Each condition says what it is about; when it is over it is
not among them any more, and that is the news (alarms.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

import sqlalchemy as sa

from server.config import AlarmKind, ServerConfig
from server.drift.watch import KIND as DRIFT
from server.drift.watch import Verdict
from server.store import devices, events, identities, labels, rollouts, usage, versions
from server.store.alarms import Alarm, of_device
from server.store.schema import device, event, run, sample

DAY_MS = 86_400_000
EASED = 0.9  # of queue_full below which that alarm is over: 1 would tell of every sample that comes and goes
FREE_TIMES = 2  # of min_free_bytes, below which it is an alarm: later, and receipts wait before anybody knows
FULL_DAYS = 7  # in which the disk will be full, as it grows
LABELS = "labels"
PROPOSAL = "proposal"  # kind of the event (teach/proposals.py)
CALM = ("nobody", "cannot tell")
SAME = ("none", "cannot tell")


def conditions(
    connection: sa.Connection,
    config: ServerConfig,
    *,
    stand: Collection[tuple[AlarmKind, str]],
    listening_ms: int,
    now_ms: int,
) -> Iterator[Alarm]:
    """All of them. `stand`: those of the last look; `listening_ms`: since when devices could be heard."""
    yield from _silent(connection, config, stand, listening_ms, now_ms)
    yield from _drift(connection, now_ms)
    yield from _rollouts(connection, config, now_ms)
    yield from _queue(connection, config, stand, now_ms)
    yield from _disk(connection, config, now_ms)


def _silent(
    connection: sa.Connection,
    config: ServerConfig,
    stand: Collection[tuple[AlarmKind, str]],
    listening_ms: int,
    now_ms: int,
) -> Iterator[Alarm]:
    """Nobody can have been heard before the server listened: its own absence is not theirs. Over when one is back.

    Who was erased is missed by nobody before it speaks again.
    """
    silent_ms = int(config.alarms.silent_s * 1000)
    long_ago_ms = now_ms - silent_ms if now_ms - listening_ms >= silent_ms else -1
    gone = identities.revoked(connection)
    said = sa.or_(device.c.birth.is_not(None), device.c.heartbeat.is_not(None))
    query = sa.select(device.c.name, device.c.last_seen_ms).where(~device.c.online, said)
    for name, seen_ms in connection.execute(query):
        alarm = Alarm("silent", of_device(name), f"device {name} has fallen silent", seen_ms)
        if name not in gone and (seen_ms <= long_ago_ms or alarm.key in stand):
            yield alarm


def _drift(connection: sa.Connection, now_ms: int) -> Iterator[Alarm]:
    """The verdict of the fleet, and what devices said themselves in the last day, under the versions they run.

    Where nobody said anything, nobody is asked what it runs: that is in the last words of all devices.
    """
    told: dict[int, list[Alarm]] = defaultdict(list)
    for said in events.last_said_of_each(connection, DRIFT):
        verdict = Verdict(*str(said.detail["verdict"]).split("; ", 2))
        if verdict.who not in CALM or verdict.kind not in SAME:
            subject = f"version {said.model_version}, event {said.id}"
            told[said.model_version].append(Alarm("drift", subject, said.text, said.received_at_ms))
    for one in events.alarms_since(connection, now_ms - DAY_MS):
        alarm = Alarm("drift", of_device(one.device), f"device {one.device}: {one.text}", one.received_at_ms)
        told[one.model_version].append(alarm)
    for version in devices.running(connection) if told else ():
        yield from told.get(version, ())


def _rollouts(connection: sa.Connection, config: ServerConfig, now_ms: int) -> Iterator[Alarm]:
    for one in rollouts.newest(connection).values():
        subject = f"rollout {one.id}"
        if one.status == "halted":
            why = str(one.state.get("reason", ""))
            text = f"rollout {one.id} of version {one.version} was halted: {why}"
            yield Alarm("halted", subject, text, one.ended_at_ms or now_ms)
        elif one.status == "running" and (ring := one.state.get("asks")):
            text = f"version {one.version}, ring {ring}: waits for `winnow-server rollout approve {one.id}`"
            yield Alarm("proposed", subject, text, now_ms)
    for channel in (name for name, dial in config.autonomy.dials().items() if dial == "propose"):
        number = rollouts.awaited(connection, channel)
        if number is not None and versions.get(connection, number) is not None:
            text = f"version {number} waits for `winnow-server rollout start {number} --channel {channel}`"
            yield Alarm("proposed", f"version {number}, channel {channel}", text, now_ms)
    yield from _round(connection)


def _round(connection: sa.Connection) -> Iterator[Alarm]:
    said = sa.select(event).where(event.c.device == events.SERVER, event.c.kind == PROPOSAL)
    last = connection.execute(said.order_by(event.c.id.desc()).limit(1)).first()
    begun_ms = connection.scalar(sa.select(sa.func.max(run.c.started_at_ms))) or 0
    if last is not None and last.at_ms > begun_ms:
        yield Alarm("proposed", "round", f"{last.text}: winnow-server train begins it", last.at_ms)


def _queue(
    connection: sa.Connection, config: ServerConfig, stand: Collection[tuple[AlarmKind, str]], now_ms: int
) -> Iterator[Alarm]:
    rules = config.alarms
    if not (rules.queue_full or rules.queue_empty_s):
        return
    waiting = labels.counts(connection).waiting
    limit = rules.queue_full * (EASED if ("queue_full", LABELS) in stand else 1.0)
    if rules.queue_full and waiting > limit:
        yield Alarm("queue_full", LABELS, f"{waiting} samples wait for a label", now_ms)
    if rules.queue_empty_s and not waiting:
        newest_ms = connection.scalar(
            sa.select(sa.func.max(sample.c.received_at_ms)).where(sample.c.origin == "device")
        )
        if newest_ms is not None and newest_ms <= now_ms - int(rules.queue_empty_s * 1000):
            yield Alarm("queue_empty", LABELS, "no sample waits for a label, and none comes", newest_ms)


def _disk(connection: sa.Connection, config: ServerConfig, now_ms: int) -> Iterator[Alarm]:
    """By what was noted in the last hour: a look at the disk itself is not the store's."""
    at_ms, found = usage.noted(connection)
    if not found:
        return
    rules = config.retention
    look = usage.outlook(connection, found, max_bytes=rules.max_bytes, now_ms=now_ms)
    if rules.max_bytes and look.bytes > rules.max_bytes:
        text = f"the store has {look.bytes} bytes of at most {rules.max_bytes}, and what is left may not go"
        yield Alarm("disk", "bound of the store", text, at_ms)
    if look.free_bytes < FREE_TIMES * rules.min_free_bytes:
        text = f"{look.free_bytes} bytes are free; below {rules.min_free_bytes} no sample is taken in"
        yield Alarm("disk", "free space", text, at_ms)
    elif look.full_in_days is not None and look.full_in_days < FULL_DAYS and not rules.max_bytes:
        yield Alarm("disk", "growth", f"the disk is full in {look.full_in_days:.0f} days, as it grows", at_ms)
