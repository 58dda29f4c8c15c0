"""What happens when something is to be forgotten?

    in one transaction    snapshots are sealed, tombstones set, every row that tells of it goes, devices are told to
                          purge, the trail says who and why
    then                  its bytes are deleted, unless another sample has the same, and every file that held some is
                          written anew: nothing is left in free pages, in slack or in logs

From the first moment on it is refused when it comes again. A command that is killed in between has forgotten it all
the same; `finish` is done again until the bytes are gone. What a model learned stays in its weights: `learned` names
the versions, which are to be trained again from scratch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from server.govern import answers, goldens, membership, reports, told
from server.govern.foreseen import carried_away
from server.govern.membership import Left
from server.govern.scrub import finish
from server.govern.subject import Subject, check, chosen
from server.store import erasures, identities, named, passing, questions, removed, runs, trail
from server.store.erasures import Erasure
from server.store.schema import (
    card,
    device,
    metadata,
    part,
    quarantine,
    reference,
    sample,
    version,
)
from server.store.store import Store
from server.store.text import begins, holds

KEPT = {"device", "token", "certificate", "revocation", "rollout_step", "data_rule"}
KEPT |= {"sample", "erased_device", "purge_order", "device_order"}
"""Tables with a column `device` whose rows stay when a device is erased: who it is, that it is shut out, what may be
done with what it sends, and what it was ordered. All others go by that column; `sample` goes by its ids."""


class Erased(NamedTuple):
    """What became of it."""

    id: int
    counts: dict[str, int]  # table -> rows that went
    learned: tuple[int, ...]  # versions that learned from it, or went on from one that did: to be trained again
    judged: tuple[int, ...]  # versions that were judged by it
    ordered: tuple[str, ...]  # devices that are told to purge
    elsewhere: tuple[str, ...]  # copies that somebody took away: nobody but them can erase those
    unsound: tuple[str, ...]  # snapshots that were not what their ids say, before anything was taken out


def erase(store: Store, subject: Subject, *, who: str, why: str, now_ms: int) -> Erased:
    """Forget it. GovernError when there is no such thing; StoreError when the disk fails: `finish` is due then."""
    with store.database.write() as connection:
        check(connection, subject)
        erasures.make_key(connection)
    with store.database.read() as connection:  # it takes a while, and ingest needs the right to write
        ready = membership.prepare(connection, subject)
    with store.database.write() as connection:
        done = _Act(store, connection, subject, ready, now_ms).run(who=who, why=why)
    finish(store, now_ms=now_ms)
    return done


class _Act:
    """One erasure, inside its transaction."""

    def __init__(
        self, store: Store, connection: sa.Connection, subject: Subject, ready: Mapping[str, str], now_ms: int
    ) -> None:
        self._store, self._connection = store, connection
        self._subject, self._ready, self._now_ms = subject, ready, now_ms
        self._key = erasures.make_key(connection)
        self._counts: Counter[str] = Counter()
        self._chosen = chosen(subject)

    def run(self, *, who: str, why: str) -> Erased:
        connection, kind = self._connection, self._subject.kind
        going = () if kind == "labeler" else self._going()
        ids = {row.id for row in going}
        hashes = {erasures.keyed(self._key, row.id) for row in going}
        if kind == "sample":
            hashes |= {erasures.keyed(self._key, name) for name in self._subject.names}
        if kind == "labeler":
            hashes |= {erasures.keyed(self._key, key) for key in answers.keys(connection, self._subject.names[0])}
        number = erasures.insert_erasure(connection, self._row(going, hashes, who, why))
        left = membership.leave(connection, self._subject, number, self._ready)
        self._counts.update(left.counts)
        learned = tuple(n for n, by in erasures.learned(connection).items() if number in by)
        named.doom(self._connection, [row.body_sha256 for row in going])
        self._doom_derived(going, left, learned)
        self._leave_reports(ids, left)
        erasures.bury(connection, number, hashes)
        self._delete_rows(ids)
        ordered, counts = self._order(number), dict(+self._counts)
        erasures.count(connection, number, counts)
        judged, elsewhere = self._versions(left.holdout), carried_away(connection, left.members)
        done = Erased(number, counts, learned, judged, ordered, elsewhere, left.unsound)
        self._record(done, who, why, erasures.digest(hashes))
        return done

    def _going(self) -> Sequence[Any]:
        return self._connection.execute(sa.select(sample).where(sample.c.id.in_(self._chosen))).all()

    def _row(self, going: Sequence[Any], hashes: Iterable[str], who: str, why: str) -> Erasure:
        boots: dict[str, Counter[str]] = defaultdict(Counter)
        for row in going:
            if row.origin == "device":
                boots[row.device][str(row.boot)] += 1
        if self._subject.kind == "device":  # what is left of those that were not kept goes too
            for name, counts in removed.by_boot(self._connection, self._subject.names[0]).items():
                boots[name].update({str(boot): number for boot, number in counts.items()})
        return Erasure(
            id=erasures.next_id(self._connection),
            at_ms=self._now_ms,
            kind=self._subject.kind,
            subject=self._pseudonym(),
            who=who,
            why=why,
            counts={},
            boots={name: dict(counts) for name, counts in boots.items()},
            sha256=erasures.digest(hashes),
            finished_at_ms=None,
        )

    def _pseudonym(self) -> str:
        """A device is a thing and has its name; ids and people have a keyed hash."""
        names = self._subject.names
        return names[0] if self._subject.kind == "device" else erasures.keyed(self._key, "\n".join(names))

    def _versions(self, snapshot_ids: Collection[str]) -> tuple[int, ...]:
        query = sa.select(version.c.number).where(version.c.snapshot_id.in_(snapshot_ids)).order_by(version.c.number)
        return tuple(self._connection.scalars(query))

    def _doom_derived(self, going: Sequence[Any], left: Left, learned: Sequence[int]) -> None:
        """What was made of it: cards that tell of it, references computed on it, golden inputs that are it."""
        connection = self._connection
        of = sa.select(version.c.number).where(version.c.snapshot_id.in_(left.members))
        for table, where in (
            (card, sa.or_(card.c.version.in_(of), card.c.version.in_(learned))),
            (reference, sa.literal(any(row.origin == "import" and row.split == "holdout" for row in going))),
        ):
            named.doom(connection, connection.scalars(sa.select(table.c.body_sha256).where(where)))
            self._delete(table, where)
        _stop_runs(connection, left.members, self._now_ms)
        redacted = goldens.redact(self._store, connection, going)
        named.doom(connection, redacted)
        if redacted:
            self._counts["golden inputs"] = len(redacted)

    def _leave_reports(self, ids: set[str], left: Left) -> None:
        """What reports of rounds say of it by name has its hash instead."""
        if self._subject.kind == "labeler":
            name = self._subject.names[0]
            changed = reports.leave_gates(self._connection, name, pseudonym=self._pseudonym())
        else:
            names = {one: erasures.keyed(self._key, one) for one in ids}
            changed = reports.leave_ids(self._connection, names, left.members | left.left_out)
        if changed:
            self._counts["reports"] = changed

    def _delete_rows(self, ids: set[str]) -> None:
        """Every row that tells of it, whatever table it is in: those that refer to others first."""
        kind, names = self._subject.kind, self._subject.names
        if kind == "labeler":
            self._counts.update(answers.delete(self._connection, names[0]))
            return
        if kind == "device":
            for table in reversed(metadata.sorted_tables):
                if "device" in table.c and table.name not in KEPT:
                    self._delete(table, table.c.device == names[0])
        for column in passing.pointing():
            self._delete(column.table, column.in_(self._chosen))
        questions.forget(self._connection, ids)
        self._delete_pieces()
        self._delete(sample, sample.c.id.in_(self._chosen))

    def _delete_pieces(self) -> None:
        """Of samples that are not whole yet, of what could not be read, and of what the device said last."""
        connection, names = self._connection, self._subject.names
        if self._subject.kind == "device":
            self._delete(part, begins(part.c.sample_id, f"{names[0]}."))
            values = {"birth": sa.null(), "heartbeat": sa.null()}
            connection.execute(sa.update(device).where(device.c.name == names[0]).values(values))
            self._counts.update(told.forget(connection, names[0]))
            return
        for name in names:
            self._delete(part, part.c.sample_id == name)
            named = sa.or_(holds(quarantine.c.payload, name.encode()), holds(quarantine.c.reason, name))
            self._delete(quarantine, named)

    def _delete(self, table: sa.Table, where: sa.ColumnElement[bool]) -> None:
        if gone := self._connection.execute(sa.delete(table).where(where)).rowcount:
            self._counts[table.name] += gone

    def _order(self, number: int) -> tuple[str, ...]:
        """Devices are to forget it too."""
        wanted: dict[str, list[str]] = {}
        if self._subject.kind == "device":
            wanted = {self._subject.names[0]: []}
            erasures.close_device(self._connection, self._subject.names[0], number)
        elif self._subject.kind == "sample":
            fleet = set(identities.names(self._connection))
            for name in self._subject.names:
                if (owner := name.split(".")[0]) in fleet:
                    wanted.setdefault(owner, []).append(name)
        erasures.order(self._connection, number, wanted)
        return tuple(wanted)

    def _record(self, done: Erased, who: str, why: str, sha256: str) -> None:
        detail = {
            "erasure": done.id,
            "counts": done.counts,
            "learned": done.learned,
            "judged": done.judged,
            "unsound": done.unsound,
            "tombstones_sha256": sha256,
        }
        subject = f"{self._subject.kind} {self._pseudonym()}"
        trail.record(self._connection, "erase", subject, why=why, who=who, detail=detail, now_ms=self._now_ms)


def _stop_runs(connection: sa.Connection, snapshot_ids: Collection[str], now_ms: int) -> None:
    """A round that is at it with some of what goes: nothing comes of it."""
    for one in runs.in_state(connection, *runs.UNFINISHED):
        if one.snapshot_id in snapshot_ids:
            runs.fail(connection, one.id, error="some of what it learns from was erased meanwhile", now_ms=now_ms)
