"""What was erased since a backup was made, and is back, or may come back?

A later catalogue (of the machine that broke, or of a later backup) has the tombstones: keyed hashes, and the key. They
tell nobody an id, but find it among those that are here. What they find is erased again, under numbers of its own; of
what the backup never had, the tombstones, the devices that are closed, and what devices are to purge are taken over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from edge_agent.contract.wire import PURGE_SAMPLES_MAX
from server.govern.erase import Erased, erase
from server.govern.subject import Subject
from server.store import erasures, identities, labelers, trail
from server.store.erasures import Erasure
from server.store.reading import opened
from server.store.schema import erased_device, purge_order, sample
from server.store.store import Store

log = logging.getLogger(__name__)


class Forgotten(NamedTuple):
    """One erasure that this catalogue has never heard of."""

    said: Erasure
    hashes: frozenset[str]  # tombstones
    closed: Sequence[Any]  # rows of erased_device
    ordered: dict[str, list[str]]  # device -> ids of samples that it has not said to have purged; []: all it has


class Later(NamedTuple):
    """What another catalogue knows to be erased."""

    key: bytes
    new: Sequence[Forgotten]

    @property
    def devices(self) -> frozenset[str]:
        """Those that were erased as a whole."""
        return frozenset(one.said.subject for one in self.new if one.said.kind == "device")

    @property
    def hashes(self) -> frozenset[str]:
        """Of samples, of answers' keys, and of labelers."""
        labelers = (one.said.subject for one in self.new if one.said.kind == "labeler")
        return frozenset(labelers).union(*(one.hashes for one in self.new))


def read(catalogue: Path, *, known: frozenset[tuple[int, str]]) -> Later:
    """Of erasures that are not `known` (time, hash over the tombstones). StoreError when it cannot be read."""
    with opened(catalogue, alone=False) as connection:
        new = [one for one in erasures.every(connection) if (one.at_ms, one.sha256) not in known]
        return Later(erasures.key(connection), [_forgotten(connection, one) for one in new])


def _forgotten(connection: sa.Connection, one: Erasure) -> Forgotten:
    closed = connection.execute(sa.select(erased_device).where(erased_device.c.erasure_id == one.id)).all()
    orders = connection.execute(sa.select(purge_order).where(purge_order.c.erasure_id == one.id))
    return Forgotten(one, erasures.tombstones(connection, one.id), closed, {row.device: row.samples for row in orders})


def repeat(store: Store, catalogue: Path, *, who: str, why: str, now_ms: int) -> list[Erased]:
    """Erase again what a later catalogue knows to be erased and this one has. StoreError when it cannot be read."""
    with store.database.read() as connection:
        known = frozenset((one.at_ms, one.sha256) for one in erasures.every(connection))
    later = read(catalogue, known=known)
    if not later.key:
        return []
    with store.database.write() as connection:  # so that tombstones from there are tombstones here
        same_key = erasures.make_key(connection, later.key) == later.key
        subjects = list(_subjects(connection, later))
    done = [erase(store, one, who=who, why=why, now_ms=now_ms) for one in subjects]
    with store.database.write() as connection:
        if not same_key:
            log.warning(
                "%s: its tombstones are of another key, and those of what is not here are left there", catalogue
            )
        for one in later.new if same_key else ():
            _take_over(connection, one, who=who, why=why, now_ms=now_ms)
    return done


def _subjects(connection: sa.Connection, later: Later) -> Iterator[Subject]:
    devices, hashes = later.devices, later.hashes
    for name in sorted(devices & set(identities.names(connection))):
        yield Subject("device", (name,))
    for name in labelers.names(connection):
        if erasures.keyed(later.key, name) in hashes:
            yield Subject("labeler", (name,))
    rows = connection.execute(sa.select(sample.c.id, sample.c.device))
    back = [id_ for id_, name in rows if name not in devices and erasures.keyed(later.key, id_) in hashes]
    for start in range(0, len(back), PURGE_SAMPLES_MAX):
        yield Subject("sample", tuple(back[start : start + PURGE_SAMPLES_MAX]))


def _take_over(connection: sa.Connection, one: Forgotten, *, who: str, why: str, now_ms: int) -> None:
    """What is not to come back though it never was here; nothing where all of it was erased again."""
    hashes, here = erasures.lacking(connection, one.hashes), erasures.closed(connection)
    closed = [row for row in one.closed if row.device not in here]
    if not hashes and not closed:
        return
    number = erasures.next_id(connection)
    sha256 = erasures.digest(hashes)
    made = one.said._replace(
        id=number, at_ms=now_ms, who=who, why=why, counts={}, boots={}, sha256=sha256, finished_at_ms=now_ms
    )
    erasures.insert_erasure(connection, made)
    erasures.bury(connection, number, hashes)
    for row in closed:
        connection.execute(sa.insert(erased_device).values({**row._mapping, "erasure_id": number}))
    erasures.order(connection, number, one.ordered)
    detail = {"erasure": number, "of": one.said.id, "tombstones_sha256": made.sha256, "devices": len(closed)}
    subject = f"{made.kind} {made.subject}"
    trail.record(connection, "take over an erasure", subject, why=why, who=who, detail=detail, now_ms=now_ms)
