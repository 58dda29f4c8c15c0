"""What exactly was a model trained and judged on?

A snapshot is the labelled samples of one moment: for each its class, its split and the probability it was selected
with. It never changes, and its id is the sha256 over its members, so the same labels always have the same id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from server.store import identities, labels
from server.store.schema import sample, snapshot, snapshot_member

_INSERT_ROWS = 1000


class Member(NamedTuple):
    """One labelled sample."""

    sample_id: str
    class_index: int
    split: str  # "train" or "holdout"
    probability: float | None  # of selection, by the floor alone where held out (docs/adr/0005); None for imports


class Snapshot(NamedTuple):
    """A frozen set of labelled samples."""

    id: str
    created_at_ms: int
    classes: tuple[str, ...]
    train_count: int
    holdout_count: int
    device_label_count: int


def identify(members: Iterable[Member], classes: Sequence[str]) -> str:
    """Sha256, in hex, over the classes and the members in order of their sample ids.

    >>> a, b = Member("a", 0, "train", None), Member("b", 1, "holdout", 0.5)
    >>> identify([a, b], ["x", "y"]) == identify([b, a], ["x", "y"]) != identify([a], ["x", "y"])
    True
    """
    digest = hashlib.sha256(msgspec.json.encode(list(classes)))
    for member in sorted(members):
        digest.update(b"\n" + msgspec.json.encode(member))
    return digest.hexdigest()


def labelled(connection: sa.Connection) -> list[tuple[Member, str]]:
    """Every labelled sample, with its origin ("device" or "import"), but those left out with a revoked device."""
    answers = labels.in_force().subquery()
    # Of having been sent, and of the others, of having been asked about: all that is held out is, sooner or later.
    asked = sample.c.probability * sa.func.coalesce(answers.c.probability, 1.0)
    into_split = sa.case((sample.c.split == "holdout", sample.c.floor), else_=asked)
    query = (
        sa.select(sample.c.id, answers.c.class_index, sample.c.split, into_split, sample.c.origin)
        .select_from(answers.join(sample, sample.c.id == answers.c.sample_id))
        .where(_taken(answers))
    )
    return [(Member(*row[:4]), row.origin) for row in connection.execute(query)]


def count_new(connection: sa.Connection, snapshot_id: str) -> int:
    """How many labelled samples of devices a snapshot of now would have that this one has not; "": that none has."""
    answers = labels.in_force().subquery()
    member = (snapshot_member.c.snapshot_id == snapshot_id, snapshot_member.c.sample_id == sample.c.id)
    query = (
        sa.select(sa.func.count())
        .select_from(answers.join(sample, sample.c.id == answers.c.sample_id))
        .where(sample.c.origin == "device", _taken(answers), ~sa.exists().where(*member))
    )
    return connection.scalar(query) or 0


def _taken(answers: sa.Subquery) -> sa.ColumnElement[bool]:
    return sa.and_(answers.c.class_index != labels.CANNOT_TELL, ~identities.left_out())


def insert(connection: sa.Connection, made: Snapshot, members: Sequence[Member]) -> None:
    """Keep a snapshot; one that is here already stays as it is."""
    if get(connection, made.id) is not None:
        return
    connection.execute(sa.insert(snapshot).values(made._asdict()))
    rows = [{"snapshot_id": made.id, **member._asdict()} for member in members]
    for i in range(0, len(rows), _INSERT_ROWS):
        connection.execute(sa.insert(snapshot_member), rows[i : i + _INSERT_ROWS])


def get(connection: sa.Connection, snapshot_id: str) -> Snapshot | None:
    """The snapshot of that id."""
    row = connection.execute(sa.select(snapshot).where(snapshot.c.id == snapshot_id)).one_or_none()
    return None if row is None else Snapshot(**{**row._asdict(), "classes": tuple(row.classes)})


def sample_ids(connection: sa.Connection, snapshot_id: str) -> set[str]:
    """The ids of its members."""
    query = sa.select(snapshot_member.c.sample_id).where(snapshot_member.c.snapshot_id == snapshot_id)
    return set(connection.scalars(query))


def held_out_of_devices(connection: sa.Connection, snapshot_id: str) -> int:
    """How many of its held-out members came from devices."""
    held = sa.and_(snapshot_member.c.snapshot_id == snapshot_id, snapshot_member.c.split == "holdout")
    query = sa.select(sa.func.count()).select_from(
        snapshot_member.join(sample, sample.c.id == snapshot_member.c.sample_id)
    )
    return connection.scalar(query.where(held, sample.c.origin == "device")) or 0


def members(connection: sa.Connection, snapshot_id: str) -> Sequence[sa.Row[tuple[object, ...]]]:
    """Its members with their rows of `sample`, in order of sample id: what a training reads."""
    frozen = (
        snapshot_member.c.class_index,
        snapshot_member.c.split.label("frozen_split"),
        snapshot_member.c.probability.label("frozen_probability"),
    )
    query = (
        sa.select(*frozen, sample)
        .select_from(snapshot_member.join(sample, sample.c.id == snapshot_member.c.sample_id))
        .where(snapshot_member.c.snapshot_id == snapshot_id)
        .order_by(snapshot_member.c.sample_id)
    )
    return connection.execute(query).all()
