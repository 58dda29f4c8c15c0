"""How is all that is remembered copied while the server works?

    the catalogue, as it is at one moment  ->  the bytes that are not in DIR yet  ->  backup.json, in one step

The catalogue comes first, so that its rows find their bytes: these are put before the rows that name them. Bytes that
a row of the copy names may be deleted meanwhile, by retention or an erasure; then the catalogue is copied again. So
nothing in the server waits for a backup, and what was erased before it began is not in it.

A backup that is killed leaves the one before it in force; the next goes on with the bytes that are there already.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from edge_agent.contract.artifact import write_durably
from server.errors import StoreError
from server.keep import bodies, manifest, rows
from server.keep.bodies import Copied, absent
from server.keep.manifest import BLOBS, Manifest, sha256_of
from server.store import erasures, named
from server.store.blobs import Blobs
from server.store.lock import only_one
from server.store.migrations import current_schema
from server.store.reading import opened
from server.store.shards import Shards
from server.store.store import Store

OPEN_FILES = ("trust/**/*", "broker/broker.port")  # beside the catalogue; nothing in them is secret
KEY_FILES = ("identity/**/*", "keys/**/*")
CATALOGUE = "catalogue-{}.db"
FILES = "files-{}"
TRIES = 6  # while what the copy names is deleted; fewer fail beside a long sweep
AGAIN_S = 1.0
_AT_ONCE = 500  # blobs to one commit


class Source(NamedTuple):
    """What is to be copied."""

    store: Store
    fleet: str
    config: Path | None = None  # server.toml


class Made(NamedTuple):
    """What was done."""

    manifest: Manifest
    copied: Copied  # now; what was there already is not counted
    removed: int  # blobs of DIR that nothing needs any more


def back_up(
    source: Source, target: Path, *, keys: bool = False, now_ms: int, sleep: Callable[[float], None] = time.sleep
) -> Made:
    """Bring the backup in `target` up to now, or begin one; `keys`: with those of the CA and the signatures.

    StoreError when it cannot be; then the one before is in force still.
    """
    _check_apart(source.store, target)
    _private(target)
    with only_one(target):
        before = manifest.read(target) if (target / manifest.FILE).exists() else None
        if before is not None and before.fleet != source.fleet:
            raise StoreError(f"{target}: holds a backup of fleet {before.fleet!r}, this is {source.fleet!r}")
        if before is not None and before.has_keys and not keys:
            raise StoreError(f"{target}: has the fleet's keys, and would lose them: say --keys, or give another DIR")
        _drop_others(target, before)
        _private(target / BLOBS)
        blobs = Shards(target / BLOBS)
        try:
            catalogue, copied = _rows_and_bytes(source, target, blobs, now_ms, sleep)
            files_in = target / FILES.format(now_ms)
            files = _files(source, files_in, keys)
            made = _described(source, catalogue, blobs, copied, now_ms, files_in=files_in.name, files=files)
            for path in (catalogue, *(target / BLOBS).glob("*.db*")):
                _private(path, mode=0o600)
            manifest.write(target, made)
            _drop_others(target, made)
            removed = _drop_bytes(
                source, catalogue, blobs, erased=before is not None and made.erasures > before.erasures
            )
        finally:
            blobs.close()
    return Made(made, copied, removed)


def _check_apart(store: Store, target: Path) -> None:
    """StoreError for a DIR that would be, or go with, what it is a copy of."""
    for folder in store.folders:
        if target.resolve().is_relative_to(folder.resolve()):
            raise StoreError(f"{target}: is in {folder}, of which it is to be a backup: name a folder elsewhere")


def _rows_and_bytes(
    source: Source, target: Path, blobs: Blobs, now_ms: int, sleep: Callable[[float], None]
) -> tuple[Path, Copied]:
    """A copy of the catalogue, and all that it names but for what nobody has: it counts as damaged.

    Rows go before their bytes do. So what a later copy of the catalogue names, and was missing before it was made, is
    not on its way out: it is lost, and is no reason to back nothing up any more.
    """
    done, missing = Copied(0, 0, ()), set[str]()
    for attempt in range(TRIES):
        catalogue = target / CATALOGUE.format(now_ms + attempt)
        source.store.database.copy_to(catalogue)
        more = bodies.copy(source.store.blobs, blobs)
        with opened(catalogue) as connection:
            now = set(rows.missing(connection, blobs)).difference(more.damaged)
        lost, missing = now & missing, now
        done = Copied(done.blobs + more.blobs, done.bytes + more.bytes, tuple(sorted(lost.union(more.damaged))))
        if lost == now:
            return catalogue, done
        catalogue.unlink()
        sleep(AGAIN_S)
    raise StoreError(
        f"{target}: the catalogue names {len(missing)} blobs that are not in the store, as {min(missing)}: they were "
        f"deleted faster than they could be copied; the backup before this one is still in force"
    )


def _described(
    source: Source,
    catalogue: Path,
    blobs: Blobs,
    copied: Copied,
    now_ms: int,
    *,
    files_in: str,
    files: dict[str, str],
) -> Manifest:
    with opened(catalogue) as connection:
        counts, newest = rows.counts(connection), erasures.last_id(connection)
        needed = sum(1 for _ in named.required(connection))
    return Manifest(
        winnow=version("winnow-edge"),
        schema=current_schema(),
        fleet=source.fleet,
        made_at_ms=now_ms,
        catalogue=catalogue.name,
        catalogue_sha256=sha256_of(catalogue),
        catalogue_bytes=catalogue.stat().st_size,
        rows=counts,
        blobs=needed - len(copied.damaged),
        blob_bytes=blobs.total_bytes,
        damaged=copied.damaged,
        erasures=newest,
        files_in=files_in,
        files=files,
    )


# --- files beside the catalogue ---------------------------------------------------------------------------------------


def _files(source: Source, to: Path, keys: bool) -> dict[str, str]:
    """Copy them into a folder of their own, for nobody else to read; path below it -> sha256."""
    found: dict[str, str] = {}
    _private(to)
    data_dir = source.store.folder
    for pattern in (*OPEN_FILES, *(KEY_FILES if keys else ())):
        for path in sorted(data_dir.glob(pattern)):
            if path.is_file() and path.name != "lock":
                name = path.relative_to(data_dir)
                found[str(name)] = _copy_file(path, to / name)
    if source.config is not None:
        found["server.toml"] = _copy_file(source.config, to / "server.toml")
    return found


def _copy_file(path: Path, to: Path) -> str:
    _private(to.parent)
    try:
        write_durably(to, path.read_bytes(), mode=0o600)
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}") from error
    return sha256_of(to)


def _private(path: Path, *, mode: int = 0o700) -> None:
    """For nobody else to read; a folder is made where nothing is."""
    try:
        if not path.is_file():
            path.mkdir(parents=True, exist_ok=True, mode=mode)
        path.chmod(mode)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


# --- what nothing needs any more --------------------------------------------------------------------------------------


def _drop_others(target: Path, kept: Manifest | None) -> None:
    """Catalogues and files of backups before, and what a killed one left."""
    keep = (kept.catalogue, kept.files_in) if kept else ()
    for path in (*target.glob("catalogue-*"), *target.glob("files-*")):
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _drop_bytes(source: Source, catalogue: Path, blobs: Blobs, *, erased: bool) -> int:
    """Blobs that neither the store has nor the catalogue names; `erased`: no byte of them is left in the files."""
    removed = 0
    with opened(catalogue) as connection:
        gone = absent(absent(blobs.names(), source.store.blobs.names()), named.required(connection))
        while some := list(islice(gone, _AT_ONCE)):
            removed += blobs.erase(some) if erased else blobs.delete_many(some)
    blobs.scrub()
    return removed
