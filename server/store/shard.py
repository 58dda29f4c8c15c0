"""How are bytes kept in one SQLite file?

With a journal of what a commit writes over, not in WAL: bodies are written once, to where they stay. In WAL they are
written twice. Who reads in another process waits while a commit is flushed. The journal is cut to nothing, which is
flushed too: were it deleted, it might be back after a power cut, and undo what was committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from server.errors import StoreError
from server.store.many import of_several, pieces
from server.store.sqlite import BUSY_S, CACHE_KB, forget_deleted, keep_journal, sqlite3

NAMES_AT_ONCE = 1000
PAGE_BYTES = 16 * 1024  # of a shard: bodies are some 20 KB; smaller pages mean longer chains of them

Named = dict[bytes, bytes | memoryview]
"""Bodies by the bytes of their names."""
PIECE_BYTES = 1 << 20  # to a statement: SQLite has a copy of them, and keeps the last one
_PUT = "INSERT INTO blob VALUES (?, ?) ON CONFLICT DO NOTHING"
_OF_SEVERAL = of_several(_PUT)
_SETTINGS = (
    f"PRAGMA page_size={PAGE_BYTES}",  # before the first page is written, or it has no effect
    "PRAGMA synchronous=FULL",
    "PRAGMA secure_delete=ON",
    f"PRAGMA cache_size=-{CACHE_KB}",  # more than a commit writes: what does not fit is flushed before its time
    "CREATE TABLE IF NOT EXISTS blob (sha256 BLOB PRIMARY KEY, data BLOB NOT NULL)",
)


class Shard:
    """One file."""

    def __init__(self, path: Path) -> None:
        """Open or make it. Every method raises StoreError when the file cannot be read or written."""
        self.path = path
        with self._errors():
            self._connection: Any = sqlite3.connect(
                str(path), timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            keep_journal(self._connection, "TRUNCATE")
            for statement in _SETTINGS:
                self._connection.execute(statement)

    def put(self, bodies: Named) -> None:
        """In a transaction."""
        most = PIECE_BYTES // max((1, *map(len, bodies.values())))
        with self._errors():
            for some in pieces(list(bodies.items()), [size for size in _OF_SEVERAL if size <= most]):
                if text := _OF_SEVERAL.get(len(some)):
                    self._connection.execute(text, list(chain.from_iterable(some)))
                else:
                    self._connection.executemany(_PUT, some)

    def get(self, name: bytes) -> bytes:
        """The bytes of that name; b"" where there are none."""
        with self._errors():
            row = self._connection.execute("SELECT data FROM blob WHERE sha256 = ?", (name,)).fetchone()
        return bytes(row[0]) if row else b""

    def has(self, name: bytes) -> bool:
        """Whether bytes of that name are in it."""
        return any(self.among([name]))

    def among(self, names: list[bytes]) -> Iterator[bytes]:
        """Those of them that are in it."""
        for start in range(0, len(names), NAMES_AT_ONCE):
            some = names[start : start + NAMES_AT_ONCE]
            query = f"SELECT sha256 FROM blob WHERE sha256 IN ({','.join('?' * len(some))})"  # noqa: S608
            with self._errors():
                yield from [bytes(name) for (name,) in self._connection.execute(query, some)]

    def names(self, after: bytes, count: int) -> list[bytes]:
        """The next so many names beyond `after`, in order."""
        query = "SELECT sha256 FROM blob WHERE sha256 > ? ORDER BY sha256 LIMIT ?"
        with self._errors():
            return [bytes(name) for (name,) in self._connection.execute(query, (after, count))]

    def erase(self, names: list[bytes], *, mark: bool) -> None:
        """Delete them, overwriting; `mark`: the file is to be written anew."""
        if names:
            with self.transaction() as connection:
                connection.executemany("DELETE FROM blob WHERE sha256 = ?", [(name,) for name in names])
                if mark:
                    connection.execute("PRAGMA user_version = 1")  # to be written anew, whatever happens meanwhile

    def scrub(self, *, always: bool) -> None:
        """Write the file anew where that is to be, or `always`."""
        if always or self._number("PRAGMA user_version"):
            with self._errors():
                forget_deleted(self._connection)
                self._connection.execute("PRAGMA user_version = 0")

    def count(self) -> int:
        """How many bodies are in it."""
        return self._number("SELECT count(*) FROM blob")

    def used_bytes(self) -> int:
        """Of pages that hold something."""
        return PAGE_BYTES * (self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count"))

    def free_bytes(self) -> int:
        """Of pages that hold nothing now."""
        return PAGE_BYTES * self._number("PRAGMA freelist_count")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _number(self, query: str) -> int:
        with self._errors():
            return int(self._connection.execute(query).fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Nobody else writes to it meanwhile; on the disk when the block ends, undone when it raises."""
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
