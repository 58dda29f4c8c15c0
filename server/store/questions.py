"""What are labelers to be asked, and who is being asked what?

    question   a sample in the queue, until as many people as are wanted have answered
    lease      it was handed to a labeler, and to nobody beyond those wanted, until that runs out or is answered; one
               that was skipped lets others have it at once, its labeler only after its time
    gold       a sample whose class is known for sure

All of it is rows, so a restart loses none; a row goes with its sample.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from server.store.consensus import FIRST, GOLD, MODELS, SECOND_LOOK
from server.store.insert import insert
from server.store.samples import body_names
from server.store.schema import consensus, duplicate, gold, label, lease, question

SOON, PLANNED = 0, 1
"""Turns: what somebody asked for comes before what a plan did."""


class Queued(NamedTuple):
    """One question."""

    sample_id: str
    purpose: str  # FIRST, AGAIN or SECOND_LOOK
    at_ms: int
    wanted: int = 1  # people
    turn: int = PLANNED
    probability: float | None = None
    plan_ms: int | None = None
    beside: tuple[str, ...] = ()  # what shows the same, and is spared once this is answered

    @property
    def drawn(self) -> dict[str, Any]:
        """How it came to be asked, as every answer keeps it: whichever is taken back, the others still say it."""
        return {"probability": self.probability, "plan_ms": self.plan_ms, "stands_for": 1 + len(self.beside)}


class Lease(NamedTuple):
    """One labeler at one sample."""

    sample_id: str
    labeler: str
    purpose: str
    at_ms: int
    until_ms: int
    guess: int | None = None
    guess_by: str = ""
    confidence: float | None = None  # of the guess
    shown: bool = False
    skipped: bool = False


def put(connection: sa.Connection, made: Sequence[Queued]) -> int:
    """Queue them; one that is queued already is asked for the newer purpose, and of no fewer people: some may have it.

    Returns how many samples are here.
    """
    here = body_names(connection, {one.sample_id for one in made})
    rows = [one._asdict() | {"beside": list(one.beside)} for one in made if one.sample_id in here]
    if rows:
        statement = insert(connection, question)
        new: dict[str, Any] = {name: statement.excluded[name] for name in ("purpose", "at_ms", "turn")}
        before, wanted = question.c.wanted, statement.excluded.wanted
        new["wanted"] = sa.case((before > wanted, before), else_=wanted)
        connection.execute(statement.on_conflict_do_update(index_elements=[question.c.sample_id], set_=new), rows)
    return len(rows)


def get(connection: sa.Connection, sample_id: str) -> Queued | None:
    """The question about a sample."""
    row = connection.execute(sa.select(question).where(question.c.sample_id == sample_id)).one_or_none()
    if row is None:
        return None
    return Queued(**{name: getattr(row, name) for name in Queued._fields if name != "beside"}, beside=tuple(row.beside))


def drop(connection: sa.Connection, sample_id: str) -> None:
    """It is answered."""
    connection.execute(sa.delete(question).where(question.c.sample_id == sample_id))


def forget(connection: sa.Connection, ids: Collection[str]) -> None:
    """What shows the same as a question's sample may be erased; its place stays: the answer stands for as many."""
    rows = connection.execute(sa.select(question.c.id, question.c.beside)).all()
    for number, beside in rows:
        if any(one in ids for one in beside):
            values = {"beside": ["" if one in ids else one for one in beside]}
            connection.execute(sa.update(question).where(question.c.id == number).values(values))


def withdraw(connection: sa.Connection, *, now_ms: int) -> int:
    """What a plan put here and nobody has at hand waits to be planned again; returns how many."""
    planned = sa.or_(question.c.turn == PLANNED, question.c.probability.is_not(None))
    which = (question.c.purpose == FIRST, planned, ~_at_hand(now_ms))
    return connection.execute(sa.delete(question).where(*which)).rowcount


def wished(connection: sa.Connection, *, now_ms: int, limit: int) -> list[str]:
    """Samples that somebody wants labelled soon, by whom he did not say, and nobody has at hand; in order."""
    wish = (question.c.purpose == FIRST, question.c.turn == SOON, question.c.probability.is_(None))
    query = sa.select(question.c.sample_id).where(*wish, question.c.wanted == 1, ~_at_hand(now_ms))
    return list(connection.scalars(query.order_by(question.c.id).limit(limit)))


def _at_hand(now_ms: int) -> sa.ColumnElement[bool]:
    return sa.exists().where(lease.c.sample_id == question.c.sample_id, lease.c.until_ms > now_ms, ~lease.c.skipped)


def want(connection: sa.Connection, sample_id: str, wanted: int) -> None:
    """So many people, and soon."""
    which = question.c.sample_id == sample_id
    connection.execute(sa.update(question).where(which).values(wanted=wanted, turn=SOON))


def make_room(connection: sa.Connection, *, now_ms: int) -> None:
    """Whoever is at a question is among those wanted, however it came to be asked again meanwhile."""
    at_hand = (lease.c.until_ms > now_ms, ~lease.c.skipped, lease.c.purpose != GOLD)
    people = sa.select(sa.func.count()).where(lease.c.sample_id == question.c.sample_id, *at_hand).scalar_subquery()
    held = question.c.sample_id.in_(sa.select(lease.c.sample_id).where(*at_hand))
    connection.execute(sa.update(question).where(held, question.c.wanted < people).values(wanted=people))


def count(connection: sa.Connection) -> dict[str, int]:
    """Purpose -> questions."""
    query = sa.select(question.c.purpose, sa.func.count()).group_by(question.c.purpose)
    return {row[0]: row[1] for row in connection.execute(query)}


def unanswered(connection: sa.Connection) -> int:
    """Questions of a plan that nobody has answered: one that waits for a second person keeps nobody from others."""
    told = sa.exists().where(consensus.c.sample_id == question.c.sample_id)
    return connection.scalar(sa.select(sa.func.count()).where(question.c.purpose == FIRST, ~told)) or 0


def answered(connection: sa.Connection, asked: Queued) -> int:
    """How many people have answered it: for a second look, since it was asked for."""
    mine = (label.c.sample_id == asked.sample_id, _counts(), label.c.kind.not_in(MODELS))
    since = asked.at_ms if asked.purpose == SECOND_LOOK else 0
    query = sa.select(sa.func.count(label.c.labeler.distinct())).where(*mine, label.c.at_ms >= since)
    return connection.scalar(query) or 0


def open_to(connection: sa.Connection, labeler: str, *, limit: int, now_ms: int) -> list[str]:
    """Ids of the samples that this labeler may be asked about next, in order: nobody else is at them, nor was he."""
    since = sa.case((question.c.purpose == SECOND_LOOK, question.c.at_ms), else_=0)
    given = sa.and_(label.c.sample_id == question.c.sample_id, _counts(), label.c.at_ms >= since)
    held = sa.and_(lease.c.sample_id == question.c.sample_id, lease.c.until_ms > now_ms)
    people = sa.select(sa.func.count(label.c.labeler.distinct())).where(given, label.c.kind.not_in(MODELS))
    others = sa.select(sa.func.count()).select_from(lease).where(held, ~lease.c.skipped)
    query = (
        sa.select(question.c.sample_id)
        .where(
            ~sa.exists().where(given, label.c.labeler == labeler),
            ~sa.exists().where(held, lease.c.labeler == labeler),
            people.scalar_subquery() + others.scalar_subquery() < question.c.wanted,
        )
        .order_by(question.c.turn, question.c.id)
        .limit(limit)
    )
    return list(connection.scalars(query))


# --- leases -----------------------------------------------------------------------------------------------------------


def hold(connection: sa.Connection, made: Sequence[Lease]) -> None:
    """Lease; a labeler's earlier lease of the same sample is over."""
    if made:
        statement = insert(connection, lease)
        new = {name: statement.excluded[name] for name in Lease._fields[2:]}
        target = [lease.c.sample_id, lease.c.labeler]
        rows = [one._asdict() for one in made]
        connection.execute(statement.on_conflict_do_update(index_elements=target, set_=new), rows)


def held(connection: sa.Connection, labeler: str, *, now_ms: int) -> list[Lease]:
    """What a labeler has at hand, as it was given him."""
    mine = (lease.c.labeler == labeler, lease.c.until_ms > now_ms, ~lease.c.skipped)
    return [_lease(row) for row in connection.execute(sa.select(lease).where(*mine).order_by(lease.c.id))]


def lease_of(connection: sa.Connection, labeler: str, sample_id: str) -> Lease | None:
    """That labeler's lease of a sample, run out or not."""
    query = sa.select(lease).where(lease.c.labeler == labeler, lease.c.sample_id == sample_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _lease(row)


def release(connection: sa.Connection, labeler: str, sample_id: str) -> None:
    """It is over."""
    connection.execute(sa.delete(lease).where(lease.c.labeler == labeler, lease.c.sample_id == sample_id))


def leased(connection: sa.Connection, *, now_ms: int) -> dict[str, int]:
    """Labeler -> samples that he has at hand."""
    query = sa.select(lease.c.labeler, sa.func.count()).where(lease.c.until_ms > now_ms, ~lease.c.skipped)
    return {row[0]: row[1] for row in connection.execute(query.group_by(lease.c.labeler))}


# --- gold -------------------------------------------------------------------------------------------------------------


def vouch(
    connection: sa.Connection,
    sample_id: str,
    class_index: int,
    *,
    truth: dict[str, Any] | None = None,
    labeler: str,
    at_ms: int,
) -> None:
    """That sample is of that class, or that is its truth (with VALUED), for sure."""
    values = {"class_index": class_index, "truth": truth, "labeler": labeler, "at_ms": at_ms}
    statement = insert(connection, gold).values(sample_id=sample_id, **values)
    new = {name: statement.excluded[name] for name in values}
    connection.execute(statement.on_conflict_do_update(index_elements=[gold.c.sample_id], set_=new))


def doubt(connection: sa.Connection, sample_id: str) -> bool:
    """It is gold no more; False when it was none."""
    return connection.execute(sa.delete(gold).where(gold.c.sample_id == sample_id)).rowcount == 1


def golden(connection: sa.Connection) -> Sequence[Any]:
    """Every gold sample: its row, by time."""
    return connection.execute(sa.select(gold).order_by(gold.c.at_ms, gold.c.sample_id)).all()


def gold_for(connection: sa.Connection, labeler: str) -> list[str]:
    """Ids of the gold samples that this labeler has neither answered nor at hand."""
    met = sa.exists().where(label.c.sample_id == gold.c.sample_id, label.c.labeler == labeler, _counts())
    at_hand = sa.exists().where(lease.c.sample_id == gold.c.sample_id, lease.c.labeler == labeler)
    query = sa.select(gold.c.sample_id).where(~met, ~at_hand)  # whoever vouches for one has answered it
    return list(connection.scalars(query.order_by(gold.c.sample_id)))


# --- taking back ------------------------------------------------------------------------------------------------------


def last_given(connection: sa.Connection, labeler: str) -> Any:
    """A labeler's newest answer that counts, but for what he vouches for: its row of `label`, or None."""
    vouched = sa.exists().where(gold.c.sample_id == label.c.sample_id, gold.c.labeler == labeler)
    query = sa.select(label).where(label.c.labeler == labeler, _counts(), ~vouched)
    query = query.order_by(label.c.id.desc()).limit(1)
    return connection.execute(query).one_or_none()


def take_back(connection: sa.Connection, label_id: int, *, now_ms: int) -> None:
    """An answer counts no more. What is in force has to be said anew."""
    connection.execute(sa.update(label).where(label.c.id == label_id).values(undone_at_ms=now_ms))


def unspare(connection: sa.Connection, sample_id: str) -> tuple[str, ...]:
    """What was spared beside a sample that has no class any more waits again; returns the ids."""
    if connection.scalar(sa.select(sa.exists().where(consensus.c.sample_id == sample_id))):
        return ()
    beside = tuple(connection.scalars(sa.select(duplicate.c.sample_id).where(duplicate.c.stands_with == sample_id)))
    connection.execute(sa.delete(duplicate).where(duplicate.c.stands_with == sample_id))
    return beside


def _counts() -> sa.ColumnElement[bool]:
    return label.c.undone_at_ms.is_(None)


def _lease(row: Any) -> Lease:
    return Lease(**{name: getattr(row, name) for name in Lease._fields})
