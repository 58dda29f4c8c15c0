"""How are bytes kept in a folder?

In SQLite shard files `000001.db`, `000002.db` and on, one filled at a time. What is deleted leaves room in its shard,
and a shard is made only when none has room: a store that is kept at a size takes that much of the disk, and a shard.

SQLite, because a durable file for each sample is some thirty times slower than a hundred rows to one commit.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

from server.errors import StoreError
from server.store.blobs import Blobs, checked, is_name, named
from server.store.shard import NAMES_AT_ONCE, Named, Shard

SHARD_BYTES = 1024 * 1024 * 1024
ROOMY = 0.9  # of a shard in use, below which it is filled again: higher changes shards all the time


class Shards(Blobs):
    """Bytes by their sha256, in a folder."""

    def __init__(self, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        """Open or make the shards in `folder`; a shard that has reached `shard_bytes` is followed by another."""
        self._folder = folder
        self._filled = ""  # name of the shard that is filled, if not the last
        self._shard_bytes = shard_bytes
        self._lock = threading.RLock()
        self._shards: list[Shard] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror}") from error
        self._look_again()
        if not self._shards:
            self._grow()

    @property
    def where(self) -> str:
        """The folder."""
        return str(self._folder)

    def put_named(self, bodies: Mapping[str, bytes | memoryview]) -> None:
        """One commit, or one for each shard where a shard fills up."""
        left = {_raw(sha256): body for sha256, body in bodies.items()}
        with self._lock:
            self._look_again()
            while left:
                left = self._fill(left)

    def get_many(self, names: Iterable[str]) -> Iterator[bytes | StoreError]:
        """One after the other: a disk that is read ahead is no quicker."""
        return map(self._read, names)

    def _read(self, sha256: str) -> bytes | StoreError:
        with self._lock:
            shard = self._find_anew(_raw(sha256))
            if shard is None:
                return StoreError(f"{self._folder}: no blob {sha256}")
            body = shard.get(_raw(sha256))
        return checked(sha256, body, str(shard.path))

    def has(self, sha256: str) -> bool:
        """In any of them."""
        with self._lock:
            return is_name(sha256) and self._find_anew(_raw(sha256)) is not None

    def names(self, after: str = "") -> Iterator[str]:
        """Of all shards; what is in two of them is named once."""
        every = heapq.merge(*(self._names_in(shard, bytes.fromhex(after)) for shard in self._every()))
        return (name.hex() for name, _ in groupby(every))

    def _names_in(self, shard: Shard, after: bytes) -> Iterator[bytes]:
        while True:
            with self._lock:
                some = shard.names(after, NAMES_AT_ONCE)
            yield from some
            if len(some) < NAMES_AT_ONCE:
                return
            after = some[-1]

    def delete_many(self, names: Iterable[str]) -> int:
        """Overwriting them; a commit to each shard."""
        return self._forget(names, mark=False)

    def erase(self, names: Iterable[str]) -> int:
        """Note which shards had some: `scrub` writes those anew."""
        return self._forget(names, mark=True)

    def _forget(self, names: Iterable[str], *, mark: bool) -> int:
        wanted = [_raw(sha256) for sha256 in names]
        with self._lock:
            gone = 0
            for shard in self._every():
                mine = [name for name in wanted if shard.has(name)]
                gone += len(mine)
                shard.erase(mine, mark=mark)
            return gone

    def scrub(self) -> None:
        """In the files, and in their logs."""
        list(self.pack(marked=True))

    def pack(self, *, marked: bool = False) -> Iterator[None]:
        """Write one after the other anew, so that no page is half empty; `marked`: those that `erase` noted."""
        for shard in self._every():
            with self._lock:
                shard.scrub(always=not marked)
            yield

    def __len__(self) -> int:
        with self._lock:
            return sum(shard.count() for shard in self._every())

    @property
    def total_bytes(self) -> int:
        """Bytes of the shards in use."""
        with self._lock:
            return sum(shard.used_bytes() for shard in self._every())

    @property
    def free_bytes(self) -> int:
        """Of all shards."""
        with self._lock:
            return sum(shard.free_bytes() for shard in self._every())

    def close(self) -> None:
        """Close every shard."""
        with self._lock:
            for shard in self._shards:
                shard.close()
            self._shards.clear()

    def _find(self, name: bytes) -> Shard | None:
        return next((shard for shard in reversed(self._shards) if shard.has(name)), None)

    def _find_anew(self, name: bytes) -> Shard | None:
        return self._find(name) or (self._find(name) if self._look_again() else None)

    def _every(self) -> list[Shard]:
        with self._lock:
            self._look_again()
            return list(self._shards)

    def _look_again(self) -> bool:
        """Open shards that another process has made since; whether there were any."""
        paths = sorted(self._folder.glob("[0-9]*.db"))
        new = paths[len(self._shards) :]
        self._shards += [Shard(path) for path in new]
        return bool(new)

    def _grow(self) -> None:
        self._shards.append(Shard(self._folder / f"{len(self._shards) + 1:06d}.db"))

    def _missing(self, bodies: Named) -> Named:
        here = {name for shard in self._shards for name in shard.among(list(bodies))}
        return {name: body for name, body in bodies.items() if name not in here} if here else bodies

    def _fill(self, bodies: Named) -> Named:
        """Put what fits of what is missing into one shard, at least one body into an empty one; what is left."""
        last = self._shards[-1]
        with last.transaction():  # whoever puts something has this one, so that nobody puts the same elsewhere
            if self._look_again():
                return bodies
            missing = self._missing(bodies)
            shard = next((one for one in self._shards if one.path.name == self._filled), last)
            fits = self._fitting(shard, missing)
            with contextlib.nullcontext() if shard is last else shard.transaction():
                shard.put(fits)
        left = {name: body for name, body in missing.items() if name not in fits}
        if left:
            self._next(len(next(iter(left.values()))))
        return left

    def _next(self, body_bytes: int) -> None:
        """Fill another shard: one that has room again, for a body of that size, or a new one."""
        most = min(ROOMY * self._shard_bytes, self._shard_bytes - body_bytes)
        roomy = [shard for shard in self._shards if shard.used_bytes() < most]
        if not roomy:
            self._grow()
        self._filled = (roomy or self._shards[-1:])[0].path.name

    def _fitting(self, shard: Shard, bodies: Named) -> Named:
        room = self._shard_bytes - shard.used_bytes()
        fits: Named = {}
        for name, body in bodies.items():
            room -= len(body)
            if room < 0 and (fits or shard.count()):
                break
            fits[name] = body
        return fits


def _raw(sha256: str) -> bytes:
    return bytes.fromhex(named(sha256))
