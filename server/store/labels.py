"""What have people, or whoever answers, said of the samples?

Labels are events: only ever added, the latest of a sample is in force. "Cannot tell" is an answer too: the sample is
not asked about again, and no snapshot holds it. The label schema (class index -> name) only grows, so that an index
means the same for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from server.store.samples import AUDIT_REASONS
from server.store.schema import class_name, label, sample

CANNOT_TELL = -1


class Label(NamedTuple):
    """One answer."""

    sample_id: str
    class_index: int  # or CANNOT_TELL
    labeler: str
    at_ms: int
    seconds: float = 0.0  # a person's time
    probability: float | None = None  # of being asked about; None where that was not left to chance


class Counts(NamedTuple):
    """How far labelling is, of the devices' samples."""

    labelled: int
    cannot_tell: int
    waiting: int


def add(connection: sa.Connection, answers: Iterable[Label]) -> None:
    """Add answers; those after others of the same sample are in force."""
    if rows := [answer._asdict() for answer in answers]:
        connection.execute(sa.insert(label), rows)


def waiting(connection: sa.Connection, *, limit: int) -> Sequence[sa.Row[tuple[object, ...]]]:
    """Rows of `sample` from devices that nobody answered for: the audit first, then by arrival."""
    order = sa.case((sample.c.reason.in_(AUDIT_REASONS), 0), else_=1)
    query = sa.select(sample).where(_unanswered()).order_by(order, sample.c.received_at_ms, sample.c.id).limit(limit)
    return connection.execute(query).all()


def given_since(connection: sa.Connection, *, labeler: str, at_ms: int) -> int:
    """How many answers that labeler has given after `at_ms`."""
    query = sa.select(sa.func.count()).select_from(label).where(label.c.labeler == labeler, label.c.at_ms > at_ms)
    return connection.scalar(query) or 0


def in_force() -> sa.Select[tuple[str, int, float | None]]:
    """Query of (sample_id, class_index, probability) for every answered sample, "cannot tell" included."""
    latest = sa.select(sa.func.max(label.c.id)).group_by(label.c.sample_id)
    return sa.select(label.c.sample_id, label.c.class_index, label.c.probability).where(label.c.id.in_(latest))


def held_out_imports(connection: sa.Connection) -> Sequence[sa.Row[Any]]:
    """Rows of `sample`, with `class_index`, of every labelled import that is held out, by id."""
    answers = in_force().subquery()
    query = (
        sa.select(answers.c.class_index, sample)
        .select_from(answers.join(sample, sample.c.id == answers.c.sample_id))
        .where(sample.c.origin == "import", sample.c.split == "holdout", answers.c.class_index != CANNOT_TELL)
        .order_by(sample.c.id)
    )
    return connection.execute(query).all()


def counts(connection: sa.Connection) -> Counts:
    """How many samples of devices are labelled, unclear, and waiting."""
    answers = in_force().subquery()
    query = (
        sa.select(sa.func.count(), sa.func.sum(sa.case((answers.c.class_index == CANNOT_TELL, 1), else_=0)))
        .select_from(answers.join(sample, sample.c.id == answers.c.sample_id))
        .where(sample.c.origin == "device")
    )
    answered, unclear = connection.execute(query).one()
    left = connection.scalar(sa.select(sa.func.count()).select_from(sample).where(_unanswered()))
    return Counts(labelled=answered - (unclear or 0), cannot_tell=unclear or 0, waiting=left or 0)


def last_id(connection: sa.Connection) -> int:
    """Grows with every answer: the cheap way to see whether there are new ones."""
    return connection.scalar(sa.select(sa.func.max(label.c.id))) or 0


def names(connection: sa.Connection) -> tuple[str, ...]:
    """Class names, by index."""
    return tuple(connection.scalars(sa.select(class_name.c.name).order_by(class_name.c.index)))


def ensure_names(connection: sa.Connection, wanted: Iterable[str]) -> dict[str, int]:
    """The index of each name, added at the end where it is new."""
    known = {name: index for index, name in enumerate(names(connection))}
    new = [name for name in dict.fromkeys(wanted) if name not in known]
    rows = [{"index": len(known) + i, "name": name} for i, name in enumerate(new)]
    if rows:
        connection.execute(sa.insert(class_name), rows)
    return known | {name: len(known) + i for i, name in enumerate(new)}


def _unanswered() -> sa.ColumnElement[bool]:
    answered = sa.exists().where(label.c.sample_id == sample.c.id)
    return sa.and_(sample.c.origin == "device", ~answered)
