"""How does a server go on from a backup?

    DIR  ->  <data_dir>.restoring  ->  <data_dir>      in one rename, once all of it was checked

Every byte is hashed on the way. Nothing is written into a folder that holds something. A restore that is killed is
begun again, and finds the bytes that it had copied.

The fleet is further on than the backup: devices ignore an order whose number is lower than the last they heard, so the
numbers are raised; who was signed in signs in again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from edge_agent.contract.artifact import write_durably
from server import config
from server.errors import StoreError
from server.keep import bodies, manifest, rows
from server.keep.bodies import absent
from server.keep.manifest import BLOBS, Manifest, chunks, sha256_of
from server.store import copying, erasures, trail, versions
from server.store.migrations import current_schema
from server.store.reading import opened
from server.store.schema import device, web_session
from server.store.shards import Shards
from server.store.store import Store

_SAID = 5  # of what is wrong, in a message


class Restored(NamedTuple):
    """What is there now."""

    manifest: Manifest
    blobs: int
    keys: bool  # those of the CA and of the signatures came with it


def check(folder: Path) -> list[str]:
    """Read all of a backup; what is wrong with it, in words. StoreError when there is none."""
    made = manifest.read(folder)
    wrong = []
    for name, sha256 in made.files.items():
        if not _is(folder / made.files_in / name, sha256):
            wrong.append(f"{made.files_in}/{name}: its bytes changed")
    catalogue = folder / made.catalogue
    if not _is(catalogue, made.catalogue_sha256):
        return [*wrong, f"{made.catalogue}: is missing, or its bytes changed"]
    if not (folder / BLOBS).is_dir():
        return [*wrong, f"{BLOBS}: is missing"]
    blobs = Shards(folder / BLOBS)
    try:
        wrong += [f"blob {name}: is damaged" for name in bodies.damaged(blobs)]
        if len(blobs) < made.blobs:
            wrong.append(f"{BLOBS}: {len(blobs)} blobs, expected at least {made.blobs}")
        elif made.schema == current_schema():  # else restoring finds out, once it has brought the catalogue up to date
            with opened(catalogue) as connection:
                lost = [name for name in rows.missing(connection, blobs) if name not in made.damaged]
            wrong += [f"blob {name}: is missing" for name in lost]
    finally:
        blobs.close()
    return wrong


def restore(folder: Path, data_dir: Path, settings: config.Store, *, who: str, why: str, now_ms: int) -> Restored:
    """Make `data_dir`, which must be empty or not there, of the backup in `folder`. StoreError: it was not made."""
    made = manifest.read(folder)
    _check_empty(data_dir)
    if settings.url:
        copying.check_empty(settings)
    beside = data_dir.with_name(data_dir.name + ".restoring")
    try:
        beside.mkdir(parents=True, exist_ok=True, mode=0o700)
        _copy_catalogue(folder, made, beside)
        _copy_files(folder, made, beside)
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}") from error
    blobs = _blobs(settings.blobs, data_dir, beside)
    store = Store.open(beside, msgspec.structs.replace(settings, url="", blobs=blobs))
    try:
        count = _copy_blobs(folder, made, store)
        _settle(store, made, who=who, why=why, now_ms=now_ms)
    finally:
        store.close()
    if manifest.read(folder) != made:
        raise StoreError(f"{folder}: another backup was made meanwhile: begin again")
    if settings.url:
        _take_over(beside, settings)
    _put(beside, data_dir)
    return Restored(made, count, made.has_keys)


def _check_empty(data_dir: Path) -> None:
    if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
        raise StoreError(f"{data_dir}: is not empty: move it away first; nothing is ever restored over what is there")


def _blobs(where: str, data_dir: Path, beside: Path) -> str:
    """Where they are put: what is to be below the data folder comes into place with it."""
    if not where or "://" in where:
        return where
    wanted, below = Path(where).resolve(), data_dir.resolve()
    return str(beside / wanted.relative_to(below)) if wanted.is_relative_to(below) else where


def _copy_catalogue(folder: Path, made: Manifest, to: Path) -> None:
    target = to / "catalogue.db"
    for leftover in to.glob("catalogue.db*"):
        leftover.unlink()
    with open(target, "wb") as file:
        for chunk in chunks(folder / made.catalogue):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if sha256_of(target) != made.catalogue_sha256:
        raise StoreError(f"{folder / made.catalogue}: its bytes changed since it was made: it cannot be trusted")


def _copy_files(folder: Path, made: Manifest, to: Path) -> None:
    for name, sha256 in made.files.items():
        if name == "server.toml":
            continue  # the one that is in force names the folder
        path = folder / made.files_in / name
        if not _is(path, sha256):
            raise StoreError(f"{path}: is missing, or its bytes changed since it was copied")
        (to / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(to / name, path.read_bytes(), mode=0o600)


def _copy_blobs(folder: Path, made: Manifest, store: Store) -> int:
    """Every one is checked; whatever rows name must be there, but for what was damaged already."""
    if not (folder / BLOBS).is_dir():
        raise StoreError(f"{folder / BLOBS}: is missing")
    blobs = Shards(folder / BLOBS)
    try:
        copied = bodies.copy(blobs, store.blobs)
        if Path(store.blobs.where).is_relative_to(store.folder):  # elsewhere may be more, and is no one's to empty
            store.blobs.erase(list(absent(store.blobs.names(), blobs.names())))  # of another try, from another backup
    finally:
        blobs.close()
    with store.database.read() as connection:
        missing = [name for name in rows.missing(connection, store.blobs) if name not in made.damaged]
    if copied.damaged or missing:
        some = ", ".join((*copied.damaged, *missing)[:_SAID])
        raise StoreError(
            f"{folder}: {len(copied.damaged)} blobs are damaged, {len(missing)} missing, as {some}: take another backup"
        )
    return len(store.blobs)


def _settle(store: Store, made: Manifest, *, who: str, why: str, now_ms: int) -> None:
    """What a fleet that is further on needs; and the trail says who went back, and to when."""
    with store.database.write() as connection:
        for row in connection.execute(sa.select(device.c.name, device.c.desired, device.c.desired_revision)).all():
            number = row.desired_revision + trail.RAISED
            desired = row.desired | {"revision": number} if row.desired else sa.null()
            values = {"desired_revision": number, "desired": desired, "online": False}
            connection.execute(sa.update(device).where(device.c.name == row.name).values(values))
        connection.execute(sa.delete(web_session))
        detail = {
            "made_at_ms": made.made_at_ms,
            "catalogue_sha256": made.catalogue_sha256,
            "erasures": erasures.last_id(connection),
            "version": versions.next_number(connection) - 1,
            "rows": msgspec.to_builtins(made.rows),
        }
        trail.record(connection, trail.RESTORE, "the catalogue", why=why, who=who, detail=detail, now_ms=now_ms)


def _take_over(beside: Path, settings: config.Store) -> None:
    """Where the catalogue is not kept in the data folder. StoreError when it is not empty there."""
    file = beside / "catalogue.db"
    copying.copy(config.Store(url=f"{config.SQLITE}:///{file}"), settings)
    for path in beside.glob("catalogue.db*"):
        path.unlink()


def _put(beside: Path, data_dir: Path) -> None:
    try:
        if data_dir.exists():
            data_dir.rmdir()
        beside.rename(data_dir)
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}: all is in {beside}") from error


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256
