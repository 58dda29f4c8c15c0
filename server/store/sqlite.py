"""How is a catalogue in a file kept?

One writer at a time, in every process and across processes (`BEGIN IMMEDIATE`), any number of readers. A write that
returned is on disk: WAL with `synchronous=FULL`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from server.errors import StoreError
from server.store.encoded import dumps, loads

try:  # carries a current SQLite; Python's own may have the WAL-reset bug (< 3.51.3, sqlite.org/wal.html)
    from pysqlite3 import dbapi2 as sqlite3
except ImportError:  # pragma: no cover - where no wheel of it exists
    import sqlite3

__all__ = ["BUSY_S", "CACHE_KB", "Sqlite", "bind_as_it_is", "forget_deleted", "keep_journal", "sqlite3"]

BUSY_S = 30.0
AGAIN_S = 0.01
CACHE_KB = 32 * 1024  # of a connection at most: less, and what is written in all places is read again for each group
LOG_PAGES = 8000  # 32 MB: fewer, and a page that every group writes to is copied as often; more is read after a crash
ANALYSED_ROWS = 400  # of each index: fewer misjudges what is uneven, more takes longer for no better plan


class Sqlite:
    """One file."""

    def __init__(self, path: Path) -> None:
        """Open or make it; its folder must exist."""
        self.name = str(path)
        self._path = path
        self.engine = sa.create_engine(
            f"sqlite:///{path}",
            module=sqlite3,
            connect_args={"timeout": BUSY_S, "check_same_thread": False},
            json_serializer=dumps,
            json_deserializer=loads,
            pool_use_lifo=True,  # who writes again finds the pages that it wrote in its own memory
        )
        sa.event.listen(self.engine, "connect", _configure)
        sa.event.listen(self.engine, "begin", _begin)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, *, together: bool) -> Iterator[sa.Connection]:  # noqa: ARG002 - a file has one writer
        """A transaction that nobody writes beside."""
        with self.engine.connect() as plain:
            connection = plain.execution_options(winnow_write=True)
            with connection.begin():
                yield connection

    def beside(self) -> AbstractContextManager[sa.Connection]:
        """As any other."""
        return self.writing(together=False)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def others(self) -> int:
        """1 when anybody else has it open, whatever folder's lock he holds: then it cannot leave WAL. 0: nobody."""
        if not self._path.exists():
            return 0
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=0.0, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode=DELETE")
                keep_journal(connection, "WAL")
        except sqlite3.Error as error:  # one that is no database, too
            if "locked" not in str(error):
                raise StoreError(f"{self.name}: {error}") from error
            return 1
        return 0

    def analyse(self) -> None:
        """Sampled (`analysis_limit`): a fraction of a second, however many rows there are."""
        with self.writing(together=False) as connection:
            connection.exec_driver_sql(f"PRAGMA analysis_limit={ANALYSED_ROWS}")
            connection.exec_driver_sql("ANALYZE")

    def used_bytes(self) -> int:
        """Of the file; free pages, which are used again, not counted."""
        with self.reading() as connection:
            names = ("page_count", "freelist_count", "page_size")
            pages, free, size = (int(connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0) for name in names)
            return (pages - free) * size

    def copy_to(self, path: Path) -> None:
        """One transaction, which keeps no writer waiting; what was deleted is not in it."""
        with contextlib.closing(self.engine.raw_connection()) as connection:
            path.unlink(missing_ok=True)
            try:
                connection.cursor().execute("VACUUM INTO ?", (str(path),))
                _flush(path)
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{path}: {error}") from error

    def forget_deleted(self) -> None:
        """Leave no byte of rows that were deleted in the file, nor in its log. StoreError: to be done again."""
        with contextlib.closing(self.engine.raw_connection()) as connection:
            try:
                forget_deleted(connection.driver_connection)
            except sqlite3.Error as error:
                raise StoreError(f"{self.name}: {error}") from error


def _configure(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: see _begin
    keep_journal(connection, "WAL")
    settings = (f"cache_size=-{CACHE_KB}", f"wal_autocheckpoint={LOG_PAGES}")
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON", *settings):
        connection.execute(f"PRAGMA {pragma}")


def bind_as_it_is() -> None:
    """For every connection of this process: None and bytes are taken as quickly as numbers.

    Of each the driver asks the object, the protocol and the type in vain how it is to be adapted, for 2 us. Where there
    is an adapter it calls that: each of these gives back what it is given, and none is written in Python.
    """
    sqlite3.register_adapter(type(None), {}.get)
    sqlite3.register_adapter(bytes, bytes)
    sqlite3.register_adapter(memoryview, memoryview)


def forget_deleted(connection: Any) -> None:
    """Write a file anew and cut its log to nothing; sqlite3.Error when that cannot be.

    `secure_delete` writes zeros over what is deleted; what is left of it in the slack of pages that were put together,
    and in the log, goes with this.
    """
    connection.execute("VACUUM")
    until_s = time.monotonic() + BUSY_S
    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:  # somebody reads an older state
        if time.monotonic() > until_s:
            raise sqlite3.OperationalError("database is locked: its log cannot be emptied while somebody reads it")
        time.sleep(AGAIN_S)


def _flush(path: Path) -> None:
    for one in (path, path.parent):
        handle = os.open(one, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def keep_journal(connection: Any, kind: Literal["WAL", "TRUNCATE"]) -> None:
    """Of two that turn a file to or from WAL at once, SQLite tells one "locked" without waiting: it tries again."""
    until_s = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode={kind}")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until_s:
                raise
            time.sleep(AGAIN_S)


def _begin(connection: sa.Connection) -> None:
    # A reader that turns writer in mid-transaction fails at once with SQLITE_BUSY: writers say so from the start.
    writing = connection.get_execution_options().get("winnow_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
