"""Which class is in force for a sample, or which truth that is more than one?

    gold          what somebody vouches for
    a second look answers before it count no more: they were what was doubted
    people        where one answered, what a model said counts no more
    each labeler  counts with his newest answer
    one           is believed
    several       the likeliest class, by what is known of their error rates (agreement.py); of two as likely, the one
                  said last. Who cannot tell has no voice, unless they are more, or as many and the last
    several truths  boxes, classes or numbers are put together (truths.py); confidence is how alike they are

One row a sample that has an answer, written in the transaction that adds or takes back a label. Nothing else writes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from edge_agent.contract.task import plain, truth_of
from server.store import agreement, truths
from server.store.agreement import Answers, Floats
from server.store.insert import insert
from server.store.schema import class_name, gold, label, skill
from server.store.schema import consensus as table

CANNOT_TELL = -1
NONE_OF_THESE = -2  # the labeler can tell, and it is of no class of the schema
VALUED = -3  # the answer is more than a class, and stands in `truth`
CLASSLESS = (CANNOT_TELL, VALUED)
"""Answers that no predicted class is right or wrong by."""

FIRST, AGAIN, SECOND_LOOK, GOLD = "first", "again", "second look", "gold"
"""Why somebody was asked: there was no label; another opinion was wanted; the label was doubted; to measure him."""
TEACHER = "teacher"
MODELS = (TEACHER,)
"""Kinds of labelers whose answer counts only where no person gave one."""

_IDS_AT_ONCE = 500  # values in one IN (...): SQLite allows 32,766
_SCALED_BY = 1000  # truths last in force that say how much the numbers of a target differ
_EQUAL = 1e-9  # two probabilities nearer than this are one


class Known(NamedTuple):
    """What several answers are weighed by. counts: labeler -> (K, K), with "none of these" as the last class."""

    classes: int  # K
    counts: Mapping[str, Floats]
    scales: truths.Scales = MappingProxyType({})


class Decided(NamedTuple):
    """What the answers to one sample come to."""

    class_index: int  # or CANNOT_TELL, NONE_OF_THESE
    confidence: float | None
    labelers: int


def is_label(class_index: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Whether an answer says what a sample is: its class, or a truth that is more than one."""
    return sa.or_(class_index >= 0, class_index == VALUED)


def scorable(class_index: sa.ColumnElement[int], said: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether a label and what the device said can be held against each other."""
    return sa.and_(class_index != CANNOT_TELL, sa.or_(class_index != VALUED, said.is_not(None)))


def resolve(connection: sa.Connection, ids: Collection[str]) -> None:
    """Say anew what is in force for these samples, by the labels that they have now."""
    wanted = list(ids)
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        some = wanted[start : start + _IDS_AT_ONCE]
        given = _given(connection, some)
        known = _known(connection, given.values())
        vouched = connection.execute(
            sa.select(gold.c.sample_id, gold.c.class_index, gold.c.truth).where(_in(gold, some))
        )
        sure = {row.sample_id: row for row in vouched}
        rows = [_row(one, answers, sure.get(one), known) for one, answers in given.items()]
        connection.execute(sa.delete(table).where(_in(table, [one for one in some if one not in given])))
        if rows:
            statement = insert(connection, table)
            new = {name: statement.excluded[name] for name in rows[0] if name != "sample_id"}
            connection.execute(statement.on_conflict_do_update(index_elements=[table.c.sample_id], set_=new), rows)


def decide(answers: Sequence[Any], sure: int | None, known: Known) -> Decided:
    """What the answers to one sample come to.

    Args:
        answers: what stands of them, in order of time: labeler, class_index, kind, purpose; at least one.
        sure: the class it has as gold, or None.
        known: of the labelers; one that is not in it counts as anybody.
    """
    newest = {who: row.class_index for who, row in counting(answers).items()}
    if sure is not None:
        return Decided(sure, 1.0, len(newest))
    if _unclear(list(newest.values())):
        return Decided(CANNOT_TELL, None, len(newest))
    told = {who: said for who, said in newest.items() if said != CANNOT_TELL}
    if len(told) == 1:
        return Decided(next(iter(told.values())), None, len(newest))
    likely = _posterior(told, known)
    best = [said for said in told.values() if likely[_place(said, known.classes)] >= likely.max() - _EQUAL]
    class_index = best[-1] if best else _class_at(int(likely.argmax()), known.classes)
    return Decided(class_index, float(likely.max()), len(newest))


def decide_truth(answers: Sequence[Any], known: Known) -> tuple[Decided, dict[str, Any] | None]:
    """The same where somebody's answer that counts is more than a class; and the truth, as plain data."""
    newest = list(counting(answers).values())
    if _unclear([row.class_index for row in newest]):
        return Decided(CANNOT_TELL, None, len(newest)), None
    said = [truth_of(row.truth) for row in newest if row.class_index == VALUED]
    said = [one for one in said if one.task == said[-1].task]
    sure = truths.agreement(said, scales=known.scales) if len(said) > 1 else None
    return Decided(VALUED, sure, len(newest)), plain(truths.merged(said))


def _unclear(newest: Sequence[int]) -> bool:
    """Whether those who cannot tell are more, or as many and the last."""
    cannot = newest.count(CANNOT_TELL)
    return 2 * cannot > len(newest) or (2 * cannot == len(newest) and newest[-1] == CANNOT_TELL)


def counting(answers: Iterable[Any]) -> dict[str, Any]:
    """Labeler -> his answer, of those that count, in the order in which they were last given."""
    rows = list(answers)
    looks = [i for i, row in enumerate(rows) if row.purpose == SECOND_LOOK]
    rows = rows[looks[-1] :] if looks else rows
    people = [row for row in rows if row.kind not in MODELS]
    newest: dict[str, Any] = {}
    for row in people or rows:
        newest.pop(row.labeler, None)
        newest[row.labeler] = row
    return newest


def refit(connection: sa.Connection) -> dict[str, Floats]:
    """Estimate the labelers anew, from gold and from what several answered: labeler -> counts (K, K).

    Read only; `keep` writes it. Every labeler's newest answer to a sample counts, of people and models alike; but
    whoever vouches for a class is not found careful by that.
    """
    several = sa.select(label.c.sample_id).where(label.c.undone_at_ms.is_(None)).group_by(label.c.sample_id)
    several = several.having(sa.func.count(label.c.labeler.distinct()) > 1)
    vouched = sa.exists().where(gold.c.sample_id == label.c.sample_id, gold.c.labeler == label.c.labeler)
    told = (label.c.undone_at_ms.is_(None), label.c.class_index.not_in(CLASSLESS), ~vouched)
    query = sa.select(label.c.sample_id, label.c.labeler, label.c.class_index).where(*told).order_by(label.c.id)
    rows = connection.execute(query.where(label.c.sample_id.in_(several)))
    newest = {(row.sample_id, row.labeler): row.class_index for row in rows}
    if not newest:
        return {}
    samples, labelers = (list(dict.fromkeys(key[i] for key in newest)) for i in (0, 1))
    classes = _classes(connection, newest.values())
    at = [{name: place for place, name in enumerate(names)} for names in (samples, labelers)]
    triples = np.array([(at[0][s], at[1][who], _place(said, classes)) for (s, who), said in newest.items()], np.intp)
    sure = connection.execute(sa.select(gold.c.sample_id, gold.c.class_index).where(gold.c.class_index != VALUED))
    known = {at[0][row.sample_id]: _place(row.class_index, classes) for row in sure if row.sample_id in at[0]}
    said = Answers(*(triples.T))
    fit = agreement.dawid_skene(said, items=len(samples), labelers=len(labelers), classes=classes, known=known)
    return dict(zip(labelers, fit.counts, strict=True))


def keep(connection: sa.Connection, counts: Mapping[str, Floats]) -> None:
    """Weigh by these from now on."""
    newest = connection.scalar(sa.select(sa.func.max(label.c.id))) or 0
    connection.execute(sa.delete(skill))
    rows = [{"labeler": who, "counts": _sparse(table), "label_id": newest} for who, table in counts.items()]
    if rows:
        connection.execute(sa.insert(skill), rows)


def contested(connection: sa.Connection) -> list[str]:
    """Ids of the samples to which several gave a class: what a change in the labelers' rates may change."""
    several = (table.c.labelers > 1, table.c.class_index != VALUED)
    return list(connection.scalars(sa.select(table.c.sample_id).where(*several)))


def stale(connection: sa.Connection) -> int:
    """Samples that several answered since the labelers were last estimated; where none can tell, nothing is learned."""
    last = sa.select(sa.func.coalesce(sa.func.max(skill.c.label_id), 0)).scalar_subquery()
    several = (table.c.labelers > 1, table.c.label_id > last, table.c.class_index.not_in(CLASSLESS))
    return connection.scalar(sa.select(sa.func.count()).select_from(table).where(*several)) or 0


def skills(connection: sa.Connection, classes: int) -> dict[str, Floats]:
    """Labeler -> counts (K, K), as kept; classes that came since have none."""
    return {row.labeler: _dense(row.counts, classes) for row in connection.execute(sa.select(skill))}


def _given(connection: sa.Connection, ids: Sequence[str]) -> dict[str, list[Any]]:
    columns = (
        "id", "sample_id", "class_index", "truth", "labeler", "kind", "purpose", "probability", "plan_ms", "stands_for",
    )  # fmt: skip
    query = sa.select(*(label.c[name] for name in columns)).where(_in(label, ids), label.c.undone_at_ms.is_(None))
    found: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(query.order_by(label.c.sample_id, label.c.id)):  # as the index has them
        found[row.sample_id].append(row)
    return found


def _known(connection: sa.Connection, given: Collection[Sequence[Any]]) -> Known:
    """Looked up only where somebody disagrees, or may."""
    if all(len(answers) == 1 for answers in given):
        return Known(1, {})
    classes = _classes(connection, (row.class_index for answers in given for row in answers))
    numbers = any(len(answers) > 1 and "values" in (row.truth or ()) for answers in given for row in answers)
    return Known(classes, skills(connection, classes), scales(connection) if numbers else {})


def scales(connection: sa.Connection) -> dict[int, float]:
    """Target -> the standard deviation of its numbers that were last in force, where they differ."""
    query = sa.select(table.c.truth).where(table.c.class_index == VALUED).order_by(table.c.label_id.desc())
    numbers: dict[int, list[float]] = defaultdict(list)
    for truth in connection.scalars(query.limit(_SCALED_BY)):
        for value in truth_of(truth).values or ():
            numbers[value.label].append(value.value)
    return {label: spread for label, some in numbers.items() if (spread := float(np.std(some))) > 0.0}


def _row(sample_id: str, answers: Sequence[Any], sure: Any, known: Known) -> dict[str, Any]:
    drawn = next((row for row in reversed(answers) if row.probability is not None), answers[-1])
    newest = counting(answers)
    truth: dict[str, Any] | None = None
    if sure is None and any(row.class_index == VALUED for row in newest.values()):
        decided, truth = decide_truth(answers, known)
    else:
        decided, truth = decide(answers, None if sure is None else sure.class_index, known), sure and sure.truth
    said_so = next((row.labeler for row in reversed(answers) if row.class_index == decided.class_index), "")
    return {
        "sample_id": sample_id,
        **decided._asdict(),
        "truth": truth,
        "labeler": said_so or answers[-1].labeler,
        "label_id": answers[-1].id,
        "probability": drawn.probability,
        "plan_ms": drawn.plan_ms,
        "stands_for": drawn.stands_for,
    }


def _posterior(told: Mapping[str, int], known: Known) -> Floats:
    """(K,) of the classes, all alike beforehand."""
    nothing = np.zeros((known.classes, known.classes))
    counts = np.stack([known.counts.get(who, nothing) for who in told])
    said = [(j, _place(answer, known.classes)) for j, answer in enumerate(told.values())]
    share = np.full(known.classes, 1.0 / known.classes)
    return agreement.posterior_of(said, agreement.rates(counts), share)


def _classes(connection: sa.Connection, said: Iterable[int]) -> int:
    """K: the schema, and "none of these"."""
    return max(connection.scalar(sa.select(sa.func.max(class_name.c.index))) or 0, *said, 0) + 2


def _place(class_index: int, classes: int) -> int:
    return classes - 1 if class_index == NONE_OF_THESE else class_index


def _class_at(place: int, classes: int) -> int:
    return NONE_OF_THESE if place == classes - 1 else place


def _in(of: sa.Table, ids: Sequence[str]) -> sa.ColumnElement[bool]:
    return of.c.sample_id.in_(ids)


def _sparse(counts: Floats) -> list[list[float]]:
    """Without the zeros; "none of these" as NONE_OF_THESE, whatever classes come later."""
    classes = len(counts)
    places = zip(*np.nonzero(counts > _EQUAL), strict=True)
    return [[_class_at(int(k), classes), _class_at(int(j), classes), float(counts[k, j])] for k, j in places]


def _dense(rows: Sequence[Sequence[float]], classes: int) -> Floats:
    counts = np.zeros((classes, classes))
    for truth, said, number in rows:
        counts[_place(int(truth), classes), _place(int(said), classes)] = number
    return counts
