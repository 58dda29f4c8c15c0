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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from server.govern import goldens, reports
from server.govern.scrub import finish
from server.govern.subject import Subject, check, chosen
from server.store import consensus, erasures, identities, runs, trail
from server.store.erasures import Erasure
from server.store.schema import (
    card,
    device,
    doomed_blob,
    duplicate,
    erased_member,
    label,
    metadata,
    part,
    quarantine,
    reference,
    sample,
    snapshot_left_out,
    snapshot_member,
    snapshot_seal,
    version,
)
from server.store.schema import (
    trail as trail_table,
)
from server.store.snapshots import LeftOut, Member
from server.store.store import Store

KEPT = {"device", "token", "certificate", "revocation", "rollout_step", "data_rule"}
KEPT |= {"sample", "erased_device", "purge_order", "device_order"}
"""Tables with a column `device` whose rows stay when a device is erased: who it is, that it is shut out, what may be
done with what it sends, and what it was ordered. All others go by that column; `sample` goes by its ids."""

CARRIED_AWAY = ("export", "share")  # as the trail calls it


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
        ready = {one: erasures.prepare(connection, one) for one in _unsealed(connection, subject)}
    with store.database.write() as connection:
        done = _Act(store, connection, subject, ready, now_ms).run(who=who, why=why)
    finish(store, now_ms=now_ms)
    return done


def _unsealed(connection: sa.Connection, subject: Subject) -> list[str]:
    """Snapshots that will lose a member for the first time."""
    sealed, ids = sa.select(snapshot_seal.c.snapshot_id), chosen(subject)
    found: set[str] = set()
    for table in (snapshot_member, snapshot_left_out):
        query = sa.select(table.c.snapshot_id).where(table.c.sample_id.in_(ids), table.c.snapshot_id.not_in(sealed))
        found.update(connection.scalars(query.distinct()))
    return sorted(found)


class _Act:
    """One erasure, inside its transaction."""

    def __init__(
        self, store: Store, connection: sa.Connection, subject: Subject, ready: Mapping[str, str], now_ms: int
    ) -> None:
        self._store, self._connection = store, connection
        self._subject, self._ready, self._now_ms = subject, ready, now_ms
        self._key = erasures.make_key(connection)
        self._counts: Counter[str] = Counter()
        self._unsound: tuple[str, ...] = ()
        self._chosen = chosen(subject)
        self._members = snapshot_member.c.sample_id.in_(self._chosen)

    def run(self, *, who: str, why: str) -> Erased:
        connection, kind = self._connection, self._subject.kind
        samples = connection.execute(sa.select(sample).where(sample.c.id.in_(self._chosen))).all()
        going = [] if kind == "labeler" else samples
        hashes = {erasures.keyed(self._key, row.id) for row in going}
        if kind == "sample":
            hashes |= {erasures.keyed(self._key, name) for name in self._subject.names}
        number = erasures.insert_erasure(connection, self._row(going, hashes, who, why))
        splits = self._leave_snapshots(number)
        learned = tuple(n for n, by in erasures.learned(connection).items() if number in by)
        judged = self._versions(splits["holdout"])
        self._doom([row.body_sha256 for row in going])
        self._doom_derived(going, {*splits["train"], *splits["holdout"]})
        erasures.bury(connection, number, hashes)
        self._delete_rows()
        ordered = self._order(number)
        erasures.count(connection, number, dict(self._counts))
        elsewhere = self._elsewhere({*splits["train"], *splits["holdout"]})
        done = Erased(number, dict(self._counts), learned, judged, ordered, elsewhere, self._unsound)
        self._record(done, who, why, erasures.digest(hashes))
        return done

    def _row(self, going: Sequence[Any], hashes: Iterable[str], who: str, why: str) -> Erasure:
        boots: dict[str, Counter[str]] = defaultdict(Counter)
        for row in going:
            if row.origin == "device":
                boots[row.device][str(row.boot)] += 1
        return Erasure(
            id=0,
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

    def _leave_snapshots(self, number: int) -> dict[str, list[str]]:
        """Take the members out, each leaving its hash; split -> the snapshots that lose some of it."""
        connection = self._connection
        frozen = [snapshot_member.c[name] for name in Member._fields]
        rows = connection.execute(sa.select(snapshot_member.c.snapshot_id, *frozen).where(self._members)).all()
        spared = self._spared()
        for one in sorted({row.snapshot_id for row in rows}):
            self._seal(one)
        stands: list[tuple[str, str, Member | LeftOut]] = [
            (row.snapshot_id, row.split, Member(*row[1:])) for row in rows
        ]
        stands += [(row.snapshot_id, erasures.LEFT_OUT, LeftOut(*row[1:])) for row in spared]
        gone = [
            {"snapshot_id": of, "sha256": erasures.member_hash(self._key, one), "split": split, "erasure_id": number}
            for of, split, one in stands
        ]
        if gone:
            connection.execute(sa.insert(erased_member), gone)
        found: dict[str, list[str]] = {"train": [], "holdout": []}
        for split, snapshot_id in sorted({(row.split, row.snapshot_id) for row in rows}):
            found[split].append(snapshot_id)
        return found

    def _spared(self) -> Sequence[Any]:
        """What was left out of snapshots, or stood beside what goes; taken out. A labeler is not named there."""
        if self._subject.kind == "labeler":
            return ()
        of = snapshot_left_out.c
        mine = sa.or_(of.sample_id.in_(self._chosen), of.beside.in_(self._chosen))
        columns = [of[name] for name in LeftOut._fields]
        rows = self._connection.execute(sa.select(of.snapshot_id, *columns).where(mine)).all()
        for one in sorted({row.snapshot_id for row in rows}):
            self._seal(one)
        self._delete(snapshot_left_out, mine)
        return rows

    def _seal(self, snapshot_id: str) -> None:
        if not erasures.seal(self._connection, snapshot_id, self._ready) and snapshot_id not in self._unsound:
            self._unsound = (*self._unsound, snapshot_id)

    def _versions(self, snapshot_ids: Sequence[str]) -> tuple[int, ...]:
        query = sa.select(version.c.number).where(version.c.snapshot_id.in_(snapshot_ids)).order_by(version.c.number)
        return tuple(self._connection.scalars(query))

    def _doom(self, names: Iterable[str]) -> None:
        rows = [{"sha256": name} for name in dict.fromkeys(names)]
        if rows:
            self._connection.execute(insert(doomed_blob).on_conflict_do_nothing(), rows)

    def _doom_derived(self, going: Sequence[Any], snapshot_ids: set[str]) -> None:
        """What was made of it: cards that tell of it, references computed on it, golden inputs that are it."""
        connection = self._connection
        told = sa.select(version.c.number).where(version.c.snapshot_id.in_(snapshot_ids))
        for table, where in (
            (card, card.c.version.in_(told)),
            (reference, sa.literal(any(row.origin == "import" and row.split == "holdout" for row in going))),
        ):
            self._doom(connection.scalars(sa.select(table.c.body_sha256).where(where)))
            self._delete(table, where)
        _stop_runs(connection, snapshot_ids, self._now_ms)
        redacted = goldens.redact(self._store, connection, going, snapshot_ids)
        self._doom(redacted)
        if redacted:
            self._counts["golden inputs"] = len(redacted)

    def _delete_rows(self) -> None:
        """Every row that tells of it, whatever table it is in: those that refer to others first."""
        kind, names = self._subject.kind, self._subject.names
        for table in reversed(metadata.sorted_tables):
            columns = [column for column in table.c if _points_at_sample(column)]
            if kind == "labeler":
                columns = [snapshot_member.c.sample_id] if table is snapshot_member else []
                if "labeler" in table.c and table is not label:
                    self._delete(table, table.c.labeler == names[0])
            elif kind == "device" and "device" in table.c and table.name not in KEPT:
                self._delete(table, table.c.device == names[0])
            for column in columns:
                self._delete(table, column.in_(self._chosen))
        if kind == "labeler":  # last: the members were found by it
            answered = [row.id for row in self._connection.execute(self._chosen)]
            self._delete(label, label.c.labeler == names[0])
            if told := reports.redact(self._connection, names[0], pseudonym=self._pseudonym()):
                self._counts["reports"] = told
            consensus.resolve(self._connection, answered)  # what others answered is in force, or nothing
            return
        self._delete_pieces()
        self._delete(sample, sample.c.id.in_(self._chosen))

    def _delete_pieces(self) -> None:
        """Of samples that are not whole yet, of what could not be read, and of what the device said last."""
        connection, names = self._connection, self._subject.names
        if self._subject.kind == "device":
            self._delete(part, part.c.sample_id.startswith(f"{names[0]}.", autoescape=True))
            values = {"birth": sa.null(), "heartbeat": sa.null()}
            connection.execute(sa.update(device).where(device.c.name == names[0]).values(values))
            return
        for name in names:
            self._delete(part, part.c.sample_id == name)
            in_payload = sa.func.instr(quarantine.c.payload, name.encode()) > 0
            self._delete(quarantine, sa.or_(in_payload, quarantine.c.reason.contains(name, autoescape=True)))

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

    def _elsewhere(self, snapshot_ids: set[str]) -> tuple[str, ...]:
        """What the trail knows to have been carried away of these snapshots."""
        subjects = [f"snapshot {one}" for one in sorted(snapshot_ids)]
        away = (trail_table.c.what.in_(CARRIED_AWAY), trail_table.c.subject.in_(subjects))
        rows = self._connection.execute(sa.select(trail_table).where(*away).order_by(trail_table.c.id))
        return tuple(f"{row.what} of {row.subject[:21]} by {row.who} (audit entry {row.id})" for row in rows)

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


def _stop_runs(connection: sa.Connection, snapshot_ids: set[str], now_ms: int) -> None:
    """A round that is at it with some of what goes: nothing comes of it."""
    for one in runs.in_state(connection, *runs.UNFINISHED):
        if one.snapshot_id in snapshot_ids:
            runs.fail(connection, one.id, error="some of what it learns from was erased meanwhile", now_ms=now_ms)


def _points_at_sample(column: sa.Column[Any]) -> bool:
    if column.table in (sample, part):
        return False
    if column is duplicate.c.stands_with:
        return True
    return column.name == "sample_id" or any(key.column is sample.c.id for key in column.foreign_keys)
