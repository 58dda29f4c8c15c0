"""What have people, or whoever answers, said of the samples?

Labels are events: only ever added, or taken back by whoever gave them. Which class is in force for a sample follows
from all of its answers (consensus.py), in the transaction that brings one. "Cannot tell" and "none of these" are
answers too: the sample is not asked about again, and no snapshot holds it. What is more than a class (boxes, several
classes, numbers) is VALUED and has its truth beside it. The label schema (class or target index -> name) only grows, so
that an index means the same for ever.

A sample that shows what a labelled one shows can be spared: it is kept, waits for no label of its own, and stands with
that one. Nor does one wait that is left out with its device (identities.py). What stands in the queue already
(questions.py) waits, and is planned no more.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from server.store import consensus, identities
from server.store.consensus import CANNOT_TELL, CLASSLESS, FIRST, NONE_OF_THESE, VALUED, is_label
from server.store.insert import insert
from server.store.naming import named_in
from server.store.samples import AUDIT_REASONS, body_names
from server.store.schema import class_name, duplicate, gold, label, question, sample, snapshot_member
from server.store.schema import consensus as in_force_

__all__ = ["CANNOT_TELL", "NONE_OF_THESE", "VALUED", "Label"]

_KEY_CHARS = 200  # of the column


class Label(NamedTuple):
    """One answer."""

    sample_id: str
    class_index: int  # or CANNOT_TELL, NONE_OF_THESE, VALUED
    labeler: str
    at_ms: int
    seconds: float = 0.0  # a person's time
    probability: float | None = None  # 1 / weight of being asked about; None where that was not left to chance
    plan_ms: int | None = None  # when it was drawn out of what waited; None where that was not left to chance
    stands_for: int = 1  # itself, and what was spared beside it
    kind: str = ""  # of labeler
    price: float = 0.0
    purpose: str = FIRST
    guess: int | None = None  # class that a model gave it beforehand
    guess_by: str = ""  # that model
    shown: bool = False  # whether the labeler saw the guess
    key: str | None = None  # an answer with a key that is here already adds nothing
    truth: dict[str, Any] | None = None  # plain data of contract/task.py Truth, where class_index is VALUED


class Counts(NamedTuple):
    """How far labelling is, of the devices' samples."""

    labelled: int
    cannot_tell: int
    waiting: int
    duplicates: int  # that show what a labelled one shows, and wait for no label
    none_of_these: int


def add(connection: sa.Connection, answers: Iterable[Label]) -> None:
    """Add answers, and say what is in force."""
    if rows := [answer._asdict() for answer in answers]:
        connection.execute(insert(connection, label).on_conflict_do_nothing(index_elements=[label.c.key]), rows)
        consensus.resolve(connection, {row["sample_id"] for row in rows})


def waiting(
    connection: sa.Connection, *, limit: int, newest: bool = False, split: str = ""
) -> Sequence[sa.Row[tuple[object, ...]]]:
    """Rows of `sample` that nobody answered for or is to be asked: the audit first, then by arrival, or the newest.

    `split`: of that one alone.
    """
    query = sa.select(sample).where(_unasked()).order_by(*_audit_first(newest=newest)).limit(limit)
    return connection.execute(query.where(sample.c.split == split) if split else query).all()


def waiting_ids(*, limit: int, newest: bool = False) -> sa.Select[tuple[str]]:
    """Query of the ids of those that nobody answered for, in that order."""
    return sa.select(sample.c.id).where(_unanswered()).order_by(*_audit_first(newest=newest)).limit(limit)


def still_waiting(connection: sa.Connection, ids: Collection[str]) -> set[str]:
    """Those of these ids, at most 32,000, that are here, wait for a label, and stand in no queue."""
    return set(connection.scalars(sa.select(sample.c.id).where(_unasked(), sample.c.id.in_(list(ids)))))


def last_answered(connection: sa.Connection, *, limit: int) -> Sequence[Any]:
    """(id, body_sha256) of the samples that were last told a label, imports included; the newest first."""
    last = last_answered_ids(limit=limit).subquery()
    query = sa.select(sample.c.id, sample.c.body_sha256).join(last, last.c.id == sample.c.id)
    return connection.execute(query.order_by(last.c.at.desc())).all()


def last_answered_ids(*, limit: int) -> sa.Select[tuple[str, int]]:
    """Query of their ids, and of what grows with their newest answer."""
    query = sa.select(in_force_.c.sample_id.label("id"), in_force_.c.label_id.label("at"))
    return query.where(is_label(in_force_.c.class_index)).order_by(in_force_.c.label_id.desc()).limit(limit)


def of_people(connection: sa.Connection, *, limit: int) -> Sequence[Any]:
    """Rows of `sample`, with `class_index`, of what people last told of devices' samples, the newest first."""
    told = (label.c.sample_id == sample.c.id, label.c.undone_at_ms.is_(None), label.c.kind.not_in(consensus.MODELS))
    query = (
        sa.select(in_force_.c.class_index, sample)
        .select_from(in_force_.join(sample, sample.c.id == in_force_.c.sample_id))
        .where(in_force_.c.class_index.not_in(CLASSLESS), sample.c.origin == "device", sa.exists().where(*told))
    )
    return connection.execute(query.order_by(in_force_.c.label_id.desc()).limit(limit)).all()


def suspectable(connection: sa.Connection, *, limit: int) -> Sequence[Any]:
    """(id, class_index, truth) of what was last told, but for gold and what was looked at twice; imports included.

    Of truths that are more than a class, those of which a model said something beforehand: said, confidence.
    """
    twice = (label.c.sample_id == in_force_.c.sample_id, label.c.purpose == consensus.SECOND_LOOK)
    again = (question.c.sample_id == in_force_.c.sample_id, question.c.purpose == consensus.SECOND_LOOK)
    query = (
        sa.select(in_force_.c.sample_id.label("id"), in_force_.c.class_index, in_force_.c.truth)
        .add_columns(sample.c.said, sample.c.confidence)
        .join(sample, sample.c.id == in_force_.c.sample_id)
        .where(sa.or_(in_force_.c.class_index >= 0, in_force_.c.truth.is_not(None) & sample.c.said.is_not(None)))
        .where(~sa.exists().where(gold.c.sample_id == in_force_.c.sample_id))
        .where(~sa.exists().where(*twice, label.c.undone_at_ms.is_(None)), ~sa.exists().where(*again))
    )
    return connection.execute(query.order_by(in_force_.c.label_id.desc()).limit(limit)).all()


def spare(connection: sa.Connection, stands_with: Mapping[str, str]) -> None:
    """These samples wait no longer: each stands with another, which is labelled. What was erased is left out."""
    here = body_names(connection, {*stands_with, *stands_with.values()})
    pairs = ((one, other) for one, other in stands_with.items() if {one, other} <= here.keys())
    rows = [{"sample_id": one, "stands_with": other} for one, other in pairs]
    if rows:
        connection.execute(insert(connection, duplicate).on_conflict_do_nothing(), rows)


def given_since(connection: sa.Connection, *, kind: str, at_ms: int) -> int:
    """How many answers labelers of that kind have given after `at_ms`."""
    query = sa.select(sa.func.count()).select_from(label).where(label.c.kind == kind, label.c.at_ms > at_ms)
    return connection.scalar(query) or 0


def in_force() -> sa.Select[tuple[str, int, float | None]]:
    """Query of (sample_id, class_index, probability) for every answered sample, those below class 0 included."""
    return sa.select(in_force_.c.sample_id, in_force_.c.class_index, in_force_.c.probability)


def standing(connection: sa.Connection, sample_id: str) -> Any:
    """What is in force for one sample: its row of `consensus`, or None."""
    return connection.execute(sa.select(in_force_).where(in_force_.c.sample_id == sample_id)).one_or_none()


def of_sample(connection: sa.Connection, sample_id: str) -> Sequence[Any]:
    """Every answer about a sample, those taken back too, oldest first: rows of `label`."""
    return connection.execute(sa.select(label).where(label.c.sample_id == sample_id).order_by(label.c.id)).all()


def is_answered(connection: sa.Connection, sample_id: str) -> bool:
    """Whether anything is."""
    return standing(connection, sample_id) is not None


def purpose_of(connection: sa.Connection, sample_id: str, labeler: str) -> str | None:
    """Why that labeler was asked when he last answered about a sample; None: no answer of his stands."""
    mine = (label.c.sample_id == sample_id, label.c.labeler == labeler, label.c.undone_at_ms.is_(None))
    return connection.scalar(sa.select(label.c.purpose).where(*mine).order_by(label.c.id.desc()).limit(1))


def key_of(said: str | None) -> str | None:
    """As it is kept: a hash of one that no column has room for, as of a sample and a labeler with long names.

    >>> key_of("cam-1.main.1.7:ann:1"), key_of("k" * 300)[:12]
    ('cam-1.main.1.7:ann:1', 'sha256:17b16')
    """
    return said if said is None or len(said) <= _KEY_CHARS else f"sha256:{hashlib.sha256(said.encode()).hexdigest()}"


def has_key(connection: sa.Connection, key: str) -> bool:
    """Whether an answer came with that key."""
    return bool(connection.scalar(sa.select(sa.exists().where(label.c.key == key))))


def stood(said: sa.FromClause, at_ms: int | sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Whether an answer (a row of `label`, or of an alias of it) counted at that moment."""
    return sa.and_(said.c.at_ms <= at_ms, sa.or_(said.c.undone_at_ms.is_(None), said.c.undone_at_ms > at_ms))


def answers_of(connection: sa.Connection, snapshot_id: str) -> list[tuple[str, int, str]]:
    """(sample_id, class_index, labeler) of the newest class that each labeler gave each member of a snapshot.

    What was taken back was not given.
    """
    member = snapshot_member.c.sample_id == label.c.sample_id
    newest = (
        sa.select(sa.func.max(label.c.id))
        .join(snapshot_member, member)
        .where(snapshot_member.c.snapshot_id == snapshot_id, label.c.class_index >= 0)
        .where(label.c.undone_at_ms.is_(None))
        .group_by(label.c.sample_id, label.c.labeler)
    )
    query = sa.select(label.c.sample_id, label.c.class_index, label.c.labeler).where(label.c.id.in_(newest))
    return [(row.sample_id, row.class_index, row.labeler) for row in connection.execute(query)]


def audited(connection: sa.Connection, version: int) -> Sequence[Any]:
    """Of the audit's samples that a version answered and a label can score, by their answers.

    Rows of floor, predicted, model_version, said, class_index and truth.
    """
    first = sa.select(label.c.sample_id, sa.func.min(label.c.id).label("at")).group_by(label.c.sample_id).subquery()
    query = (
        sa.select(*(sample.c[name] for name in ("floor", "predicted", "model_version", "said")))
        .add_columns(in_force_.c.class_index, in_force_.c.truth)
        .select_from(sample)
        .join(in_force_, in_force_.c.sample_id == sample.c.id)
        .join(first, first.c.sample_id == sample.c.id)
        .where(sample.c.model_version == version, sample.c.reason.in_(AUDIT_REASONS), sample.c.floor > 0.0)
        .where(consensus.scorable(in_force_.c.class_index, sample.c.said), ~identities.left_out())
        .order_by(first.c.at)
    )
    return connection.execute(query).all()


def plans(connection: sa.Connection) -> list[int]:
    """When was drawn out of what waited, beside the audit: ms, in order of time."""
    drawn = (
        sa.select(of.c.plan_ms)
        .join(sample, sample.c.id == of.c.sample_id)
        .where(of.c.plan_ms.is_not(None), sample.c.reason.not_in(AUDIT_REASONS))
        for of in (label, question)
    )
    return sorted(connection.scalars(sa.union(*drawn)))


def held_out_imports(connection: sa.Connection) -> Sequence[sa.Row[Any]]:
    """Rows of `sample`, with `class_index`, of every labelled import that is held out, by id."""
    answers = in_force().subquery()
    query = (
        sa.select(answers.c.class_index, sample)
        .select_from(answers.join(sample, sample.c.id == answers.c.sample_id))
        .where(sample.c.origin == "import", sample.c.split == "holdout", answers.c.class_index >= 0)
        .order_by(sample.c.id)
    )
    return connection.execute(query).all()


def counts(connection: sa.Connection) -> Counts:
    """How many samples of devices are labelled, unclear, and waiting."""
    said = sa.case((is_label(in_force_.c.class_index), 0), else_=in_force_.c.class_index)
    query = (
        sa.select(said, sa.func.count())
        .select_from(in_force_.join(sample, sample.c.id == in_force_.c.sample_id))
        .where(sample.c.origin == "device")
        .group_by(said)
    )
    answered = {row[0]: row[1] for row in connection.execute(query)}
    left = connection.scalar(sa.select(sa.func.count()).select_from(sample).where(_unanswered()))
    spared = connection.scalar(sa.select(sa.func.count()).select_from(duplicate))
    return Counts(
        labelled=answered.get(0, 0),
        cannot_tell=answered.get(CANNOT_TELL, 0),
        waiting=left or 0,
        duplicates=spared or 0,
        none_of_these=answered.get(NONE_OF_THESE, 0),
    )


class Answered(NamedTuple):
    """What a class has come to so far."""

    labels: int
    timed: int  # of them with a person's time
    seconds: float  # of those together


def by_class(connection: sa.Connection) -> dict[str, Answered]:
    """Of every class that was ever answered, by name, a truth as one of each that it names; imports included."""
    index = dict(enumerate(names(connection)))
    group = sa.select(in_force_.c.class_index, sa.func.count()).group_by(in_force_.c.class_index)
    number = Counter({row[0]: row[1] for row in connection.execute(group.where(in_force_.c.class_index >= 0))})
    truths, named = named_in(in_force_)
    samples = sa.select(named, sa.func.count(in_force_.c.sample_id.distinct())).select_from(truths)
    more = samples.where(in_force_.c.class_index == VALUED).group_by(named)
    number.update({row[0]: row[1] for row in connection.execute(more)})
    timed = sa.select(label.c.class_index, sa.func.count(), sa.func.sum(label.c.seconds)).group_by(label.c.class_index)
    given = timed.where(label.c.seconds > 0.0, label.c.class_index >= 0, label.c.undone_at_ms.is_(None))
    times = {row[0]: (row[1], row[2]) for row in connection.execute(given)}
    return {index[k]: Answered(number[k], *times.get(k, (0, 0.0))) for k in sorted({*number, *times})}


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
    answered = sa.exists().where(in_force_.c.sample_id == sample.c.id)
    spared = sa.exists().where(duplicate.c.sample_id == sample.c.id)
    return sa.and_(sample.c.origin == "device", ~answered, ~spared, ~identities.left_out())


def _unasked() -> sa.ColumnElement[bool]:
    return sa.and_(_unanswered(), ~sa.exists().where(question.c.sample_id == sample.c.id))


def _audit_first(*, newest: bool) -> tuple[sa.ColumnElement[Any], ...]:
    order = sa.case((sample.c.reason.in_(AUDIT_REASONS), 0), else_=1)
    return order, sample.c.received_at_ms.desc() if newest else sample.c.received_at_ms, sample.c.id
