"""How does a model become a version?

Three ways: a candidate that passed its gates (a run in state `passed`), an artifact folder given by hand, or an earlier
version again, for a rollback. Always the bytes are put among the blobs first (so are the parcels in which they may
travel) and the row second, in one transaction with everything else that changes; a server killed in between finds the
same work to do again. Numbers only grow: devices refuse a lower one.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import sqlalchemy as sa

from edge_agent.contract.artifact import (
    MANIFEST,
    MODEL,
    Manifest,
    decode_manifest,
    encode_manifest,
    read_artifact,
    write_durably,
)
from edge_agent.contract.errors import ArtifactError
from edge_agent.contract.graph import check_graph
from edge_agent.contract.task import Task
from edge_agent.contract.trust import BUNDLE, encode_bundle
from server.errors import RolloutError
from server.release.signing import Signing
from server.store import devices, labels, parcels, runs, trail, versions
from server.store.store import Store
from server.store.versions import Version

BELIEVED = 2**30
"""Highest version that a device is believed to execute: half of the numbers that fit into the catalogue."""


def publish_passed(store: Store, *, now_ms: int) -> list[Version]:
    """Publish every candidate that passed; returns the new versions."""
    with store.database.read() as connection:
        passed = runs.in_state(connection, "passed")
    made = [_publish(store, run, now_ms=now_ms) for run in passed]
    return [version for version in made if version is not None]


def _publish(store: Store, run: runs.Run, *, now_ms: int) -> Version | None:
    """None: another process was first."""
    candidate = run.report["candidate"]
    manifest = decode_manifest(store.blobs.get(candidate["manifest_sha256"]), where=f"candidate of run {run.id}")
    with store.database.write() as connection:
        if not runs.publish(connection, run.id):
            return None
        # The number is given here, not when the training began: an artifact may have been added by hand since.
        number = _next_number(connection)
        manifest = msgspec.structs.replace(manifest, version=number)
        made = _version(
            store,
            manifest,
            encode_manifest(manifest),
            weights_sha256=candidate["weights_sha256"],
            run_id=run.id,
            now_ms=now_ms,
        )
        versions.insert(connection, made)
        _record(connection, made, why=f"run {run.id} passed its gates", now_ms=now_ms)
    return made


def _next_number(connection: sa.Connection) -> int:
    """Above what any device executes too: one that was given a model which we never saw would refuse a lower one.

    After a restore above what it may have been given since the backup, and refused. A device that says a number beyond
    BELIEVED lies: numbers only grow, and it is not to use them up.
    """
    said = [device.heartbeat or device.birth for device in devices.devices(connection)]
    executed = max((word.model.version for word in said if word and word.model.version <= BELIEVED), default=0)
    return max(versions.next_number(connection), executed + 1, trail.versions_from(connection))


def publish_again(connection: sa.Connection, store: Store, number: int, *, now_ms: int) -> Version:
    """Publish version `number` under a new number: devices that hold the one after it refuse the old one."""
    before = versions.get(connection, number)
    if before is None:
        raise RolloutError(f"version {number} is not in the registry")
    manifest = decode_manifest(store.blobs.get(before.manifest_sha256), where=f"version {number}")
    manifest = msgspec.structs.replace(manifest, version=_next_number(connection), parent=number)
    data, weights = encode_manifest(manifest), before.weights_sha256
    made = _version(store, manifest, data, weights_sha256=weights, run_id=None, now_ms=now_ms)
    versions.insert(connection, made)
    _record(connection, made, why=f"version {number} goes out again", now_ms=now_ms)
    return made


def add_artifact(
    store: Store,
    folder: Path,
    *,
    weights: Path | None,
    now_ms: int,
    who: str = trail.SERVER,
    why: str = "",
    task: Task | None = None,
) -> Version:
    """Publish an artifact folder under the number in its manifest; the same folder again changes nothing.

    `weights` is the checkpoint to train on from; without it the first training starts from scratch. `who` and `why` go
    into the audit trail. ArtifactError when the folder is no artifact, RolloutError when its number is not newer than
    every other, or it is of another task than `task`, the server's.
    """
    manifest, onnx = read_artifact(folder)
    if task is not None and manifest.task != task:
        raise RolloutError(
            f"{folder}: a model for {manifest.task}, and [server] task is {task!r}: give one for {task}, or say "
            f"task = {manifest.task!r} in server.toml, where nothing is labelled otherwise yet"
        )
    check_graph(onnx)
    data = (folder / MANIFEST).read_bytes()  # as it is: devices that hold the folder know it by this hash
    checkpoint = _read(weights) if weights else b""
    store.blobs.put(onnx)
    parcels.make(store, manifest)
    made = _version(
        store, manifest, data, weights_sha256=store.blobs.put(checkpoint) if weights else "", run_id=None, now_ms=now_ms
    )
    with store.database.write() as connection:
        known = versions.get(connection, manifest.version)
        if known is not None and known.manifest_sha256 == made.manifest_sha256:
            return known
        if manifest.version < (least := versions.next_number(connection)):
            raise RolloutError(f"{folder}: version {manifest.version}, expected {least} or more: numbers only grow")
        versions.insert(connection, made)
        labels.ensure_names(connection, manifest.classes)
        _record(connection, made, who=who, why=why or "given by hand", now_ms=now_ms)
    return made


def export(store: Store, signing: Signing, number: int, folder: Path, *, variant: str) -> bool:
    """Write a version as an artifact folder, with what vouches for it; returns whether anybody does."""
    with store.database.read() as connection:
        version = versions.get(connection, number)
    if version is None:
        raise RolloutError(f"version {number} is not in the registry: winnow-server models lists them")
    data = store.blobs.get(version.manifest_sha256)
    file = decode_manifest(data, where=f"version {number}").variant(variant)
    signed = signing.ready and signing.covers(version)
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / MODEL, store.blobs.get(file.sha256))
    if signed:
        write_durably(folder / BUNDLE, encode_bundle(signing.bundle()))
    write_durably(folder / MANIFEST, data)  # as it is: another spelling would have another hash
    return signed


def _version(
    store: Store, manifest: Manifest, data: bytes, *, weights_sha256: str, run_id: int | None, now_ms: int
) -> Version:
    return Version(
        number=manifest.version,
        name=manifest.name,
        parent=manifest.parent,
        snapshot_id=manifest.snapshot,
        run_id=run_id,
        manifest_sha256=store.blobs.put(data),
        manifest_bytes=len(data),
        created_at_ms=now_ms,
        weights_sha256=weights_sha256,
        metrics=manifest.metrics,
    )


def _record(connection: sa.Connection, made: Version, *, why: str, who: str = trail.SERVER, now_ms: int) -> None:
    detail = {"manifest_sha256": made.manifest_sha256, "parent": made.parent, "snapshot": made.snapshot_id}
    trail.record(connection, "publish", f"version {made.number}", why=why, who=who, detail=detail, now_ms=now_ms)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{path}: {error.strerror}: expected the weights that the model was exported from"
        ) from error
