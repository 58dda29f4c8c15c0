"""Where does a selected sample wait until the server has it?

In one SQLite file (outbox_file.py), from one durable commit until its receipt. What always holds:

    put_total = rows + parked + acked_total + sum(evicted)

`rows` wait for a receipt. `parked` were refused by the server: kept to be looked at, never sent again, and the first to
be evicted. Both count against the limits on bytes and rows; past a limit the least useful goes, counted by reason in
the same commit. Too little free disk is a limit as well: what is here may not grow, and a sample is kept only in the
place of less useful ones. A full disk is an expected state, not an error: what finds no room is counted, and storing
resumes by itself. What is evicted while it is on its way may arrive after all: by its receipt it counts as acked.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from edge_agent.contract.errors import OutboxError
from edge_agent.contract.types import SampleId
from edge_agent.contract.wire import PARKED_SHOWN, OutboxState, Purged, SampleHeader
from edge_agent.send.eviction import Limits, least_useful
from edge_agent.send.outbox_file import (
    ACKED,
    BEGUN,
    BOOT,
    CLOCK_ZERO_MS,
    ERASED,
    EVICTED,
    PURGED,
    PUT,
    Connect,
    DiskFullError,
    Ledger,
    Totals,
    connect,
    forget_deleted,
    free_bytes,
    is_damaged,
    next_boot,
    open_file,
)

log = logging.getLogger(__name__)

LATE = 1000  # of the last evicted, those whose receipt is still known for one: more than are ever on their way


class Put(NamedTuple):
    """A sample on its way in: its header (of part 0 of 1) and its whole encoded body."""

    header: SampleHeader
    body: bytes


class Waiting(NamedTuple):
    """A sample that waits for its receipt."""

    header: SampleHeader
    body: bytes


class _Evicted(NamedTuple):
    reason: str
    label: int


class Outbox:
    """Bounded, durable, in order of (boot, seq). Any thread may call anything; one lock guards it all.

    Every method raises OutboxError when SQLite fails; only `put` takes a full disk for an expected outcome. A file that
    turns out damaged is set aside, and the next call finds a fresh one.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        max_rows: int,
        min_free_disk_bytes: int,
        free_disk_bytes: Callable[[], int] | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
        connect: Connect = connect,
        on_damage: Callable[[str], None] = lambda _damage: None,
    ) -> None:
        """Open or make the file at `path`; a damaged one is set aside, and `damage` says so.

        Args:
            path: of the SQLite file; its folder must exist.
            max_bytes: of bodies kept, parked ones included.
            max_rows: samples kept, parked ones included.
            min_free_disk_bytes: free disk below which the outbox does not grow.
            free_disk_bytes: how much is free; the file system that holds `path` when None.
            now_ms: the wall clock, ms since 1970; for ages and boot numbers, never for an order.
            monotonic: seconds; what is left of an age where the wall clock was wrong.
            connect: opens the file.
            on_damage: is told what was set aside later, with the lock held.
        """
        self._path = path
        self._limits = Limits(max_rows, max_bytes)
        self._min_free_disk_bytes = min_free_disk_bytes
        self._free_disk_bytes = free_disk_bytes or (lambda: free_bytes(path.parent))
        self._now_ms, self._monotonic = now_ms, monotonic
        self._opened_s = monotonic()
        self._lock = threading.Lock()
        self._storing = True
        self._evicted: dict[str, _Evicted] = {}  # the last ones of this run, by id
        self._state: dict[str, bytes] = {}  # as it stands in the file, as far as this run wrote it
        self._connect, self._on_damage = connect, on_damage
        self._db, self.damage = open_file(path, now_ms=now_ms(), connect=connect)
        self._to_reopen = False
        self._ledger = Ledger(self._db, free_disk_bytes=self._free_disk_bytes)
        self._purged = self._read_purged()

    def next_boot(self) -> int:
        """Begin a new boot: a number that was never returned before, recorded durably."""
        with self._held():
            boot = next_boot(self._path, self._ledger.totals.counters.get(BOOT, 0), now_ms=self._now_ms())
            with self._ledger.commit() as totals:
                if not totals.counters.keys() & {BOOT, PUT}:
                    totals.counters[BEGUN] = boot
                totals.counters[BOOT] = boot
            return boot

    def has_room(self) -> bool:
        """Whether more of the disk is free than is to be left so."""
        return self._free_disk_bytes() >= self._min_free_disk_bytes

    def put(self, rows: Sequence[Put], *, state: Mapping[str, bytes] = {}) -> bool:
        """Keep samples and the agent's state in one durable commit; evicts by rule when a limit is passed.

        An id that already waits is not stored again. With too little free disk rows are kept only in the place of
        less useful ones, and what goes is counted as "disk"; with none, so that even the state cannot be kept, the new
        rows go, their count waits in memory for the next commit, and False is returned. State that is as it was is not
        written again: a flash card wears by the page.
        """
        with self._held():
            changed = {key: value for key, value in state.items() if self._state.get(key) != value}
            if not (rows or changed):
                return True
            room = self.has_room()
            # After the first time the log is in the file, where there may be room.
            done = self._commit(rows, changed, room=room) or self._commit(rows, changed, room=room)
            if not done:
                self._ledger.totals.lost(len(rows))
            self._say_storing(room and done)
            return done

    def state(self, key: str) -> bytes | None:
        """What the last durable `put` stored under `key`."""
        with self._held():
            row = self._db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
            return None if row is None else bytes(row[0])

    def peek(self, limit: int, *, exclude: Container[str] = ()) -> list[Waiting]:
        """The first `limit` waiting samples in order of (boot, seq), without those whose id is in `exclude`."""
        found: list[Waiting] = []
        unreadable: list[tuple[str, str]] = []
        with self._held():
            ids = self._db.execute("SELECT id FROM sample WHERE parked = 0 ORDER BY boot, seq")
            for (id_,) in ids:
                if len(found) >= limit:
                    break
                try:
                    if id_ not in exclude and (waiting := self._read(id_)) is not None:
                        found.append(waiting)
                except msgspec.DecodeError as error:
                    unreadable.append((id_, f"its header cannot be read: {error}"))
            ids.close()
            for id_, reason in unreadable:  # a worn-out disk; one such row must not hold up those behind it
                self._park(id_, reason)
        return found

    def get(self, id_: str) -> Waiting | None:
        """The sample of this id, or None: acked, evicted or parked meanwhile."""
        with self._held(), contextlib.suppress(msgspec.DecodeError):  # `peek` parks it
            return self._read(id_)
        return None

    def ack(self, ids: Collection[str]) -> int:
        """Forget samples that the server has; returns how many were here. Unknown ids are ignored."""
        with self._held():
            late = [self._evicted[id_] for id_ in ids if id_ in self._evicted]
            with self._ledger.commit() as totals:
                labels = [label for id_ in ids if (label := self._remove(totals, id_)) is not None]
                for label in labels:
                    totals.acked(label)
                for reason, label in late:
                    totals.arrived(label, evicted=reason)
            for id_ in ids:
                self._evicted.pop(id_, None)
            return len(labels)

    def park(self, id_: str, reason: str) -> bool:
        """Keep a sample that the server refused for good, but never send it again; False when it does not wait here."""
        with self._held():
            return self._park(id_, reason)

    def erase(self, ids: Collection[str] | None) -> int:
        """Forget samples, waiting or parked, so that no byte of them is left in the file; None: all. Returns how many.

        Damaged files that were set aside go, too: nobody knows what is in them. They count as evicted ("erased").
        """
        with self._held():
            self._db.execute("PRAGMA secure_delete = ON")
            with self._ledger.commit() as totals:
                wanted = ids if ids is not None else [id_ for (id_,) in self._db.execute("SELECT id FROM sample")]
                gone = sum(self._remove(totals, id_) is not None for id_ in wanted)
                totals.count(EVICTED + ERASED, gone)
            forget_deleted(self._db, self._path)
            return gone

    def purged(self, said: Purged) -> None:
        """An order to purge was obeyed: the next word to the server says so, and so does the next run's."""
        self.put([], state={PURGED: msgspec.json.encode(said)})
        self._purged = said

    def parked(self) -> list[tuple[str, str]]:
        """(id, reason) of the refused samples, in order of (boot, seq)."""
        with self._held():
            return self._db.execute("SELECT id, refusal FROM sample WHERE parked = 1 ORDER BY boot, seq").fetchall()

    def status(self) -> OutboxState:
        """How full it is. Cheap: running sums and one look at the first waiting row."""
        with self._held():
            oldest = self._db.execute("SELECT put_at_ms FROM sample WHERE parked = 0 ORDER BY boot, seq LIMIT 1")
            first = oldest.fetchone()
            totals, counters = self._ledger.totals, self._ledger.totals.counters
            return OutboxState(
                rows=totals.rows,
                bytes=totals.bytes,
                oldest_age_s=self._age_s(first[0]) if first else 0.0,
                evicted={key.removeprefix(EVICTED): n for key, n in counters.items() if key.startswith(EVICTED)},
                parked=totals.parked,
                put_total=counters.get(PUT, 0),
                acked_total=counters.get(ACKED, 0),
                storing=self._storing,
                since_boot=counters.get(BEGUN, 0),
                refusals=self._refusals() if totals.parked else {},
                purged=self._purged,
            )

    def close(self) -> None:
        """Close the file; nothing may be called afterwards."""
        with self._held():
            self._db.close()

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        with self._lock:
            try:
                if self._to_reopen:
                    self._reopen()
                yield
            except (sqlite3.Error, OSError) as error:
                if is_damaged(error, self._path.parent):
                    self._to_reopen = True
                    self._reopen()
                raise OutboxError(f"{self._path}: {error}") from error

    def _reopen(self) -> None:
        """The file, if it is whole after all; else a fresh one, that counts on."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        totals = self._ledger.totals
        self._db, damage = open_file(self._path, now_ms=self._now_ms(), connect=self._connect, known=totals)
        self._ledger = Ledger(self._db, free_disk_bytes=self._free_disk_bytes)
        self._state, self._to_reopen = {}, False
        if damage:
            self._on_damage(damage)

    # --- rows -------------------------------------------------------------------------------------------------------

    def _commit(self, rows: Sequence[Put], changed: dict[str, bytes], *, room: bool) -> bool:
        """False when the disk is full."""
        try:
            with self._ledger.commit() as totals:
                evicted = self._store(totals, rows, room=room)
                self._db.executemany("INSERT OR REPLACE INTO state (key, value) VALUES (?, ?)", changed.items())
        except DiskFullError:
            return False
        self._state |= changed
        self._evicted |= evicted
        for id_ in list(self._evicted)[:-LATE]:
            del self._evicted[id_]
        return True

    def _store(self, totals: Totals, rows: Sequence[Put], *, room: bool) -> dict[str, _Evicted]:
        """Returns what was evicted for it, by id."""
        limits = self._limits
        if not room:
            limits = Limits(min(limits.rows, totals.rows + totals.parked), min(limits.bytes, totals.bytes))
        for header, body in rows:
            if len(body) > limits.bytes:  # would push out everything else first, and then itself
                totals.count(PUT)
                totals.count(EVICTED + ("full_bytes" if room else "disk"))
                continue
            if self._insert(header, body):
                totals.count(PUT)
                totals.rows += 1
                totals.bytes += len(body)
        evicted = dict[str, _Evicted]()
        while passed := limits.passed(rows=totals.rows + totals.parked, size=totals.bytes):
            victim = least_useful(self._db, delivered=totals.delivered)
            label = self._remove(totals, victim)
            if label is None:
                raise sqlite3.IntegrityError(f"{totals.rows} rows and {totals.bytes} bytes counted that are not there")
            evicted[victim] = _Evicted(f"full_{passed}" if room else "disk", label)
            totals.count(EVICTED + evicted[victim].reason)
        return evicted

    def _insert(self, header: SampleHeader, body: bytes) -> int:
        """1, or 0 when the id is already here. A utility that is not a number is stored as NULL, the least of all."""
        id_ = SampleId.parse(header.id)
        insert = (
            "INSERT INTO sample (id, boot, seq, label, utility, bytes, put_at_ms, parked, refusal, header, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 0, '', ?, ?) ON CONFLICT (id) DO NOTHING"
        )
        known = (header.id, id_.boot, id_.seq, header.label, header.selection.utility, len(body), self._now_ms())
        return self._db.execute(insert, (*known, msgspec.msgpack.encode(header), body)).rowcount

    def _remove(self, totals: Totals, id_: str) -> int | None:
        """Its predicted class, or None when it is not here."""
        row = self._db.execute("SELECT parked, bytes, label FROM sample WHERE id = ?", (id_,)).fetchone()
        if row is None:
            return None
        self._db.execute("DELETE FROM sample WHERE id = ?", (id_,))
        totals.removed(parked=row[0], size=row[1])
        return int(row[2])

    def _read(self, id_: str) -> Waiting | None:
        row = self._db.execute("SELECT header, body FROM sample WHERE id = ? AND parked = 0", (id_,)).fetchone()
        return None if row is None else Waiting(msgspec.msgpack.decode(row[0], type=SampleHeader), row[1])

    def _park(self, id_: str, reason: str) -> bool:
        change = "UPDATE sample SET parked = 1, refusal = ? WHERE id = ? AND parked = 0"
        with self._ledger.commit() as totals:
            parked = self._db.execute(change, (reason, id_)).rowcount
            totals.rows -= parked
            totals.parked += parked
            return bool(parked)

    def _read_purged(self) -> Purged | None:
        saved = self.state(PURGED)
        try:
            return None if saved is None else msgspec.json.decode(saved, type=Purged)
        except msgspec.DecodeError as error:  # of a newer agent; the server asks again
            log.warning("outbox: %s: what was purged cannot be read: %s", self._path, error)
            return None

    def _age_s(self, put_at_ms: int) -> float:
        """Since a row was put. A clock that was wrong, then or now, says nothing: it is as old as this run at least."""
        age_s = (self._now_ms() - put_at_ms) / 1000.0
        if put_at_ms < CLOCK_ZERO_MS or age_s < 0.0:
            return self._monotonic() - self._opened_s
        return age_s

    def _refusals(self) -> dict[str, str]:
        newest = "SELECT id, substr(refusal, 1, 200) FROM sample WHERE parked = 1 ORDER BY boot DESC, seq DESC LIMIT ?"
        return dict(self._db.execute(newest, (PARKED_SHOWN,)).fetchall())

    def _say_storing(self, storing: bool) -> None:
        if storing != self._storing:
            what = "storing again" if storing else "disk full, a sample is kept only in the place of a less useful one"
            log.warning("outbox: %s: %s", self._path, what)
        self._storing = storing
