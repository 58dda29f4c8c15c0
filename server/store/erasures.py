"""What was erased, and what must not come back?

Of what goes a *tombstone* stays: a hash that tells an id only to whoever has it and the key, which never leaves the
catalogue. It refuses a sample that comes again. A device that was erased as a whole is heard again from where it says
that it purged: what it took until then is refused, by (boot, number).

A snapshot's id is a hash over its members, so it cannot be made again of fewer. Before the first member goes the id is
checked, and the snapshot is *sealed*: a hash over the keyed hashes of all members. Each erased member leaves its own,
so the seal can be made again for ever, and whatever else changes in the snapshot is found.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from edge_agent.contract.types import SampleId
from edge_agent.contract.wire import PURGE_SAMPLES_MAX, PURGES_MAX, Purge, Purged
from server.store import snapshots, trail, versions
from server.store.among import Question
from server.store.insert import insert
from server.store.schema import (
    erased_device,
    erased_member,
    erasure,
    erasure_key,
    purge_order,
    snapshot_member,
    snapshot_seal,
    tombstone,
    version,
)

LEFT_OUT = "left_out"  # in place of a split, of what was labelled and yet no member
KEY_BYTES = 32
_AT_ONCE = 500  # values in one IN (...): SQLite allows 32,766


class Erasure(NamedTuple):
    """What is left of what was erased."""

    id: int
    at_ms: int
    kind: str  # "device", "sample" or "labeler"
    subject: str  # a device's name; else a keyed hash
    who: str
    why: str
    counts: dict[str, int]  # table -> rows that went
    boots: dict[str, dict[str, int]]  # device -> boot -> samples that were stored
    sha256: str  # over the tombstones, in order
    finished_at_ms: int | None  # None: bytes of it may still be here


class Known(NamedTuple):
    """How far a snapshot can be verified. seal: of its members, those that stand for erased ones included."""

    members: int
    erased: int
    whole: bool  # it is what it was, but for what was erased


# --- hashes -----------------------------------------------------------------------------------------------------------


def key(connection: sa.Connection) -> bytes:
    """The key of all tombstones; b"" as long as nothing was erased."""
    rows = _KEY.ask(connection)
    return bytes(rows[0][0]) if rows else b""


_KEY = Question(lambda _: sa.select(erasure_key.c.key))


def make_key(connection: sa.Connection, given: bytes = b"") -> bytes:
    """The key, made the first time, or `given` then."""
    found = key(connection)
    if not found:
        found = given or secrets.token_bytes(KEY_BYTES)
        connection.execute(sa.insert(erasure_key).values(id=1, key=found))
    return found


def keyed(key: bytes, text: str | bytes) -> str:
    """HMAC-SHA256 (RFC 2104), in hex: the same text gives the same, and nobody without the key can try out texts."""
    return hmac.digest(key, text.encode() if isinstance(text, str) else text, "sha256").hex()


def digest(hashes: Iterable[str]) -> str:
    """One sha256 over hashes, in order of theirs."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


# --- what was erased --------------------------------------------------------------------------------------------------


def insert_erasure(connection: sa.Connection, made: Erasure) -> int:
    """Keep one; returns its id, which is the next where it says 0."""
    values = {name: value for name, value in made._asdict().items() if name != "id" or value}
    number: int = connection.execute(sa.insert(erasure).values(values).returning(erasure.c.id)).scalar_one()
    return number


def count(connection: sa.Connection, number: int, counts: Mapping[str, int]) -> None:
    """Say what went."""
    connection.execute(sa.update(erasure).where(erasure.c.id == number).values(counts=dict(counts)))


def every(connection: sa.Connection) -> Sequence[Erasure]:
    """All of them, oldest first."""
    return [Erasure(*row) for row in connection.execute(sa.select(erasure).order_by(erasure.c.id))]


def next_id(connection: sa.Connection) -> int:
    """Of one more. A restored catalogue has forgotten numbers that devices obeyed: it goes on above them."""
    return max(last_id(connection), trail.RAISED * trail.restores(connection)) + 1


def last_id(connection: sa.Connection) -> int:
    """Of the newest; 0: there is none."""
    return connection.scalar(sa.select(sa.func.max(erasure.c.id))) or 0


def unfinished(connection: sa.Connection) -> bool:
    """Whether bytes of something erased may still be here."""
    return connection.scalar(sa.select(sa.exists().where(erasure.c.finished_at_ms.is_(None)))) or False


def finish(connection: sa.Connection, *, now_ms: int) -> None:
    """No bytes of what was erased so far are here any more."""
    connection.execute(sa.update(erasure).where(erasure.c.finished_at_ms.is_(None)).values(finished_at_ms=now_ms))


def tombstones(connection: sa.Connection, erasure_id: int) -> frozenset[str]:
    """Those of one erasure."""
    return frozenset(connection.scalars(sa.select(tombstone.c.sha256).where(tombstone.c.erasure_id == erasure_id)))


def lacking(connection: sa.Connection, hashes: Collection[str]) -> set[str]:
    """Of these the hashes for which there is no tombstone."""
    return set(hashes) - set(connection.scalars(sa.select(tombstone.c.sha256)))


def bury(connection: sa.Connection, erasure_id: int, hashes: Iterable[str]) -> None:
    """Set tombstones."""
    rows = [{"sha256": sha256, "erasure_id": erasure_id} for sha256 in hashes]
    if rows:
        connection.execute(insert(connection, tombstone).on_conflict_do_nothing(), rows)


def stored(connection: sa.Connection) -> dict[str, dict[int, int]]:
    """Samples that were here and are erased, by device and boot."""
    found: dict[str, dict[int, int]] = {}
    for boots in connection.scalars(sa.select(erasure.c.boots)):
        for name, counts in boots.items():
            mine = found.setdefault(name, {})
            for boot, number in counts.items():
                mine[int(boot)] = mine.get(int(boot), 0) + number
    return found


def learned(connection: sa.Connection) -> dict[int, list[int]]:
    """Versions that learned from what is erased since -> the erasures. They are to be retrained, from scratch."""
    query = (
        sa.select(version.c.number, erased_member.c.erasure_id)
        .join(version, version.c.snapshot_id == erased_member.c.snapshot_id)
        .where(erased_member.c.split.in_(snapshots.TAUGHT))
        .distinct()
        .order_by(version.c.number, erased_member.c.erasure_id)
    )
    direct: dict[int, list[int]] = {}
    for number, erasure_id in connection.execute(query):
        direct.setdefault(number, []).append(erasure_id)
    if not direct:
        return {}
    for number, base in versions.weights_from(connection).items():
        direct[number] = sorted({*direct.get(number, ()), *direct.get(base, ())})
    return {number: mine for number, mine in sorted(direct.items()) if mine}


# --- what must not come back ------------------------------------------------------------------------------------------


def closed(connection: sa.Connection) -> frozenset[str]:
    """Devices that were erased as a whole."""
    return frozenset(name for (name,) in _CLOSED.ask(connection))


_CLOSED = Question(lambda _: sa.select(erased_device.c.device))


def refused(connection: sa.Connection, ids: Collection[str]) -> dict[str, str]:
    """Of these sample ids those that were erased -> why they are refused."""
    if not key(connection):
        return {}
    lines = {row.device: row for row in connection.execute(sa.select(erased_device))}
    found = {id_: f"it was erased (erasure {number})" for id_, number in buried(connection, ids).items()}
    for id_ in ids:
        one = SampleId.parse(id_)
        line = lines.get(one.device)
        if line is not None and (line.boot is None or (one.boot, one.seq) <= (line.boot, line.seq)):
            found.setdefault(id_, f"what its device had was erased (erasure {line.erasure_id})")
    return found


def buried(connection: sa.Connection, texts: Collection[str]) -> dict[str, int]:
    """Of these ids of samples, or keys of answers, those that have a tombstone -> the erasure."""
    secret, found = key(connection), dict[str, int]()
    hashes = {keyed(secret, text): text for text in texts} if secret else {}
    wanted = list(hashes)
    for start in range(0, len(wanted), _AT_ONCE):
        some = tombstone.c.sha256.in_(wanted[start : start + _AT_ONCE])
        for sha256, erasure_id in connection.execute(sa.select(tombstone.c.sha256, tombstone.c.erasure_id).where(some)):
            found[hashes[sha256]] = erasure_id
    return found


def close_device(connection: sa.Connection, name: str, erasure_id: int) -> None:
    """Take nothing of a device until it says that it purged."""
    values = {"device": name, "erasure_id": erasure_id, "boot": None, "seq": None}
    connection.execute(
        insert(connection, erased_device).values(values).on_conflict_do_update(index_elements=["device"], set_=values)
    )


def order(connection: sa.Connection, erasure_id: int, wanted: Mapping[str, Sequence[str]]) -> None:
    """Devices are to purge: device -> ids of samples, none of them: all it has."""
    rows = [{"erasure_id": erasure_id, "device": name, "samples": list(ids)} for name, ids in wanted.items()]
    if rows:
        connection.execute(sa.insert(purge_order), rows)


def orders(connection: sa.Connection) -> dict[str, tuple[Purge, ...]]:
    """What each device is still to purge, oldest first; no more at once than an order may carry."""
    found: dict[str, tuple[Purge, ...]] = {}
    for row in connection.execute(sa.select(purge_order).order_by(purge_order.c.erasure_id)):
        mine = found.get(row.device, ())
        if len(mine) < PURGES_MAX:
            found[row.device] = (*mine, Purge(id=row.erasure_id, samples=tuple(row.samples[:PURGE_SAMPLES_MAX])))
    return found


def heard(connection: sa.Connection, name: str, said: Purged) -> None:
    """A device says how far it has purged: it owes nothing up to there, and is taken in from there on."""
    done = (purge_order.c.device == name, purge_order.c.erasure_id <= said.id)
    connection.execute(sa.delete(purge_order).where(*done))
    mine = (erased_device.c.device == name, erased_device.c.erasure_id <= said.id)
    line = connection.execute(sa.select(erased_device).where(*mine)).one_or_none()
    if line is not None and (line.boot is None or (line.boot, line.seq) < (said.boot, said.seq)):
        connection.execute(sa.update(erased_device).where(*mine).values(boot=said.boot, seq=said.seq))


# --- snapshots --------------------------------------------------------------------------------------------------------


def prepare(connection: sa.Connection, snapshot_id: str) -> str:
    """The seal of a snapshot that has all its members; "" when it is not what its id says.

    It takes seconds for a million members, so it is made before the right to write is taken.
    """
    frozen = snapshots.get(connection, snapshot_id)
    if frozen is None:
        return ""
    sealed, sound = _read(connection, frozen)
    return sealed if sound else ""


def seal(connection: sa.Connection, snapshot_id: str, ready: Mapping[str, str] = MappingProxyType({})) -> bool:
    """Before a member goes: check that the snapshot is what its id says, and seal it. `ready`: seals as prepared.

    False when it is not; then it is not sealed either, and never passes for whole. One that is sealed stays as it is.
    """
    known = connection.scalar(sa.select(snapshot_seal.c.sha256).where(snapshot_seal.c.snapshot_id == snapshot_id))
    if known is not None:
        return True
    make_key(connection)
    made = ready[snapshot_id] if snapshot_id in ready else prepare(connection, snapshot_id)
    if made:
        connection.execute(sa.insert(snapshot_seal).values(snapshot_id=snapshot_id, sha256=made))
    return bool(made)


def verify(connection: sa.Connection, snapshot_id: str) -> Known:
    """Whether a snapshot is what it was, but for what was erased."""
    frozen = snapshots.get(connection, snapshot_id)
    sealed = connection.scalar(sa.select(snapshot_seal.c.sha256).where(snapshot_seal.c.snapshot_id == snapshot_id))
    if frozen is None:
        return Known(0, 0, False)
    now, sound = _read(connection, frozen)
    here = sa.select(sa.func.count()).where(snapshot_member.c.snapshot_id == snapshot_id)
    whole = sound if sealed is None else now == sealed
    return Known(connection.scalar(here) or 0, lost(connection, snapshot_id), whole)


def lost(connection: sa.Connection, snapshot_id: str) -> int:
    """How many members a snapshot has lost."""
    mine = (erased_member.c.snapshot_id == snapshot_id, erased_member.c.split != LEFT_OUT)
    return connection.scalar(sa.select(sa.func.count()).select_from(erased_member).where(*mine)) or 0


def member_hash(key: bytes, member: snapshots.Member | snapshots.LeftOut) -> str:
    """What stands for a row that goes."""
    return keyed(key, snapshots.encoded(member))


def _read(connection: sa.Connection, frozen: snapshots.Snapshot) -> tuple[str, bool]:
    """The seal over what is here and the hashes of what went; and whether its id is what is here comes to.

    Ids of an earlier format nobody makes any more: they are believed.
    """
    secret, made = key(connection), snapshots.Identity(frozen.classes, frozen.rules)
    hashes = [keyed(secret, msgspec.json.encode(list(frozen.classes)))]
    hashes += connection.scalars(sa.select(erased_member.c.sha256).where(erased_member.c.snapshot_id == frozen.id))
    for row in snapshots.rows_as_json(connection, frozen.id):
        made.add(row)
        hashes.append(keyed(secret, row))
    return digest(hashes), frozen.format != snapshots.FORMAT or made.id == frozen.id
