"""In which smaller forms may a model file travel?

A parcel of a file is its Zstandard, or what differs from a file that devices have (bsdiff4), where that is smaller
still. They are blobs, made once, before a version is published: an order that names a version names its parcels too,
and nobody waits for them then. How they are unpacked is the contract's: each is tried before anybody is offered it.
Once no device can need a version's any more they are deleted (`sweep`); the files themselves stay.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import chain

import bsdiff4
import sqlalchemy as sa
import zstandard

from edge_agent.contract.artifact import Manifest, OnnxFile, decode_manifest, sha256_hex
from edge_agent.contract.errors import IntegrityError
from edge_agent.contract.parcel import unpack
from edge_agent.contract.wire import PARCELS_MAX, Parcel
from server.errors import StoreError
from server.store import devices, identities, rollouts, trail, versions
from server.store.insert import insert
from server.store.schema import parcel, sample
from server.store.store import Store

log = logging.getLogger(__name__)

BASES_MAX = 4  # of one file: each costs a second a megabyte, once; a device with another one gets it packed
DELTA_MAX_BYTES = 64 << 20  # of base and file: above, bsdiff4 takes minutes, and 17 bytes of memory for one of the base
NEWEST_KEPT = (
    5  # versions whose parcels stay whoever runs them: a rollback may bring one of them back, by the same bytes
)
LEVEL, SLOW_MAX_BYTES, FAST_LEVEL = 19, 64 << 20, 9  # of Zstandard; the last for what is larger: 19 takes minutes there


def of(connection: sa.Connection, files: Iterable[str]) -> tuple[Parcel, ...]:
    """The parcels of those files, by hash; the smallest first, no more than an order may hold."""
    query = sa.select(parcel).where(parcel.c.file_sha256.in_(list(files))).order_by(parcel.c.bytes, parcel.c.sha256)
    return tuple(Parcel(**row._mapping) for row in connection.execute(query.limit(PARCELS_MAX)))


def make(store: Store, manifest: Manifest) -> list[Parcel]:
    """Make the parcels of a manifest's files, whose bytes are here, and keep those that save something."""
    while True:
        with store.database.read() as connection:
            bases = _bases(store, connection)
        here = [file for file in manifest.files.values() if store.blobs.has(file.sha256)]
        made = [parcel for file in here for parcel in _of_file(store, file, bases)]
        if not made or _named(store, made):
            return made


def _named(store: Store, made: Sequence[Parcel]) -> bool:
    """Put their rows there. False: a sweep came between, and took bytes that an old version had as well."""
    with store.database.write() as connection:  # nobody deletes bytes meanwhile
        if not all(store.blobs.has(one.sha256) for one in made):
            return False
        connection.execute(insert(connection, parcel).on_conflict_do_nothing(), [_row(one) for one in made])
    return True


def sweep(store: Store, *, now_ms: int) -> int:
    """Delete the parcels of published versions that no device can need any more; returns how many.

    Kept are those of the newest NEWEST_KEPT versions, of what devices execute or are ordered to, and of what the newest
    rollout of a channel goes to or falls back to. What is not published yet is left alone. StoreError: try again.
    """
    files_of = cache(partial(_files_of, store))
    with store.database.read() as connection:
        if not _old(connection, files_of):
            return 0
    with store.database.write() as connection:  # whatever a device needs since then is seen, and nothing comes between
        files = _old(connection, files_of)
        return _delete(store, connection, files, now_ms=now_ms) if files else 0


def _old(connection: sa.Connection, files_of: Callable[[str], frozenset[str]]) -> set[str]:
    """Files that have parcels, of published versions, and that no device can need. `files_of`: of a manifest."""
    files = set(connection.scalars(sa.select(parcel.c.file_sha256)))
    every, wanted = versions.every(connection), _wanted(connection)
    wanted |= {version.number for version in every[-NEWEST_KEPT:]}
    for version in every:
        if version.number in wanted:
            files -= files_of(version.manifest_sha256)
    if not files:  # mostly; then the manifests of old versions need not be read
        return files
    old = (files_of(version.manifest_sha256) for version in every if version.number not in wanted)
    return files.intersection(chain.from_iterable(old))


def _wanted(connection: sa.Connection) -> set[int]:
    """Numbers of the versions that a device may have to fetch, as far as devices and rollouts say."""
    numbers: set[int] = set()
    gone = identities.revoked(connection)
    for device in devices.devices(connection):
        if device.name in gone:
            continue
        numbers |= {said.model.version for said in (device.heartbeat, device.birth) if said}
        if device.desired is not None and device.desired.model is not None:
            numbers.add(device.desired.model.version)
    for rollout in rollouts.newest(connection).values():
        numbers |= {rollout.version, rollout.previous}
    return numbers


def _files_of(store: Store, manifest_sha256: str) -> frozenset[str]:
    manifest = decode_manifest(store.blobs.get(manifest_sha256), where=f"manifest {manifest_sha256[:12]}")
    return frozenset(file.sha256 for file in manifest.files.values())


def _delete(store: Store, connection: sa.Connection, files: set[str], *, now_ms: int) -> int:
    """Bytes first: a server that is killed in between finds the rows, and the same work to do again."""
    old = parcel.c.file_sha256.in_(list(files))
    rows = connection.execute(sa.select(parcel).where(old)).all()
    hashes = {row.sha256 for row in rows}
    others = set(connection.scalars(sa.select(parcel.c.sha256).where(parcel.c.sha256.in_(hashes), ~old)))
    others |= set(connection.scalars(sa.select(sample.c.body_sha256).where(sample.c.body_sha256.in_(hashes))))
    store.blobs.delete_many(hashes - others)
    connection.execute(sa.delete(parcel).where(old))
    trail.record(
        connection,
        "delete",
        "parcels",
        why=f"no device runs their versions or is ordered to, and they are not among the newest {NEWEST_KEPT}",
        detail={"parcels": len(rows), "bytes": sum(row.bytes for row in rows), "files": sorted(files)},
        now_ms=now_ms,
    )
    return len(rows)


def _row(made: Parcel) -> dict[str, object]:
    return {column.name: getattr(made, column.name) for column in parcel.c}


def _bases(store: Store, connection: sa.Connection) -> Sequence[str]:
    """What devices run, or are about to: the champion's files, then what most of them say that they execute."""
    champion = versions.champion(connection)
    wanted: Counter[str] = Counter()
    for device in devices.devices(connection):
        if said := device.heartbeat or device.birth:
            wanted[said.model.sha256] += 1
    files: list[str] = []
    if champion is not None:
        manifest = decode_manifest(store.blobs.get(champion.manifest_sha256), where=f"version {champion.number}")
        files = [file.sha256 for file in manifest.files.values()]
    ranked = dict.fromkeys([*files, *(sha256 for sha256, _ in wanted.most_common())])
    return [sha256 for sha256 in ranked if len(sha256) == 64 and store.blobs.has(sha256)][:BASES_MAX]


def _of_file(store: Store, file: OnnxFile, bases: Sequence[str]) -> Iterator[Parcel]:
    whole = store.blobs.get(file.sha256)
    level = LEVEL if len(whole) <= SLOW_MAX_BYTES else FAST_LEVEL
    packed = zstandard.ZstdCompressor(level=level).compress(whole)
    if made := _keep(store, file, "zstd", packed, less_than=len(whole)):
        yield made
    for base in bases:
        if made := _delta(store, file, whole, base, less_than=min(len(whole), len(packed))):
            yield made


def _delta(store: Store, file: OnnxFile, whole: bytes, base: str, *, less_than: int) -> Parcel | None:
    if base == file.sha256:  # a device that has it fetches nothing
        return None
    try:
        old = store.blobs.get(base)
    except StoreError as error:
        log.warning("no parcel against %s: %s", base[:12], error)
        return None
    if max(len(old), len(whole)) > DELTA_MAX_BYTES:
        return None
    return _keep(store, file, "bsdiff4", bsdiff4.diff(old, whole), less_than=less_than, base=base, old=old)


def _keep(
    store: Store, file: OnnxFile, packing: str, data: bytes, *, less_than: int, base: str = "", old: bytes = b""
) -> Parcel | None:
    """The parcel, kept, if it saves something and a device will be able to unpack it."""
    made = Parcel(file_sha256=file.sha256, packing=packing, sha256=sha256_hex(data), bytes=len(data), base_sha256=base)
    if len(data) >= less_than:
        return None
    try:
        unpack(made, data, base=old, file=file)
    except IntegrityError as error:
        log.warning("%s", error)
        return None
    store.blobs.put(data)
    return made
