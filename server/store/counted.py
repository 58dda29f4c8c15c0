"""What do heartbeats count that none before them did?

The difference to the last row of the run (stretches.py), added to it, or the beginning of the next one: of another day,
or another model. What many devices say is read and written at once.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa

from edge_agent.contract.wire import Heartbeat, StreamCounts
from server.store import beats, spans
from server.store.among import Lookup, Question, listed
from server.store.encoded import dumps, text
from server.store.many import Many
from server.store.schema import stretch
from server.store.spoken import Spoken
from server.store.stretches import VECTORS, Run, added, day_of
from server.store.vectors import difference

NOTHING = StreamCounts(read=0, scored=0, invalid=0, selected={})
_DAY_MS = 86_400_000
_SELECTED = msgspec.json.Decoder(dict[str, int])
_SUMS = msgspec.json.Decoder(dict[str, list[float | int]])
_COUNTED = msgspec.json.Decoder(StreamCounts)


class _Row(msgspec.Struct, kw_only=True):
    """As in Stretch."""

    id: int = 0  # 0: it begins
    run: Run
    model_version: int
    day: str
    first_seq: int
    read: int = 0
    scored: int = 0
    invalid: int = 0
    selected: dict[str, int] = {}
    sums: dict[str, list[float]] = {}
    counted: StreamCounts

    def add(self, counts: StreamCounts, sums: dict[str, list[float]]) -> None:
        """What was counted since it was written last; `sums` of it alone."""
        before, self.counted = self.counted, counts
        self.read += counts.read - before.read
        self.scored += counts.scored - before.scored
        self.invalid += counts.invalid - before.invalid
        earlier, mine = before.selected, self.selected
        self.selected = {why: n - earlier.get(why, 0) + mine.get(why, 0) for why, n in counts.selected.items()}
        self.sums = added(self.sums, sums) if self.sums else sums

    def written(self) -> dict[str, Any]:
        """What changes of it."""
        return {
            "of": self.id,
            "last_seq": self.counted.through_seq,
            "read": self.read,
            "scored": self.scored,
            "invalid": self.invalid,
            "selected": _text(self.selected),
            "sums": _text(self.sums),
            "counted": _text(self.counted),
        }

    def begun(self) -> dict[str, Any]:
        """All of it."""
        same = {"model_version": self.model_version, "day": self.day, "first_seq": self.first_seq}
        return self.run._asdict() | same | self.written()


def record(connection: sa.Connection, said: Sequence[Spoken[Heartbeat]]) -> list[beats.Told]:
    """Take in what heartbeats count that none before them did; returns what it says of the devices, for `beats.add`."""
    pending = _Pending(_last_rows(connection, said))
    for one in said:
        border: StreamCounts | None = None
        for counts in (*one.word.cuts, one.word.counts):
            if counts.stream:  # else of an older agent, which does not say of what its counts are
                run = Run(one.device, counts.stream, one.word.boot, one.word.session)
                pending.extend(run, border, counts, now_ms=one.at_ms)
            border = counts
    pending.write(connection)
    return pending.told


def _last_rows(connection: sa.Connection, said: Sequence[Spoken[Heartbeat]]) -> dict[Run, _Row]:
    """Of every run that is spoken of, its last row."""
    runs = {
        Run(one.device, counts.stream, one.word.boot, one.word.session)
        for one in said
        for counts in (*one.word.cuts, one.word.counts)
        if counts.stream
    }
    found = {}
    rows = _LAST.ask_of(connection, list(runs)) if runs else ()
    for number, device, stream, boot, session, *plain, selected, sums, counted in rows:
        version, day, first_seq, read, scored, invalid = plain
        run = Run(device, stream, boot, session)
        found[run] = _Row(
            id=number,
            run=run,
            model_version=version,
            day=day,
            first_seq=first_seq,
            read=read,
            scored=scored,
            invalid=invalid,
            selected=_SELECTED.decode(selected),
            sums=_SUMS.decode(sums),
            counted=_COUNTED.decode(counted),
        )
    return found


def _last(connection: sa.Connection) -> sa.Select[Any]:
    given = listed(connection, [stretch.c[name] for name in Run._fields])
    of_run = stretch.alias()
    mine = (of_run.c[name] == column for name, column in zip(Run._fields, given.columns, strict=True))
    newest = sa.select(sa.func.max(of_run.c.id)).where(*mine).scalar_subquery()
    plain = ("id", *Run._fields, "model_version", "day", "first_seq", "read", "scored", "invalid")
    texts = (sa.cast(stretch.c[name], sa.Text) for name in ("selected", "sums", "counted"))
    query = sa.select(*(stretch.c[name] for name in plain), *texts)
    return query.select_from(Lookup(given.rows, stretch, stretch.c.id == newest))


_LAST = Question(_last)


class _Pending:
    """Rows that grow, and rows that begin, before they are written."""

    def __init__(self, last: dict[Run, _Row]) -> None:
        self._last = last
        self._grown: dict[int, _Row] = {}  # by id
        self._begun: list[_Row] = []
        self._seen: list[spans.Seen] = []
        self.told: list[beats.Told] = []

    def extend(self, run: Run, border: StreamCounts | None, counts: StreamCounts, *, now_ms: int) -> None:
        """Add what `counts` says beyond the last row of the run. `border`: where the model before it ended."""
        last = self._last.get(run)
        before = last.counted if last else NOTHING
        if not _follows(before, counts):
            return
        day = _day(now_ms // _DAY_MS)
        version = counts.model_version if _of_one_model(before, border, counts) else 0
        sums = {name: difference(getattr(counts, name), getattr(before, name)) for name in VECTORS}
        self._seen.append(spans.Seen(run.device, version, sums, now_ms))
        if (told := beats.of_scores(run.device, sums, at_ms=now_ms)) is not None:
            self.told.append(told)
        if last is None or last.day != day or last.model_version != version:
            first_seq = before.through_seq + 1
            last = _Row(run=run, model_version=version, day=day, first_seq=first_seq, counted=before)
            self._last[run] = last
            self._begun.append(last)
        elif last.id:
            self._grown[last.id] = last
        last.add(counts, sums)

    def write(self, connection: sa.Connection) -> None:
        _GROWN.run(connection, [row.written() for row in self._grown.values()])
        _BEGUN.run(connection, [row.begun() for row in self._begun])
        spans.add(connection, self._seen)


def _text(value: object) -> str:
    try:
        return text(value)
    except OverflowError:  # sums of what a device claims may not fit 64 bits
        return dumps(value)


def _grown(_: sa.Connection) -> sa.Executable:
    """Neither the day nor anything else that an index has is said again: it would be written again."""
    names = ("last_seq", "read", "scored", "invalid", "selected", "sums", "counted")
    changes = {name: sa.bindparam(name, type_=stretch.c[name].type) for name in names}
    return sa.update(stretch).where(stretch.c.id == sa.bindparam("of")).values(changes)


_GROWN = Many(_grown)
_BEGUN = Many(lambda _: sa.insert(stretch), *(column.name for column in stretch.c if column.name != "id"))


def _follows(before: StreamCounts, after: StreamCounts) -> bool:
    """Whether `after` was counted later in the same run: nothing of it went down. Late heartbeats and liars do not."""
    return (
        before.read < after.read
        and before.scored <= after.scored
        and before.invalid <= after.invalid
        and before.epoch <= after.epoch
        and before.through_seq <= after.through_seq
        and all(n <= after.selected.get(why, 0) for why, n in before.selected.items())
        and _no_less(before.utility_histogram, after.utility_histogram)
        and _no_less(before.classes, after.classes)
    )


def _no_less(before: Sequence[int], after: Sequence[int]) -> bool:
    """Of counts, none of them below 0; where one is shorter, it has 0."""
    return all(map(operator.le, before, after)) and not any(before[len(after) :])


def _of_one_model(before: StreamCounts, border: StreamCounts | None, after: StreamCounts) -> bool:
    begins = border is not None and border.epoch + 1 == after.epoch and border.read == before.read
    return before.epoch == after.epoch or begins


@lru_cache(maxsize=2)
def _day(number: int) -> str:
    return day_of(number * _DAY_MS)
