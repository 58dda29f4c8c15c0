"""Who has answered how much, and how well?

Counts out of the labels, by labeler; what follows from them, label/quality.py says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from edge_agent.contract.task import truth_of
from server.store.consensus import AGAIN, CANNOT_TELL, CLASSLESS, GOLD, MODELS, VALUED, scales
from server.store.schema import consensus, gold, label, lease, user
from server.store.truths import likeness


class Effort(NamedTuple):
    """What one labeler has given, and what it took; answers that were taken back took their time too."""

    labeler: str
    kind: str
    answers: int
    cannot_tell: int
    undone: int
    seconds: float
    price: float


class Score(NamedTuple):
    """How many of n were right, or the same: of truths that are more than a class, how alike they were (truths.py)."""

    right: float
    n: int


def names(connection: sa.Connection) -> list[str]:
    """Whoever has answered, was asked, vouches for a sample, or may sign in."""
    columns = (label.c.labeler, lease.c.labeler, gold.c.labeler, user.c.name)
    return list(connection.scalars(sa.union(*(sa.select(one) for one in columns)).order_by(sa.literal_column("1"))))


def efforts(connection: sa.Connection, *, since_ms: int = 0) -> Sequence[Effort]:
    """One row to every labeler and kind, imports included; the most answers first."""
    stands = label.c.undone_at_ms.is_(None)
    answers = sa.func.sum(sa.case((stands, 1), else_=0))
    unclear = sa.func.sum(sa.case((sa.and_(stands, label.c.class_index == CANNOT_TELL), 1), else_=0))
    query = (
        sa.select(label.c.labeler, label.c.kind, answers, unclear, sa.func.count() - answers)
        .add_columns(sa.func.sum(label.c.seconds), sa.func.sum(label.c.price))
        .where(label.c.at_ms >= since_ms)
        .group_by(label.c.labeler, label.c.kind)
        .order_by(answers.desc(), label.c.labeler)
    )
    return [Effort(*row) for row in connection.execute(query)]


def by_gold(connection: sa.Connection) -> dict[str, Score]:
    """Labeler -> how many gold questions he got right; "cannot tell" is not right, nor what was mended unasked."""
    newest = _newest(purpose=GOLD).subquery()
    return _scores(connection, newest, gold)


def by_consensus(connection: sa.Connection) -> dict[str, Score]:
    """Labeler -> how many of his answers are in force, of samples that others have answered as well."""
    newest = _newest().where(label.c.class_index != CANNOT_TELL).subquery()
    other = sa.and_(
        label.c.sample_id == newest.c.sample_id, label.c.labeler != newest.c.labeler, label.c.undone_at_ms.is_(None)
    )
    told = (consensus.c.class_index != CANNOT_TELL, sa.exists().where(other, label.c.class_index != CANNOT_TELL))
    return _scores(connection, newest, consensus, *told)


def by_guess(connection: sa.Connection) -> dict[bool, Score]:
    """Whether the guess was shown -> how many of people's first answers were that guess."""
    same = sa.func.sum(sa.case((label.c.class_index == label.c.guess, 1), else_=0))
    told = (label.c.guess.is_not(None), label.c.undone_at_ms.is_(None), label.c.kind.not_in(MODELS))
    query = sa.select(label.c.shown, same, sa.func.count()).where(*told, label.c.class_index.not_in(CLASSLESS))
    return {bool(row[0]): Score(row[1], row[2]) for row in connection.execute(query.group_by(label.c.shown))}


def models_against_people(connection: sa.Connection) -> dict[str, Score]:
    """Model -> how many of its labels people have confirmed, of those that they were asked about too.

    Not of those that somebody doubted: they are wrong more often.
    """
    newest = _newest().where(label.c.kind.in_(MODELS)).subquery()
    person = sa.and_(
        label.c.sample_id == newest.c.sample_id,
        label.c.kind.not_in(MODELS),
        label.c.purpose == AGAIN,
        label.c.undone_at_ms.is_(None),
    )
    return _scores(connection, newest, consensus, consensus.c.class_index != CANNOT_TELL, sa.exists().where(person))


def _scores(
    connection: sa.Connection, newest: sa.Subquery, right: sa.Table, *where: sa.ColumnElement[bool]
) -> dict[str, Score]:
    """Labeler -> how many of these answers say what `right` (gold, consensus) says of their samples, or how nearly."""
    same = sa.func.sum(sa.case((newest.c.class_index == right.c.class_index, 1), else_=0))
    both = sa.and_(newest.c.class_index == VALUED, right.c.class_index == VALUED)
    joined = newest.join(right, right.c.sample_id == newest.c.sample_id)
    counted = sa.select(newest.c.labeler, same, sa.func.count()).select_from(joined).where(*where, ~both)
    found = {row[0]: Score(row[1], row[2]) for row in connection.execute(counted.group_by(newest.c.labeler))}
    pairs = sa.select(newest.c.labeler, newest.c.truth, right.c.truth.label("right")).select_from(joined)
    rows = connection.execute(pairs.where(*where, both)).all()
    by = scales(connection) if rows else {}
    for row in rows:
        before = found.get(row.labeler, Score(0, 0))
        alike = likeness(truth_of(row.truth), truth_of(row.right), scales=by)
        found[row.labeler] = Score(before.right + alike, before.n + 1)
    return found


def _newest(*, purpose: str = "") -> sa.Select[Any]:
    """Every labeler's newest answer to every sample; with `purpose` of those that he was asked for to that end."""
    own = label.alias("own")
    mine = [own.c.sample_id == label.c.sample_id, own.c.labeler == label.c.labeler, own.c.undone_at_ms.is_(None)]
    if purpose:
        mine.append(own.c.purpose == purpose)
    last = sa.select(sa.func.max(own.c.id)).where(*mine)
    return sa.select(label).where(label.c.undone_at_ms.is_(None), label.c.id == last.scalar_subquery())
