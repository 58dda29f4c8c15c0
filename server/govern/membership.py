"""What becomes of snapshots that have what is to be forgotten?

A snapshot that loses its first member is checked and sealed before (store/erasures.py); whatever goes leaves its hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import sqlalchemy as sa

from server.govern.subject import Subject, chosen
from server.store import erasures, snapshots
from server.store.schema import erased_member, snapshot_left_out, snapshot_member, snapshot_seal
from server.store.snapshots import LeftOut, Member


class Left(NamedTuple):
    """Snapshots that lost some, by what they lost; and how many rows went."""

    taught: frozenset[str]  # what is learned from, labelled or not
    holdout: frozenset[str]
    left_out: frozenset[str]
    unsound: tuple[str, ...]  # were not what their ids say, before anything was taken out
    counts: dict[str, int]  # table -> rows

    @property
    def members(self) -> frozenset[str]:
        """That lost members."""
        return self.taught | self.holdout


def prepare(connection: sa.Connection, subject: Subject) -> dict[str, str]:
    """The seals of those that will lose some for the first time: it takes a while, and ingest needs to write."""
    sealed, found = sa.select(snapshot_seal.c.snapshot_id), set[str]()
    for table, _, mine in _of(subject):
        query = sa.select(table.c.snapshot_id).where(mine, table.c.snapshot_id.not_in(sealed))
        found.update(connection.scalars(query.distinct()))
    return {one: erasures.prepare(connection, one) for one in sorted(found)}


def leave(connection: sa.Connection, subject: Subject, number: int, ready: Mapping[str, str]) -> Left:
    """Take them out, each leaving its hash for erasure `number`. `ready`: seals as prepared."""
    key, stands = erasures.make_key(connection), list(_stands(connection, subject))
    unsound = [of for of in sorted({of for of, _, _ in stands}) if not erasures.seal(connection, of, ready)]
    gone = [
        {"snapshot_id": of, "sha256": erasures.member_hash(key, one), "split": split, "erasure_id": number}
        for of, split, one in stands
    ]
    if gone:
        connection.execute(sa.insert(erased_member), gone)
    counts = {table.name: connection.execute(sa.delete(table).where(mine)).rowcount for table, _, mine in _of(subject)}
    holdout, out = (
        frozenset(of for of, split, _ in stands if split == which) for which in ("holdout", erasures.LEFT_OUT)
    )
    taught = frozenset(of for of, split, _ in stands if split not in ("holdout", erasures.LEFT_OUT))
    return Left(taught, holdout, out, tuple(unsound), counts)


def _stands(connection: sa.Connection, subject: Subject) -> Iterator[tuple[str, str, Member | LeftOut]]:
    """(snapshot, split, row) of all that goes."""
    for table, kind, mine in _of(subject):
        columns = [table.c[name] for name in kind._fields]
        for of, *row in connection.execute(sa.select(table.c.snapshot_id, *columns).where(mine)):
            one = kind(*row)
            yield of, one.split if isinstance(one, Member) else erasures.LEFT_OUT, one


def _of(subject: Subject) -> list[tuple[sa.Table, type[Member | LeftOut], sa.ColumnElement[bool]]]:
    """Where it has places: of a labeler those whose class he had a part in. What is left out does not name him."""
    if subject.kind == "labeler":
        return [(snapshot_member, Member, snapshots.answered_by(subject.names[0]))]
    ids, out = chosen(subject), snapshot_left_out.c
    beside = sa.or_(out.sample_id.in_(ids), out.beside.in_(ids))
    return [(snapshot_member, Member, snapshot_member.c.sample_id.in_(ids)), (snapshot_left_out, LeftOut, beside)]
