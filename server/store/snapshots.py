"""What exactly was a model trained and judged on?

A snapshot is the labelled samples of one moment: for each its class, whose answer that is, its split, the probability
of its having come there, and the data rule that it is used under; and, of those that were left out, why. Uploads that
wait for a label are members where a training learns from these, too, in a split of their own. It never changes, and
its id is the sha256 over all of it, so the same labels under the same rules always have the same id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from server.errors import StoreError
from server.store import consensus as agreed
from server.store import identities, labels
from server.store.rules import Rule
from server.store.schema import consensus, label, sample, snapshot, snapshot_left_out, snapshot_member
from server.store.text import begins

FORMAT = 2
"""1: ids over classes and members, of which neither labelers nor rules were known. Whoever changes what an id is made
of, a field of Rule included, begins the next."""

UNLABELLED = "unlabelled"  # the split of what waits for a label and is learned from all the same
NO_CLASS = -1  # of those
TAUGHT = ("train", UNLABELLED)
"""The splits that a version learned from."""

_INSERT_ROWS = 1000
_PAGE_ROWS = 500  # of members: fewer are many queries, more is memory
_SHORTEST_PREFIX = 6  # of an id, that a person may type: fewer characters are soon those of two


class Member(NamedTuple):
    """One sample."""

    sample_id: str
    class_index: int  # NO_CLASS where it has no label, VALUED where that is its truth
    split: str  # "train", "holdout" or UNLABELLED
    probability: float | None  # of having come into its split and been labelled (teach/splits.py); None for imports
    labeler: str = ""
    rule: int | None = None  # index into the rules of the snapshot
    truth: dict[str, Any] | None = None  # plain data of contract/task.py Truth; None: its class is all


class LeftOut(NamedTuple):
    """A labelled sample that is no member."""

    sample_id: str
    why: str  # as teach/splits.py has them
    beside: str = ""  # the held-out sample that it is like, or near to


class Snapshot(NamedTuple):
    """A frozen set of labelled samples."""

    id: str
    created_at_ms: int
    classes: tuple[str, ...]
    train_count: int
    holdout_count: int
    device_label_count: int
    format: int = FORMAT
    rules: tuple[Rule, ...] = ()


_LABELLED = snapshot_member.c.split != UNLABELLED


def identify(
    members: Iterable[Member],
    classes: Sequence[str],
    *,
    rules: Sequence[Rule] = (),
    left_out: Iterable[LeftOut] = (),
) -> str:
    """Sha256, in hex, over the classes, the rules, the members and what is left out, each in order of sample ids.

    >>> a, b = Member("a", 0, "train", None), Member("b", 1, "holdout", 0.5)
    >>> identify([a, b], ["x", "y"]) == identify([b, a], ["x", "y"]) != identify([a], ["x", "y"])
    True
    """
    made = Identity(classes, rules)
    for member in sorted(members, key=lambda one: one.sample_id):
        made.add(encoded(member))
    for other in sorted(left_out):
        made.add(encoded(other))
    return made.id


def encoded(row: Member | LeftOut) -> bytes:
    """A row as ids are made of it: without a truth where it has none, so that older ids are what they were."""
    whole = isinstance(row, LeftOut) or row.truth is not None
    return msgspec.json.encode(row if whole else tuple(row)[:-1])


class Identity:
    """The id of a snapshot, row by row: members in order of sample ids, then what is left out, each as JSON."""

    def __init__(self, classes: Sequence[str], rules: Sequence[Rule]) -> None:
        self._digest = hashlib.sha256(msgspec.json.encode([FORMAT, list(classes), list(rules)]))

    def add(self, row: bytes) -> None:
        """The next row."""
        self._digest.update(b"\n" + row)

    @property
    def id(self) -> str:
        """Of all rows so far."""
        return self._digest.hexdigest()


def labelled(connection: sa.Connection) -> Sequence[Any]:
    """Every labelled sample but those left out with a revoked device, by id.

    Rows of what decides in `sample`, with class_index, truth, labeler, asked (the probability of having been asked
    about, or None), plan_ms and stands_for (as in `label`).
    """
    more = (consensus.c[name] for name in ("truth", "labeler", "plan_ms", "stands_for"))
    answers = labels.in_force().add_columns(*more).subquery()
    names = ("id", "device", "stream", "boot", "seq", "origin", "split", "received_at_ms", "probability", "floor")
    query = (
        sa.select(*(sample.c[name] for name in names), answers.c.class_index, answers.c.truth)
        .add_columns(answers.c.labeler, answers.c.probability.label("asked"), answers.c.plan_ms, answers.c.stands_for)
        .select_from(answers.join(sample, sample.c.id == answers.c.sample_id))
        .where(_taken(answers))
        .order_by(sample.c.id)
    )
    return connection.execute(query).all()


def held_out(connection: sa.Connection) -> Sequence[Any]:
    """(id, device, stream, boot, seq) of everything that was held out on arrival, labelled or not, by id."""
    names = ("id", "device", "stream", "boot", "seq")
    query = sa.select(*(sample.c[name] for name in names)).where(sample.c.split == "holdout", ~identities.left_out())
    return connection.execute(query.order_by(sample.c.id)).all()


def count_new(connection: sa.Connection, snapshot_id: str) -> int:
    """How many labelled samples of devices a snapshot of now would know that this one does not; "": that none does."""
    answers = labels.in_force().subquery()
    known = [
        ~sa.exists().where(*of, table.c.snapshot_id == snapshot_id, table.c.sample_id == sample.c.id)
        for table, of in ((snapshot_member, (_LABELLED,)), (snapshot_left_out, ()))
    ]
    query = (
        sa.select(sa.func.count())
        .select_from(answers.join(sample, sample.c.id == answers.c.sample_id))
        .where(sample.c.origin == "device", _taken(answers), *known)
    )
    return connection.scalar(query) or 0


def _taken(answers: sa.Subquery) -> sa.ColumnElement[bool]:
    return sa.and_(agreed.is_label(answers.c.class_index), ~identities.left_out())


def insert(
    connection: sa.Connection, made: Snapshot, members: Sequence[Member], left_out: Sequence[LeftOut] = ()
) -> None:
    """Keep a snapshot; one that is here already stays as it is."""
    if get(connection, made.id) is not None:
        return
    connection.execute(sa.insert(snapshot).values(made._asdict() | {"rules": msgspec.to_builtins(made.rules)}))
    for table, rows in ((snapshot_member, members), (snapshot_left_out, left_out)):
        values = [{"snapshot_id": made.id, **row._asdict()} for row in rows]
        for i in range(0, len(values), _INSERT_ROWS):
            connection.execute(sa.insert(table), values[i : i + _INSERT_ROWS])


def get(connection: sa.Connection, snapshot_id: str) -> Snapshot | None:
    """The snapshot of that id."""
    row = connection.execute(sa.select(snapshot).where(snapshot.c.id == snapshot_id)).one_or_none()
    return None if row is None else _snapshot(row)


def find(connection: sa.Connection, said: str) -> Snapshot:
    """The snapshot whose id begins so; StoreError when there is none, or more than one."""
    query = sa.select(snapshot).where(begins(snapshot.c.id, said.lower())).limit(2)
    found = connection.execute(query).all() if len(said) >= _SHORTEST_PREFIX else []
    if len(found) == 1:
        return _snapshot(found[0])
    what = "more than one begins so" if found else "there is none"
    raise StoreError(
        f"snapshot {said!r}: {what}: expected an id of `winnow-server snapshot list`, or its first "
        f"{_SHORTEST_PREFIX} characters at least"
    )


def every(connection: sa.Connection) -> list[Snapshot]:
    """All of them, the oldest first."""
    rows = connection.execute(sa.select(snapshot).order_by(snapshot.c.created_at_ms, snapshot.c.id))
    return [_snapshot(row) for row in rows]


def _snapshot(row: Any) -> Snapshot:
    rules = msgspec.convert(row.rules, type=tuple[Rule, ...])
    return Snapshot(**{**row._asdict(), "classes": tuple(row.classes), "rules": rules})


def left_out(connection: sa.Connection, snapshot_id: str) -> list[LeftOut]:
    """What was labelled and is no member, by sample id; of samples erased since nothing is left."""
    columns = (snapshot_left_out.c[name] for name in LeftOut._fields)
    query = sa.select(*columns).where(snapshot_left_out.c.snapshot_id == snapshot_id)
    return [LeftOut(*row) for row in connection.execute(query.order_by(snapshot_left_out.c.sample_id))]


def left_out_counts(connection: sa.Connection) -> dict[str, int]:
    """How many every snapshot leaves out."""
    query = sa.select(snapshot_left_out.c.snapshot_id, sa.func.count()).group_by(snapshot_left_out.c.snapshot_id)
    return {row[0]: row[1] for row in connection.execute(query)}


def answered_by(labeler: str) -> sa.ColumnElement[bool]:
    """Which members had an answer of that labeler that counted when they were frozen."""
    said, frozen = label.alias(), snapshot.alias()
    mine = sa.exists().where(
        frozen.c.id == snapshot_member.c.snapshot_id,
        said.c.labeler == labeler,
        said.c.sample_id == snapshot_member.c.sample_id,
        labels.stood(said, frozen.c.created_at_ms),
    )
    his = sa.select(label.c.sample_id).where(label.c.labeler == labeler)  # what there is to look at
    return sa.or_(sa.and_(snapshot_member.c.sample_id.in_(his), mine), snapshot_member.c.labeler == labeler)


def rows_as_json(connection: sa.Connection, snapshot_id: str) -> Iterator[bytes]:
    """Its rows as its id is made of them, in their order: of a million, none is held."""
    for table, kind in ((snapshot_member, Member), (snapshot_left_out, LeftOut)):
        columns = [table.c[name] for name in kind._fields]
        query = sa.select(*columns).where(table.c.snapshot_id == snapshot_id).order_by(table.c.sample_id)
        for row in connection.execution_options(yield_per=_INSERT_ROWS).execute(query):
            yield encoded(kind(*row))


def sample_ids(connection: sa.Connection, snapshot_id: str) -> set[str]:
    """The ids of its labelled members."""
    query = sa.select(snapshot_member.c.sample_id).where(snapshot_member.c.snapshot_id == snapshot_id, _LABELLED)
    return set(connection.scalars(query))


def held_out_probabilities(connection: sa.Connection, snapshot_id: str) -> list[float]:
    """Of its held-out members that came from devices: 1 / weight of each, 1 where it is not known."""
    held = sa.and_(snapshot_member.c.snapshot_id == snapshot_id, snapshot_member.c.split == "holdout")
    query = sa.select(sa.func.coalesce(snapshot_member.c.probability, 1.0)).select_from(
        snapshot_member.join(sample, sample.c.id == snapshot_member.c.sample_id)
    )
    return list(connection.scalars(query.where(held, sample.c.origin == "device")))


def members(connection: sa.Connection, snapshot_id: str) -> Sequence[sa.Row[tuple[object, ...]]]:
    """Its labelled members with their rows of `sample`, in order of sample id: what a training reads."""
    return connection.execute(_members(snapshot_id).where(_LABELLED)).all()


def unlabelled(connection: sa.Connection, snapshot_id: str) -> Sequence[Any]:
    """The same of its members that have no label."""
    return connection.execute(_members(snapshot_id).where(~_LABELLED)).all()


def page(
    connection: sa.Connection, snapshot_id: str, *, after: str = "", split: str = "", limit: int = _PAGE_ROWS
) -> Sequence[Any]:
    """The same of the labelled members after a sample id, or of one split of them; none at the end."""
    query = _members(snapshot_id).where(_LABELLED, snapshot_member.c.sample_id > after).limit(limit)
    return connection.execute(query.where(snapshot_member.c.split == split) if split else query).all()


def pages(connection: sa.Connection, snapshot_id: str) -> Iterator[Sequence[Any]]:
    """The same of all, a bounded number at a time."""
    after = ""
    while rows := page(connection, snapshot_id, after=after):
        yield rows
        after = str(rows[-1].id)


def _members(snapshot_id: str) -> sa.Select[Any]:
    frozen = (
        snapshot_member.c.class_index,
        snapshot_member.c.truth,
        snapshot_member.c.split.label("frozen_split"),
        snapshot_member.c.probability.label("frozen_probability"),
        snapshot_member.c.labeler,
        snapshot_member.c.rule,
    )
    return (
        sa.select(*frozen, sample)
        .select_from(snapshot_member.join(sample, sample.c.id == snapshot_member.c.sample_id))
        .where(snapshot_member.c.snapshot_id == snapshot_id)
        .order_by(snapshot_member.c.sample_id)
    )
