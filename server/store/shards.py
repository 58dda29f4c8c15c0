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
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from server.errors import StoreError
from server.store.blobs import Blobs, checked, is_name, named
from server.store.sqlite import BUSY_S, forget_deleted, sqlite3

SHARD_BYTES = 1024 * 1024 * 1024
NAMES_AT_ONCE = 1000
ROOMY = 0.9  # of a shard in use, below which it is filled again: higher changes shards all the time
PAGE_BYTES = 16 * 1024  # of a shard: bodies are some 20 KB; smaller pages mean longer chains of them

Journal = Literal["WAL", "DELETE"]
"""DELETE: for a folder on another machine, where WAL's shared memory is none (sqlite.org/wal.html, 2.1)."""

_SETTINGS = (
    f"PRAGMA page_size={PAGE_BYTES}",  # before the first page is written, or it has no effect
    "PRAGMA journal_mode={journal}",
    "PRAGMA synchronous=FULL",
    "PRAGMA secure_delete=ON",
    "CREATE TABLE IF NOT EXISTS blob (sha256 BLOB PRIMARY KEY, data BLOB NOT NULL)",
)


class Shards(Blobs):
    """Bytes by their sha256, in a folder."""

    def __init__(self, folder: Path, *, shard_bytes: int = SHARD_BYTES, journal: Journal = "WAL") -> None:
        """Open or make the shards in `folder`; a shard that has reached `shard_bytes` is followed by another."""
        self._folder = folder
        self._journal = journal
        self._filled = ""  # name of the shard that is filled, if not the last
        self._shard_bytes = shard_bytes
        self._lock = threading.RLock()
        self._shards: list[_Shard] = []
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

    def put_named(self, bodies: Mapping[str, bytes]) -> None:
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

    def _names_in(self, shard: _Shard, after: bytes) -> Iterator[bytes]:
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

    def _find(self, name: bytes) -> _Shard | None:
        return next((shard for shard in reversed(self._shards) if shard.has(name)), None)

    def _find_anew(self, name: bytes) -> _Shard | None:
        return self._find(name) or (self._find(name) if self._look_again() else None)

    def _every(self) -> list[_Shard]:
        with self._lock:
            self._look_again()
            return list(self._shards)

    def _look_again(self) -> bool:
        """Open shards that another process has made since; whether there were any."""
        paths = sorted(self._folder.glob("[0-9]*.db"))
        new = paths[len(self._shards) :]
        self._shards += [_Shard(path, self._journal) for path in new]
        return bool(new)

    def _grow(self) -> None:
        self._shards.append(_Shard(self._folder / f"{len(self._shards) + 1:06d}.db", self._journal))

    def _missing(self, bodies: dict[bytes, bytes]) -> dict[bytes, bytes]:
        here = {name for shard in self._shards for name in shard.among(list(bodies))}
        return {name: body for name, body in bodies.items() if name not in here} if here else bodies

    def _fill(self, bodies: dict[bytes, bytes]) -> dict[bytes, bytes]:
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

    def _fitting(self, shard: _Shard, bodies: dict[bytes, bytes]) -> dict[bytes, bytes]:
        room = self._shard_bytes - shard.used_bytes()
        fits: dict[bytes, bytes] = {}
        for name, body in bodies.items():
            room -= len(body)
            if room < 0 and (fits or shard.count()):
                break
            fits[name] = body
        return fits


class _Shard:
    """One file."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self.path = path
        with self._errors():
            self._connection: Any = sqlite3.connect(
                str(path), timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            for statement in _SETTINGS:
                self._connection.execute(statement.format(journal=journal))

    def put(self, bodies: dict[bytes, bytes]) -> None:
        """In a transaction."""
        with self._errors():
            self._connection.executemany("INSERT INTO blob VALUES (?, ?) ON CONFLICT DO NOTHING", bodies.items())

    def get(self, name: bytes) -> bytes:
        with self._errors():
            row = self._connection.execute("SELECT data FROM blob WHERE sha256 = ?", (name,)).fetchone()
        return bytes(row[0]) if row else b""

    def has(self, name: bytes) -> bool:
        with self._errors():
            found = self._connection.execute("SELECT 1 FROM blob WHERE sha256 = ?", (name,)).fetchone()
        return found is not None

    def among(self, names: list[bytes]) -> Iterator[bytes]:
        """Those of them that are in it."""
        for start in range(0, len(names), NAMES_AT_ONCE):
            some = names[start : start + NAMES_AT_ONCE]
            query = f"SELECT sha256 FROM blob WHERE sha256 IN ({', '.join('?' * len(some))})"  # noqa: S608 - question marks
            with self._errors():
                yield from [bytes(name) for (name,) in self._connection.execute(query, some)]

    def names(self, after: bytes, count: int) -> list[bytes]:
        query = "SELECT sha256 FROM blob WHERE sha256 > ? ORDER BY sha256 LIMIT ?"
        with self._errors():
            return [bytes(name) for (name,) in self._connection.execute(query, (after, count))]

    def erase(self, names: list[bytes], *, mark: bool) -> None:
        if names:
            with self.transaction() as connection:
                connection.executemany("DELETE FROM blob WHERE sha256 = ?", [(name,) for name in names])
                if mark:
                    connection.execute("PRAGMA user_version = 1")  # to be written anew, whatever happens meanwhile

    def scrub(self, *, always: bool) -> None:
        if always or self._number("PRAGMA user_version"):
            with self._errors():
                forget_deleted(self._connection)
                self._connection.execute("PRAGMA user_version = 0")

    def count(self) -> int:
        return self._number("SELECT count(*) FROM blob")

    def used_bytes(self) -> int:
        return PAGE_BYTES * (self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count"))

    def free_bytes(self) -> int:
        return PAGE_BYTES * self._number("PRAGMA freelist_count")

    def close(self) -> None:
        self._connection.close()

    def _number(self, query: str) -> int:
        with self._errors():
            return int(self._connection.execute(query).fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite has already undone it when the disk is full
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error


def _raw(sha256: str) -> bytes:
    return bytes.fromhex(named(sha256))
