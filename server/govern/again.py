"""What was erased since a backup was made, and is back?

A later catalogue (of the machine that broke, or of a later backup) has the tombstones: keyed hashes, and the key. They
tell nobody an id, but find it among those that are here. What they find is erased again, under numbers of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from edge_agent.contract.wire import PURGE_SAMPLES_MAX
from server.govern.erase import Erased, erase
from server.govern.subject import Subject
from server.store import erasures, identities, labelers
from server.store.reading import opened
from server.store.schema import sample, tombstone
from server.store.store import Store


class Later(NamedTuple):
    """What another catalogue knows to be erased."""

    key: bytes
    devices: frozenset[str]
    hashes: frozenset[str]  # of samples, and of labelers


def read(catalogue: Path, *, known: frozenset[tuple[int, str]]) -> Later:
    """Of erasures that are not `known` (time, hash over the tombstones). StoreError when it cannot be read."""
    with opened(catalogue, alone=False) as connection:
        new = [one for one in erasures.every(connection) if (one.at_ms, one.sha256) not in known]
        numbers = [one.id for one in new]
        mine = sa.select(tombstone.c.sha256).where(tombstone.c.erasure_id.in_(numbers))
        hashes = {*connection.scalars(mine), *(one.subject for one in new if one.kind == "labeler")}
        devices = frozenset(one.subject for one in new if one.kind == "device")
        return Later(erasures.key(connection), devices, frozenset(hashes))


def repeat(store: Store, catalogue: Path, *, who: str, why: str, now_ms: int) -> list[Erased]:
    """Erase again what a later catalogue knows to be erased and this one has. StoreError when it cannot be read."""
    with store.database.read() as connection:
        known = frozenset((one.at_ms, one.sha256) for one in erasures.every(connection))
    later = read(catalogue, known=known)
    with store.database.read() as connection:
        subjects = list(_subjects(connection, later))
    return [erase(store, one, who=who, why=why, now_ms=now_ms) for one in subjects]


def _subjects(connection: sa.Connection, later: Later) -> Iterator[Subject]:
    if not later.key:
        return
    for name in sorted(later.devices & set(identities.names(connection))):
        yield Subject("device", (name,))
    for name in labelers.names(connection):
        if erasures.keyed(later.key, name) in later.hashes:
            yield Subject("labeler", (name,))
    rows = connection.execute(sa.select(sample.c.id, sample.c.device))
    back = [id_ for id_, name in rows if name not in later.devices and erasures.keyed(later.key, id_) in later.hashes]
    for start in range(0, len(back), PURGE_SAMPLES_MAX):
        yield Subject("sample", tuple(back[start : start + PURGE_SAMPLES_MAX]))
