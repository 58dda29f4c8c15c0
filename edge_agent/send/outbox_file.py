"""What is in the outbox's file, and what if it cannot be read?

    sample    one row per sample, its body inside: (boot, seq) is the order of sending
    counter   what has become of all samples ever put, by name
    state     what the agent keeps from one start to the next: bytes by key

Every commit is on the disk when it returns (WAL, synchronous=FULL: with NORMAL a power cut loses commits). A damaged
file is set aside for a person to look at, never repaired in place and never deleted; a fresh one begins. It counts on
where the other's counters can be read, with what waited there as evicted ("damaged"); where they cannot, it says since
which boot it counts, and the server sees what is missing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from edge_agent.contract.artifact import write_durably
from edge_agent.contract.errors import OutboxError
from edge_agent.send.eviction import FEW_OF_CLASS

log = logging.getLogger(__name__)

SCHEMA = 1  # user_version of a file whose schema is complete
PAGE_BYTES = 4096  # of flash and of SD cards; 16 KB pages write about twice as much for the same samples
BUSY_S = 10.0  # wait for a person who looks inside with a tool that locks; beyond it the put fails and is tried again
TIGHT_BYTES = 1 << 20  # an I/O error with less free than this is taken for a full disk, not for a broken one
INDEXES = {
    "idx_sample_parked_boot_seq": "parked, boot, seq",  # the order of sending
    "idx_sample_parked_utility_boot_seq": "parked, utility, boot, seq",  # of eviction
    "idx_sample_parked_label_boot_seq": "parked, label, boot, seq",  # the newest of a class
}
CLOCK_ZERO_MS = 1_735_689_600_000  # 2025-01-01T00:00:00Z
PUT, ACKED, BOOT, BEGUN = "put_total", "acked_total", "boot", "begun"  # names of counters
EVICTED, DELIVERED = "evicted.", "delivered."  # a reason is appended, a class
PURGED = "purged"  # key of the saved state: how far orders to purge were obeyed
ERASED = "erased"  # the reason for which samples go that somebody wants forgotten
DAMAGED = "damaged"  # the reason for which the samples in a damaged file count as evicted

Connect = Callable[[Path], sqlite3.Connection]


class DiskFullError(OutboxError):
    """A commit found no room on the disk; nothing of it happened."""


class Opened(NamedTuple):
    """A connection that any thread may use (not two at once), in autocommit mode; and what was wrong, "" if nothing."""

    db: sqlite3.Connection
    damage: str


def connect(path: Path) -> sqlite3.Connection:
    """To the file at `path`, which need not be there."""
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def open_file(path: Path, *, now_ms: int, connect: Connect = connect, known: Totals | None = None) -> Opened:
    """Open or make the file; one that is damaged is renamed to `<stem>.corrupt-<now_ms><suffix>` first.

    `known`: the counts by which a fresh one counts on; those in the damaged file when None.

    Raises:
        OutboxError: the file cannot be opened, though it is not damaged: rights, a full disk, a newer schema.
    """
    try:
        return Opened(_open_checked(path, connect), "")
    except (sqlite3.Error, OSError) as error:
        if not is_damaged(error, path.parent):
            raise OutboxError(f"{path}: {error}: expected a folder to write to, with room for a file") from error
        aside = _set_aside(path, now_ms=now_ms, why=str(error))
        damage = f"{error}: set aside as {aside.name}"
    try:
        db = _open_checked(path, connect)
        db.execute("BEGIN IMMEDIATE")
        counters = (known or _counted_in(aside)).begun_anew()
        db.executemany("INSERT INTO counter (name, value) VALUES (?, ?)", counters.items())
        db.execute("COMMIT")
        return Opened(db, damage)
    except (sqlite3.Error, OSError) as error:
        raise OutboxError(f"{path}: {error}, with a fresh file as well") from error


def is_disk_full(error: BaseException, *, free_bytes: int) -> bool:
    """Whether SQLite found no room on a disk with `free_bytes` left; some writes say only "I/O error" then."""
    if "database or disk is full" in str(error):  # sqlite_errorcode exists from Python 3.11 on only
        return True
    return "disk I/O error" in str(error) and free_bytes < TIGHT_BYTES


class Totals(msgspec.Struct):
    """What is in the file, and what has become of every sample ever put."""

    rows: int = 0  # waiting
    parked: int = 0
    bytes: int = 0  # of the bodies of both
    counters: dict[str, int] = {}

    def count(self, name: str, n: int = 1) -> None:
        """Add to a counter."""
        if n:
            self.counters[name] = self.counters.get(name, 0) + n

    def removed(self, *, parked: int, size: int) -> None:
        """One row less, of `size` bytes."""
        self.rows -= 1 - parked
        self.parked -= parked
        self.bytes -= size

    def delivered(self, label: int) -> int:
        """Samples of a class that have their receipt; counted to FEW_OF_CLASS, nobody asks for more."""
        return self.counters.get(f"{DELIVERED}{label}", 0)

    def acked(self, label: int) -> None:
        """The server has a sample of this class."""
        self.count(ACKED)
        if self.delivered(label) < FEW_OF_CLASS:
            self.count(f"{DELIVERED}{label}")

    def arrived(self, label: int, *, evicted: str) -> None:
        """The server has a sample of this class that was evicted on its way, for that reason."""
        self.count(EVICTED + evicted, -1)
        self.acked(label)

    def begun_anew(self) -> dict[str, int]:
        """The counters with which a fresh file begins, in place of one whose rows are lost."""
        begun = Totals(counters=dict(self.counters))
        begun.count(EVICTED + DAMAGED, self.rows + self.parked)
        return begun.counters

    def lost(self, n: int) -> None:
        """Samples put that found no room on the disk."""
        self.count(PUT, n)
        self.count(EVICTED + "disk", n)


class Ledger:
    """Keeps the totals in step with the file, commit by commit, so that nothing ever has to scan it."""

    def __init__(self, db: sqlite3.Connection, *, free_disk_bytes: Callable[[], int]) -> None:
        """Reads the counters, and sums up the rows once."""
        self._db = db
        self._free_disk_bytes = free_disk_bytes
        self._written = dict(db.execute("SELECT name, value FROM counter").fetchall())
        self.totals = Totals(counters=dict(self._written))
        for parked, rows, size in db.execute("SELECT parked, count(*), sum(bytes) FROM sample GROUP BY parked"):
            self.totals.parked += rows if parked else 0
            self.totals.rows += 0 if parked else rows
            self.totals.bytes += size

    @contextlib.contextmanager
    def commit(self) -> Iterator[Totals]:
        """One durable transaction. The totals it yields may be changed; they come into force with the commit.

        Raises:
            DiskFullError: there is no room; the transaction was undone.
            sqlite3.Error: of any other kind; undone as well.
        """
        draft = msgspec.structs.replace(self.totals, counters=dict(self.totals.counters))
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield draft
            changed = draft.counters.items() - self._written.items()
            self._db.executemany("INSERT OR REPLACE INTO counter (name, value) VALUES (?, ?)", changed)
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:  # SQLite rolls back by itself when the disk is full
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and is_disk_full(error, free_bytes=self._free_disk_bytes()):
                self._empty_log()
                raise DiskFullError(f"no room on the disk: {error}") from error
            raise
        self.totals = draft
        self._written = dict(draft.counters)

    def _empty_log(self) -> None:
        """Move the log into the file, so that on a full disk the next commit may find room in it."""
        with contextlib.suppress(sqlite3.Error):  # may find no room either; nothing is lost by trying
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def forget_deleted(db: sqlite3.Connection, path: Path) -> None:
    """Leave no byte of rows that were deleted: SQLite keeps them in free pages, in slack and in its log.

    The file is written anew, the log cut to nothing, and damaged files beside it are deleted. sqlite3.Error when that
    cannot be; then it is to be done again.
    """
    db.execute("VACUUM")
    busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if busy:
        raise sqlite3.OperationalError("database is locked: somebody reads it, and its log cannot be emptied")
    for aside in path.parent.glob(f"{path.stem}.corrupt-*"):
        aside.unlink(missing_ok=True)


def next_boot(path: Path, recorded: int, *, now_ms: int) -> int:
    """A boot number that was never used before, written durably beside `path`.

    A number used twice would make two samples share an id, and the server would take the second for a duplicate of
    the first. So it is larger than each of three witnesses, of which the loss of any two does no harm: `recorded` in
    the file, the record beside it, and the seconds since 2025 (after the whole folder is lost, or an old image of it
    came back). Only a device that loses its folder *and* has no clock can repeat itself.

    Raises:
        OutboxError: the record cannot be written.
    """
    beside = path.with_suffix(".boot")
    try:
        known = int(beside.read_text(encoding="ascii"))
    except (OSError, ValueError):
        known = 0
    boot = max(recorded, known, (now_ms - CLOCK_ZERO_MS) // 1000, 0) + 1
    try:
        write_durably(beside, b"%d\n" % boot)
    except OSError as error:
        raise OutboxError(f"{beside}: {error.strerror}: the boot number must be kept") from error
    return boot


def _open_checked(path: Path, connect: Connect) -> sqlite3.Connection:
    db = connect(path)
    try:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(
            "PRAGMA secure_delete = FAST"
        )  # some builds write zeros over each body that goes: as much wear again
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"quick_check: {' '.join(verdict.split())}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise OutboxError(
                f"{path}: schema {version} is of a newer agent, this one knows {SCHEMA}: update the agent"
            )
        if version < SCHEMA:
            _make_schema(db)
        _make_indexes(db)
    except BaseException:
        db.close()
        raise
    return db


def _make_schema(connection: sqlite3.Connection) -> None:
    import sqlite_utils  # slow to import, and needed once in the life of a file

    # Never by path: sqlite-utils may bring a second SQLite library (pysqlite3) into this process, and two of them do
    # not see each other's locks on one file; the one that closes removes the log under the other.
    db = sqlite_utils.Database(connection)
    # The body comes last: columns behind it would be read through all its pages.
    columns = {
        "id": str, "boot": int, "seq": int, "label": int, "utility": float, "bytes": int, "put_at_ms": int,
        "parked": int, "refusal": str, "header": bytes, "body": bytes,
    }  # fmt: skip
    db.table("sample").create(columns, pk="id", not_null=columns.keys() - {"utility"}, if_not_exists=True)
    db.table("counter").create({"name": str, "value": int}, pk="name", if_not_exists=True)
    db.table("state").create({"key": str, "value": bytes}, pk="key", if_not_exists=True)
    db.execute(f"PRAGMA user_version = {SCHEMA}")


def _make_indexes(db: sqlite3.Connection) -> None:
    """At every opening: a file may be of an agent that knew fewer. One that knows fewer does not mind them."""
    for name, columns in INDEXES.items():
        db.execute(f"CREATE INDEX IF NOT EXISTS {name} ON sample ({columns})")


def free_bytes(folder: Path) -> int:
    """That a program without privileges may still write to the file system of a folder."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def is_damaged(error: Exception, folder: Path) -> bool:
    """Whether a file in `folder` is, by what SQLite said of it.

    SQLITE_CORRUPT and SQLITE_NOTADB come as a plain DatabaseError, a sector that cannot be read as an I/O error.
    """
    if type(error) is sqlite3.DatabaseError:
        return True
    return "disk I/O error" in str(error) and free_bytes(folder) >= TIGHT_BYTES


def _set_aside(path: Path, *, now_ms: int, why: str) -> Path:
    aside = path.with_name(f"{path.stem}.corrupt-{now_ms}{path.suffix}")
    log.warning("outbox: %s: %s: set aside as %s, a fresh one begins", path, why, aside.name)
    for tail in ("", "-wal", "-shm"):
        here = path.with_name(path.name + tail)
        try:
            here.rename(aside.with_name(aside.name + tail))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutboxError(f"{here}: damaged, and cannot be set aside: {error.strerror}") from error
    return aside


def _counted_in(aside: Path) -> Totals:
    """What a damaged file says of itself, all that was in it as rows; nothing where that is unreadable or nonsense."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(aside))}?mode=ro", uri=True)) as db:
            counters = dict(db.execute("SELECT name, value FROM counter").fetchall())
    except sqlite3.Error:
        return Totals()
    if not all(isinstance(name, str) and isinstance(n, int) and n >= 0 for name, n in counters.items()):
        return Totals()
    gone = sum(n for name, n in counters.items() if name.startswith(EVICTED)) + counters.get(ACKED, 0)
    waited = counters.get(PUT, 0) - gone
    return Totals(rows=waited, counters=counters) if waited >= 0 else Totals()
