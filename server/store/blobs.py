"""Where are the bytes?

Content-addressed, in SQLite shard files `blobs/000001.db`, `000002.db` and on. A name is the sha256 of its bytes; what
was put is on disk when the call returns, is never written twice, and is checked every time it is read. Only the last
shard grows.

SQLite, because a durable file for each sample is some thirty times slower than a hundred rows to one commit.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.errors import StoreError
from server.store.sqlite import BUSY_S, forget_deleted, sqlite3

SHARD_BYTES = 1024 * 1024 * 1024
PAGE_BYTES = 16 * 1024  # of a shard: bodies are some 20 KB; smaller pages mean longer chains of them

_SETTINGS = (
    f"PRAGMA page_size={PAGE_BYTES}",  # before the first page is written, or it has no effect
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA secure_delete=ON",
    "CREATE TABLE IF NOT EXISTS blob (sha256 BLOB PRIMARY KEY, data BLOB NOT NULL)",
)


class Blobs:
    """Bytes by their sha256. Safe to use from several threads and processes."""

    def __init__(self, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        """Open or make the shards in `folder`; a shard that has reached `shard_bytes` is followed by a new one."""
        self._folder = folder
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

    def put_many(self, bodies: Iterable[bytes]) -> list[str]:
        """Keep bodies; returns the sha256 of each, in order.

        They are on disk when this returns: one commit, or one for each shard where a shard fills up. What is there
        already is not written again. StoreError when they cannot be kept; then some of them may be.
        """
        named = [(hashlib.sha256(body).hexdigest(), body) for body in bodies]
        self.put_named(dict(named))
        return [name for name, _ in named]

    def put_named(self, bodies: Mapping[str, bytes]) -> None:
        """The same of bodies whose sha256 the caller has just checked: they are not hashed again."""
        named = {_name(sha256): body for sha256, body in bodies.items()}
        with self._lock:
            self._look_again()
            missing = {name: body for name, body in named.items() if self._find(name) is None}
            while missing:
                missing = self._fill(missing)

    def put(self, body: bytes) -> str:
        """Keep one body; returns its sha256."""
        return self.put_many([body])[0]

    def get(self, sha256: str) -> bytes:
        """The bytes of that name; StoreError when they are not here, or are not what they were."""
        with self._lock:
            shard = self._find_anew(_name(sha256))
            if shard is None:
                raise StoreError(f"{self._folder}: no blob {sha256}")
            body = shard.get(_name(sha256))
        if hashlib.sha256(body).hexdigest() != sha256:
            raise StoreError(f"{shard.path}: blob {sha256} is damaged: {len(body)} bytes with another hash")
        return body

    def has(self, sha256: str) -> bool:
        """Whether bytes of that name are here."""
        with self._lock:
            return self._find_anew(_name(sha256)) is not None

    def delete(self, sha256: str) -> bool:
        """Forget the bytes of that name, overwriting them; False when they were not here."""
        with self._lock:
            shard = self._find_anew(_name(sha256))
            if shard is not None:
                shard.delete(_name(sha256))
            return shard is not None

    def erase(self, names: Iterable[str]) -> int:
        """Forget bytes, and note which shards had some: `scrub` writes those anew. Returns how many were here."""
        wanted = [_name(sha256) for sha256 in names]
        with self._lock:
            self._look_again()
            gone = 0
            for shard in self._shards:
                mine = [name for name in wanted if shard.has(name)]
                gone += len(mine)
                shard.erase(mine)
            return gone

    def scrub(self) -> None:
        """Leave no byte of what was erased in the files, nor in their logs. StoreError: to be done again."""
        with self._lock:
            self._look_again()
            for shard in self._shards:
                shard.scrub()

    def __len__(self) -> int:
        with self._lock:
            self._look_again()
            return sum(shard.count() for shard in self._shards)

    @property
    def total_bytes(self) -> int:
        """Bytes of the shards in use."""
        with self._lock:
            self._look_again()
            return sum(shard.used_bytes() for shard in self._shards)

    def close(self) -> None:
        """Close every shard."""
        with self._lock:
            for shard in self._shards:
                shard.close()
            self._shards.clear()

    def _find(self, name: bytes) -> _Shard | None:
        return next((shard for shard in reversed(self._shards) if shard.has(name)), None)

    def _find_anew(self, name: bytes) -> _Shard | None:
        found = self._find(name)
        if found is None and self._look_again():
            found = self._find(name)
        return found

    def _look_again(self) -> bool:
        """Open shards that another process has made since; whether there were any."""
        paths = sorted(self._folder.glob("[0-9]*.db"))
        new = paths[len(self._shards) :]
        self._shards += [_Shard(path) for path in new]
        return bool(new)

    def _grow(self) -> None:
        self._shards.append(_Shard(self._folder / f"{len(self._shards) + 1:06d}.db"))

    def _fill(self, missing: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Put what fits into the last shard, at least one body into an empty one; returns what is left."""
        shard = self._shards[-1]
        room = self._shard_bytes - shard.used_bytes()
        fits: dict[bytes, bytes] = {}
        for name, body in missing.items():
            room -= len(body)
            if room < 0 and (fits or shard.count()):
                break
            fits[name] = body
        if fits:
            shard.put(fits)
        left = {name: body for name, body in missing.items() if name not in fits}
        if left:
            self._grow()
        return left


class _Shard:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors():
            self._connection: Any = sqlite3.connect(
                str(path), timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            for statement in _SETTINGS:
                self._connection.execute(statement)

    def put(self, bodies: dict[bytes, bytes]) -> None:
        with self._transaction() as connection:
            connection.executemany("INSERT INTO blob VALUES (?, ?) ON CONFLICT DO NOTHING", bodies.items())

    def get(self, name: bytes) -> bytes:
        with self._errors():
            row = self._connection.execute("SELECT data FROM blob WHERE sha256 = ?", (name,)).fetchone()
        return bytes(row[0]) if row else b""

    def has(self, name: bytes) -> bool:
        with self._errors():
            found = self._connection.execute("SELECT 1 FROM blob WHERE sha256 = ?", (name,)).fetchone()
        return found is not None

    def delete(self, name: bytes) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM blob WHERE sha256 = ?", (name,))

    def erase(self, names: list[bytes]) -> None:
        if names:
            with self._transaction() as connection:
                connection.executemany("DELETE FROM blob WHERE sha256 = ?", [(name,) for name in names])
                connection.execute("PRAGMA user_version = 1")  # to be written anew, whatever happens meanwhile

    def scrub(self) -> None:
        if self._number("PRAGMA user_version"):
            with self._errors():
                forget_deleted(self._connection)
                self._connection.execute("PRAGMA user_version = 0")

    def count(self) -> int:
        return self._number("SELECT count(*) FROM blob")

    def used_bytes(self) -> int:
        return PAGE_BYTES * (self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count"))

    def close(self) -> None:
        self._connection.close()

    def _number(self, query: str) -> int:
        with self._errors():
            return int(self._connection.execute(query).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
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


def _name(sha256: str) -> bytes:
    try:
        return bytes.fromhex(sha256)
    except ValueError as error:
        raise StoreError(f"blob {sha256[:80]!r}: expected 64 hex digits") from error
