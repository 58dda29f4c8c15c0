"""Which samples is somebody looking for?

A page at a time, the newest first, from where the last page ended (keyset paging: use-the-index-luke.com/no-offset), so
that the millionth costs what the first does:

    by arrival     what else is asked for is looked up in an index of the device, version, class or reason
    by answer      where labels are asked for: the samples last answered first
    by id          where an id is begun

One index brings the candidates in order, the rest is a sieve; one look sieves at most LOOK of them. Where few fit, a
page may so be short, and says from where to look on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import eq, ge, le, lt
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from server.config import POSTGRESQL
from server.store.consensus import CANNOT_TELL, NONE_OF_THESE, VALUED
from server.store.naming import names
from server.store.schema import consensus, device, sample, snapshot, snapshot_member
from server.store.text import begins

LOOK = 10_000  # candidates: more lets a rare find take longer than a person waits, fewer ask him to go on too often
Key = tuple[Any, ...]
COLUMNS = (
    "id", "device", "stream", "origin", "split", "captured_at_ms", "received_at_ms", "dtype", "shape", "encoding",
    "predicted", "confidence", "model_version", "reason", "probability", "utility", "said",
)  # fmt: skip


class Wanted(NamedTuple):
    """What to look for; what is empty or None may be anything."""

    search: str = ""  # its id begins so
    device: str = ""
    site: str = ""
    stream: str = ""
    reason: str = ""  # of selection; "import": what no device chose
    predicted: int | None = None
    version: int | None = None  # that chose it
    labelled: bool | None = None
    class_index: int | None = None  # in force
    names: int | None = None  # class that the truth in force names
    labeler: str = ""  # whose answer is in force
    agrees: bool | None = None  # the class in force is the predicted one
    utility_min: float | None = None
    utility_max: float | None = None
    since_ms: int | None = None  # of its arrival
    until_ms: int | None = None  # before
    used: str = ""  # in the newest snapshot: "train", "holdout", or "neither"
    ids: tuple[str, ...] = ()  # of these, at most 32,000


class Found(NamedTuple):
    """Rows with the COLUMNS of `sample`, and class_index, truth, labeler, label_confidence in force."""

    rows: Sequence[Any]
    after: Key | None  # where to look on; None: there is no more


class _Way(NamedTuple):
    """An index of a table, by what it is asked and how it orders: schema.py has one for each."""

    table: sa.Table
    where: tuple[sa.ColumnElement[bool], ...]
    key: tuple[sa.Column[Any], ...]  # the rest of its columns: they order
    covers: frozenset[str] = frozenset()  # fields of Wanted that it has seen to
    rising: bool = False

    def ordered(self, query: sa.Select[Any]) -> sa.Select[Any]:
        return query.where(*self.where).order_by(*(part if self.rising else part.desc() for part in self.key))

    def beyond(self, key: Key, *, itself: bool = False) -> sa.ColumnElement[bool]:
        mine: Any = sa.tuple_(*self.key)
        ours = sa.tuple_(*(sa.literal(value, part.type) for value, part in zip(key, self.key, strict=True)))
        if self.rising:
            return mine >= ours if itself else mine > ours  # type: ignore[no-any-return]
        return mine <= ours if itself else mine < ours  # type: ignore[no-any-return]

    def until(self, key: Key) -> sa.ColumnElement[bool]:
        turned = self._replace(rising=not self.rising)
        return turned.beyond(key, itself=True)


def page(connection: sa.Connection, wanted: Wanted, *, after: Key | None = None, limit: int = 60) -> Found:
    """At most `limit` of those wanted, from `after` on. ValueError: `after` is of another order."""
    way = _way(wanted)
    if after is not None and len(after) != len(way.key):
        raise ValueError(f"after: got {len(after)} values, expected {len(way.key)} of this order")
    start = [] if after is None else [way.beyond(after)]
    sieve = _sieve(connection, wanted, way)
    end = _end(connection, way, start) if sieve else None  # without a sieve, the first candidates are those wanted
    reach = [] if end is None else [way.until(end)]
    query = way.ordered(_select(way)).where(*start, *reach, *sieve).limit(limit)
    rows = connection.execute(query).all()
    if len(rows) == limit:
        return Found(rows, tuple(rows[-1][-len(way.key) :]))
    return Found(rows, end)


def every(connection: sa.Connection, wanted: Wanted) -> Iterator[Any]:
    """All of those wanted, a page at a time."""
    found = page(connection, wanted)
    yield from found.rows
    while found.after is not None:
        found = page(connection, wanted, after=found.after)
        yield from found.rows


def one(connection: sa.Connection, sample_id: str) -> Any:
    """One row as of `page`; None: it is not here."""
    found = page(connection, Wanted(ids=(sample_id,)), limit=1).rows
    return found[0] if found else None


def _end(connection: sa.Connection, way: _Way, start: Sequence[sa.ColumnElement[bool]]) -> Key | None:
    """The key up to which one look goes; None: to the end."""
    query = way.ordered(sa.select(*way.key)).where(*start).offset(LOOK - 1).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else tuple(row)


def _select(way: _Way) -> sa.Select[Any]:
    """The other table is always looked up from that which has the order: outer joins are not turned round."""
    pair = sample.c.id == consensus.c.sample_id
    joined = way.table.join(sample if way.table is consensus else consensus, pair, isouter=True)
    said = (
        consensus.c.class_index,
        consensus.c.truth,
        consensus.c.labeler,
        consensus.c.confidence.label("label_confidence"),
    )
    keys = (part.label(f"key_{n}") for n, part in enumerate(way.key))
    return sa.select(*(sample.c[name] for name in COLUMNS), *said, *keys).select_from(joined)


def _way(wanted: Wanted) -> _Way:
    """By the id, where that is known; by what is usually rarest else."""
    arrival = (sample.c.received_at_ms, sample.c.id)
    since, until = wanted.since_ms, wanted.until_ms
    when = [] if since is None else [sample.c.received_at_ms >= since]
    when += [] if until is None else [sample.c.received_at_ms < until]
    if wanted.ids or wanted.search:
        return _by_id(wanted)
    if (
        wanted.labelled
        or wanted.class_index is not None
        or wanted.names is not None
        or wanted.labeler
        or wanted.agrees is not None
    ):
        return _by_answer(wanted)
    reason = sample.c.reason.is_(None) if wanted.reason == "import" else sample.c.reason == wanted.reason
    chosen: tuple[tuple[str, object, sa.ColumnElement[bool]], ...] = (
        ("device", wanted.device or None, sample.c.device == wanted.device),
        ("version", wanted.version, sample.c.model_version == wanted.version),
        ("predicted", wanted.predicted, sample.c.predicted == wanted.predicted),
        ("reason", wanted.reason or None, reason),
    )
    times = frozenset(("since_ms", "until_ms"))
    for field, value, where in chosen:
        if value is not None:
            return _Way(sample, (where, *when), arrival, times | {field})
    return _Way(sample, tuple(when), arrival, times)


def _by_id(wanted: Wanted) -> _Way:
    key = (sample.c.id,)
    if wanted.ids:
        return _Way(sample, (sample.c.id.in_(wanted.ids),), key, frozenset(("ids",)), rising=True)
    return _Way(sample, (begins(sample.c.id, wanted.search),), key, frozenset(("search",)), rising=True)


def _by_answer(wanted: Wanted) -> _Way:
    key, covers = (consensus.c.label_id,), frozenset(("labelled",) if wanted.labelled else ())
    if wanted.class_index is not None and wanted.names is None:
        where = consensus.c.class_index == wanted.class_index
        return _Way(consensus, (where,), key, covers | {"class_index"})
    if wanted.names is not None:
        return _Way(consensus, (consensus.c.class_index == VALUED,), key, covers)
    if wanted.labeler:
        return _Way(consensus, (consensus.c.labeler == wanted.labeler,), key, covers | {"labeler"})
    return _Way(consensus, (), key, covers)


def _sieve(connection: sa.Connection, wanted: Wanted, way: _Way) -> list[sa.ColumnElement[bool]]:
    """What is asked for and the index has not seen to."""
    left = wanted._replace(**{field: Wanted._field_defaults[field] for field in way.covers})
    sieve = [fits(_by_value(column), value) for column, fits, value in _plain(left) if value is not None]
    if left.search:
        sieve.append(begins(_by_value(sample.c.id), left.search))
    if left.names is not None:
        sieve.append(names(consensus.c.truth, left.names))
    if left.site:
        sieve.append(_by_value(sample.c.device).in_(sa.select(device.c.name).where(device.c.site == left.site)))
    if left.labelled is not None:
        sieve.append(consensus.c.sample_id.is_not(None) if left.labelled else consensus.c.sample_id.is_(None))
    if left.agrees is not None:
        said, taken = _by_value(consensus.c.class_index), _by_value(sample.c.predicted)
        sieve += [said.not_in((CANNOT_TELL, NONE_OF_THESE, VALUED)), taken.is_not(None)]
        same = said == taken
        sieve.append(same if left.agrees else ~same)
    return [*sieve, _used(connection, left.used)] if left.used else sieve


def _plain(left: Wanted) -> tuple[tuple[Any, Callable[[Any, Any], Any], Any], ...]:
    """(column, comparison, value or None)."""
    return (
        (sample.c.device, eq, left.device or None),
        (sample.c.stream, eq, left.stream or None),
        (sa.func.coalesce(sample.c.reason, "import"), eq, left.reason or None),
        (sample.c.predicted, eq, left.predicted),
        (sample.c.model_version, eq, left.version),
        (consensus.c.class_index, eq, left.class_index),
        (consensus.c.labeler, eq, left.labeler or None),
        (sample.c.utility, ge, left.utility_min),
        (sample.c.utility, le, left.utility_max),
        (sample.c.received_at_ms, ge, left.since_ms),
        (sample.c.received_at_ms, lt, left.until_ms),
    )


def _by_value(column: Any) -> sa.ColumnElement[Any]:
    """A column of the sieve, which is to be looked up in no index."""
    return _Sieved(column)


class _Sieved(sa.sql.functions.GenericFunction[Any]):
    inherit_cache = True

    def __init__(self, column: Any) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(_Sieved)
def _sieved(element: _Sieved, compiler: SQLCompiler, **options: Any) -> str:
    """SQLite looks up none that is written so (sqlite.org/optoverview.html); where costs decide, nothing is needed."""
    sign = "" if compiler.dialect.name == POSTGRESQL else "+"
    return sign + compiler.process(element.clauses, **options)


def _used(connection: sa.Connection, how: str) -> sa.ColumnElement[bool]:
    newest = sa.select(snapshot.c.id).order_by(snapshot.c.created_at_ms.desc(), snapshot.c.id).limit(1)
    of, mine = connection.scalar(newest), snapshot_member.c.sample_id == sample.c.id
    member = sa.exists().where(snapshot_member.c.snapshot_id == of, mine)
    return ~member if how == "neither" else member.where(snapshot_member.c.split == how)
