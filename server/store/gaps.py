"""Which samples did a device keep that will never come?

An outbox counts every sample that it ever took, in the commit that keeps it, and says since which boot it counts. When
its file is lost (damaged beyond reading, a card that was changed, a folder that was deleted) the next one begins to
count anew, from a later boot. What the old one had taken by its last word, had not evicted, and is not stored, is a
*gap* in the sequence of (boot, number). What it took after that word, nobody knows.

A device that could still read the counts of a damaged file goes on from them. Then, or where the server itself lost
what it had given receipts for, the sum over all that was taken says it: taken = evicted + held + stored + missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from edge_agent.contract.wire import Birth, Heartbeat, OutboxState
from server.store import erasures, removed
from server.store.devices import Device, Kept
from server.store.heard import Last
from server.store.insert import insert
from server.store.schema import device, gap, sample
from server.store.spoken import Spoken

DAMAGED = "damaged"  # as a device calls what waited in a damaged file; no rule of eviction
GAPS_MAX = 100
"""Kept of each device. Fewer hide what a bad card costs; more lets a device that lies fill the disk."""


def notice(
    connection: sa.Connection, said: Sequence[Spoken[Birth] | Spoken[Heartbeat]], known: Mapping[str, Last]
) -> None:
    """Before the devices' last words, `known`, are replaced: an outbox that is another one leaves a gap."""
    for one in said:
        found = known.get(one.device)
        words = (found.birth, found.heartbeat) if found else ()
        if any(word is not None and word.outbox.since_boot < one.word.outbox.since_boot for word in words):
            _notice(connection, one.device, one.word.outbox, now_ms=one.at_ms)


def _notice(connection: sa.Connection, name: str, said: OutboxState, *, now_ms: int) -> None:
    query = sa.select(device.c.birth, device.c.heartbeat).where(device.c.name == name)
    words = [word["outbox"] for word in connection.execute(query).one() if word is not None]
    earlier = [outbox for outbox in _read(words) if outbox.since_boot < said.since_boot and outbox.put_total]
    if not earlier:
        return
    known = set(connection.scalars(sa.select(gap.c.since_boot).where(gap.c.device == name)))
    lost = [outbox for outbox in earlier if outbox.since_boot not in known]  # each once, however late its last word
    if not lost or len(known) >= GAPS_MAX:
        return
    last = max(lost, key=lambda outbox: outbox.put_total)
    values = {
        "device": name,
        "until_boot": said.since_boot,
        "since_boot": last.since_boot,
        "put_total": last.put_total,
        "evicted": sum(evicted(last).values()),
        "noticed_at_ms": now_ms,
    }
    connection.execute(insert(connection, gap).values(values).on_conflict_do_nothing())


def missing(connection: sa.Connection, known: Sequence[Device] | Sequence[Kept]) -> dict[str, int]:
    """Samples of each device that will not come, at least; exact once all that waits has come."""
    stored = _stored(connection)
    found = {one.name: 0 for one in known}
    for row in connection.execute(sa.select(gap)):
        here = sum(n for boot, n in stored[row.device].items() if row.since_boot <= boot < row.until_boot)
        found[row.device] = found.get(row.device, 0) + max(0, row.put_total - row.evicted - here)
    for one in known:
        if (outbox := one.outbox) is not None:
            here = sum(n for boot, n in stored[one.name].items() if boot >= outbox.since_boot)
            held = outbox.rows + outbox.parked  # rows may be stored too, as long as their receipt is on its way
            found[one.name] += max(0, outbox.put_total - sum(evicted(outbox).values()) - held - here)
    return found


def evicted(outbox: OutboxState) -> dict[str, int]:
    """Samples that left it by a rule: reason -> how many."""
    return {reason: n for reason, n in outbox.evicted.items() if reason != DAMAGED}


def _read(words: list[object]) -> list[OutboxState]:
    return [msgspec.convert(word, type=OutboxState, str_keys=True) for word in words]


def _stored(connection: sa.Connection) -> dict[str, dict[int, int]]:
    """Samples by device and boot; those that were here and are erased, or were removed, count as well."""
    counts: dict[str, dict[int, int]] = defaultdict(dict)
    query = sa.select(sample.c.device, sample.c.boot, sa.func.count()).where(sample.c.origin == "device")
    for name, boot, number in connection.execute(query.group_by(sample.c.device, sample.c.boot)):
        counts[name][boot] = number
    for gone in (erasures.stored(connection), removed.by_boot(connection)):
        for name, boots in gone.items():
            for boot, number in boots.items():
                counts[name][boot] = counts[name].get(boot, 0) + number
    return counts
