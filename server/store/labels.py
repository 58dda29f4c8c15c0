"""What have people, or whoever answers, said of the samples?

Labels are events: only ever added, the latest of a sample is in force. "Cannot tell" is an answer too: the sample is
not asked about again, and no snapshot holds it. The label schema (class index -> name) only grows, so that an index
means the same for ever.

A sample that shows what a labelled one shows can be spared: it is kept, waits for no label of its own, and stands with
that one. Nor does one wait that is left out with its device (identities.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from server.store import identities
from server.store.samples import AUDIT_REASONS, body_names
from server.store.schema import class_name, duplicate, label, sample

CANNOT_TELL = -1


class Label(NamedTuple):
    """One answer."""

    sample_id: str
    class_index: int  # or CANNOT_TELL
    labeler: str
    at_ms: int
    seconds: float = 0.0  # a person's time
    probability: float | None = None  # 1 / weight of being asked about; None where that was not left to chance
    plan_ms: int | None = None  # when it was drawn out of what waited; None where that was not left to chance
    stands_for: int = 1  # itself, and what was spared beside it


class Counts(NamedTuple):
    """How far labelling is, of the devices' samples."""

    labelled: int
    cannot_tell: int
    waiting: int
    duplicates: int  # that show what a labelled one shows, and wait for no label


def add(connection: sa.Connection, answers: Iterable[Label]) -> None:
    """Add answers; those after others of the same sample are in force."""
    if rows := [answer._asdict() for answer in answers]:
        connection.execute(sa.insert(label), rows)


def waiting(connection: sa.Connection, *, limit: int, newest: bool = False) -> Sequence[sa.Row[tuple[object, ...]]]:
    """Rows of `sample` from devices that nobody answered for: the audit first, then by arrival, or the newest."""
    order = _audit_first(newest=newest)
    return connection.execute(sa.select(sample).where(_unanswered()).order_by(*order).limit(limit)).all()


def waiting_ids(*, limit: int, newest: bool = False) -> sa.Select[tuple[str]]:
    """Query of their ids."""
    return sa.select(sample.c.id).where(_unanswered()).order_by(*_audit_first(newest=newest)).limit(limit)


def still_waiting(connection: sa.Connection, ids: Collection[str]) -> set[str]:
    """Those of these ids, at most 32,000, that are here and wait for a label."""
    return set(connection.scalars(sa.select(sample.c.id).where(_unanswered(), sample.c.id.in_(list(ids)))))


def last_answered(connection: sa.Connection, *, limit: int) -> Sequence[Any]:
    """(id, body_sha256) of the samples that were last told a class, imports included; the newest first."""
    last = last_answered_ids(limit=limit).subquery()
    query = sa.select(sample.c.id, sample.c.body_sha256).join(last, last.c.id == sample.c.id)
    return connection.execute(query.order_by(last.c.at.desc())).all()


def last_answered_ids(*, limit: int) -> sa.Select[tuple[str, int]]:
    """Query of their ids, and of what grows with their newest answer."""
    at = sa.func.max(label.c.id).label("at")
    query = sa.select(label.c.sample_id.label("id"), at).where(label.c.class_index != CANNOT_TELL)
    return query.group_by(label.c.sample_id).order_by(at.desc()).limit(limit)


def spare(connection: sa.Connection, stands_with: Mapping[str, str]) -> None:
    """These samples wait no longer: each stands with another, which is labelled. What was erased is left out."""
    here = body_names(connection, {*stands_with, *stands_with.values()})
    pairs = ((one, other) for one, other in stands_with.items() if {one, other} <= here.keys())
    rows = [{"sample_id": one, "stands_with": other} for one, other in pairs]
    if rows:
        connection.execute(insert(duplicate).on_conflict_do_nothing(), rows)


def given_since(connection: sa.Connection, *, labeler: str, at_ms: int) -> int:
    """How many answers that labeler has given after `at_ms`."""
    query = sa.select(sa.func.count()).select_from(label).where(label.c.labeler == labeler, label.c.at_ms > at_ms)
    return connection.scalar(query) or 0


def in_force() -> sa.Select[tuple[str, int, float | None]]:
    """Query of (sample_id, class_index, probability) for every answered sample, "cannot tell" included."""
    latest = sa.select(sa.func.max(label.c.id)).group_by(label.c.sample_id)
    return sa.select(label.c.sample_id, label.c.class_index, label.c.probability).where(label.c.id.in_(latest))


def audited(connection: sa.Connection, version: int) -> Sequence[Any]:
    """(class_index, predicted, floor) of the audit's samples that a version ran on, in the order of their answers."""
    answers = in_force().subquery()
    first = sa.select(label.c.sample_id, sa.func.min(label.c.id).label("at")).group_by(label.c.sample_id).subquery()
    query = (
        sa.select(answers.c.class_index, sample.c.predicted, sample.c.floor)
        .select_from(sample)
        .join(answers, answers.c.sample_id == sample.c.id)
        .join(first, first.c.sample_id == sample.c.id)
        .where(sample.c.model_version == version, sample.c.reason.in_(AUDIT_REASONS), sample.c.floor > 0.0)
        .where(answers.c.class_index != CANNOT_TELL, ~identities.left_out())
        .order_by(first.c.at)
    )
    return connection.execute(query).all()


def plans(connection: sa.Connection) -> list[int]:
    """When was drawn out of what waited, beside the audit: ms, in order of time."""
    query = sa.select(label.c.plan_ms).distinct().join(sample, sample.c.id == label.c.sample_id)
    query = query.where(label.c.plan_ms.is_not(None), sample.c.reason.not_in(AUDIT_REASONS))
    return list(connection.scalars(query.order_by(label.c.plan_ms)))


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
    spared = connection.scalar(sa.select(sa.func.count()).select_from(duplicate))
    return Counts(
        labelled=answered - (unclear or 0), cannot_tell=unclear or 0, waiting=left or 0, duplicates=spared or 0
    )


class Answered(NamedTuple):
    """What a class has come to so far."""

    labels: int
    timed: int  # of them with a person's time
    seconds: float  # of those together


def by_class(connection: sa.Connection) -> dict[str, Answered]:
    """Of every class that was ever answered, by name; imports included."""
    latest = sa.select(sa.func.max(label.c.id)).group_by(label.c.sample_id)
    timed = sa.func.sum(sa.case((label.c.seconds > 0.0, 1), else_=0))
    query = (
        sa.select(class_name.c.name, sa.func.count(), timed, sa.func.sum(label.c.seconds))
        .select_from(label.join(class_name, class_name.c.index == label.c.class_index))
        .where(label.c.id.in_(latest))
        .group_by(class_name.c.name)
    )
    return {name: Answered(*figures) for name, *figures in connection.execute(query)}


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
    spared = sa.exists().where(duplicate.c.sample_id == sample.c.id)
    return sa.and_(sample.c.origin == "device", ~answered, ~spared, ~identities.left_out())


def _audit_first(*, newest: bool) -> tuple[sa.ColumnElement[Any], ...]:
    order = sa.case((sample.c.reason.in_(AUDIT_REASONS), 0), else_=1)
    return order, sample.c.received_at_ms.desc() if newest else sample.c.received_at_ms, sample.c.id
