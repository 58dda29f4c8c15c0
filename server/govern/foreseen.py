"""What would go if something was to be forgotten, and what stays elsewhere?

Looked at before an erasure, which cannot be taken back. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from server.govern.lineage import children
from server.govern.subject import Subject, check, chosen
from server.store import identities, snapshots
from server.store.schema import label, sample, snapshot_member, trail, version

CARRIED_AWAY = ("export", "share")  # as the trail calls it


class Foreseen(NamedTuple):
    """What an erasure would come to."""

    samples: int  # that are here, and go; of a labeler they stay
    sample_bytes: int
    labels: int  # answers that go
    snapshots: int  # that lose members
    learned: tuple[int, ...]  # versions that learned from it, or went on from one that did: to be trained again
    judged: tuple[int, ...]  # versions that were judged by it
    ordered: tuple[str, ...]  # devices that will be told to purge
    elsewhere: tuple[str, ...]  # copies that somebody took away: they are not reached from here


def foresee(connection: sa.Connection, subject: Subject) -> Foreseen:
    """GovernError when there is no such thing."""
    check(connection, subject)
    ids = chosen(subject)
    stays = subject.kind == "labeler"
    here = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sample.c.body_bytes), 0))
    samples, size = (0, 0) if stays else connection.execute(here.where(sample.c.id.in_(ids))).one()
    mine = label.c.labeler == subject.names[0] if stays else label.c.sample_id.in_(ids)
    answers = connection.scalar(sa.select(sa.func.count()).select_from(label).where(mine)) or 0
    members = snapshots.answered_by(subject.names[0]) if stays else snapshot_member.c.sample_id.in_(ids)
    taught, held = (_losing(connection, members, splits) for splits in (snapshots.TAUGHT, ("holdout",)))
    direct = _versions(connection, taught)
    learned = sorted({*direct, *(children(connection, *direct) if direct else ())})
    of = {*taught, *held}
    return Foreseen(
        samples=samples,
        sample_bytes=size,
        labels=answers,
        snapshots=len(of),
        learned=tuple(learned),
        judged=tuple(_versions(connection, held)),
        ordered=_ordered(connection, subject),
        elsewhere=carried_away(connection, of),
    )


def carried_away(connection: sa.Connection, snapshot_ids: Collection[str]) -> tuple[str, ...]:
    """What the trail knows to have been carried away of these snapshots.

    A copy that was made on a page lies here until it is fetched, and goes with what is erased.
    """
    subjects = [f"snapshot {one}" for one in sorted(snapshot_ids)]
    kept_here = trail.c.detail["chore"].as_integer().is_not(None)
    away = (trail.c.what.in_(CARRIED_AWAY), trail.c.subject.in_(subjects), ~kept_here)
    rows = connection.execute(sa.select(trail).where(*away).order_by(trail.c.id))
    return tuple(f"{row.what} of {row.subject[:21]} by {row.who} (audit entry {row.id})" for row in rows)


def lines(found: Foreseen) -> list[str]:
    """For people."""
    said = [f"{found.samples} samples of {found.sample_bytes} bytes and {found.labels} labels would go"]
    if found.learned:
        said.append(f"to be trained again, from scratch: versions {', '.join(map(str, found.learned))}")
    if found.judged:
        said.append(f"judged by it: versions {', '.join(map(str, found.judged))}")
    if found.snapshots:
        said.append(f"{found.snapshots} snapshots would lose members")
    if found.ordered:
        said.append(f"told to purge: {', '.join(found.ordered)}")
    return said + [f"not here, so not erased: {copy}" for copy in found.elsewhere]


def _losing(connection: sa.Connection, members: sa.ColumnElement[bool], splits: Sequence[str]) -> list[str]:
    mine = (members, snapshot_member.c.split.in_(splits))
    return list(connection.scalars(sa.select(snapshot_member.c.snapshot_id).where(*mine).distinct()))


def _versions(connection: sa.Connection, snapshot_ids: Sequence[str]) -> list[int]:
    query = sa.select(version.c.number).where(version.c.snapshot_id.in_(snapshot_ids))
    return list(connection.scalars(query.order_by(version.c.number)))


def _ordered(connection: sa.Connection, subject: Subject) -> tuple[str, ...]:
    if subject.kind == "labeler":
        return ()
    if subject.kind == "device":
        return subject.names
    owners = {name.split(".")[0] for name in subject.names}
    return tuple(sorted(owners & set(identities.names(connection))))
