"""What did each device see, and when, that it did not send?

A *stretch* is a run of consecutive samples of one stream, scored by one model, that the server heard of on one day: how
many there were, how many were selected and why, and sums over all of them, sent or not.

Devices say what they counted since they started, and up to which sample. So a stretch is the difference of two
heartbeats of one run, and heartbeats that are lost, repeated or late change nothing: the next one says it all. A row
carries the counts at its end as they were said, which is where the next difference begins, also after a restart.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import zip_longest
from typing import Any, NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa

from edge_agent.contract.wire import Heartbeat, StreamCounts
from server.store import beats, labels, removed, spans, vectors
from server.store.among import listed
from server.store.consensus import scorable
from server.store.encoded import dumps, text
from server.store.many import Many
from server.store.schema import consensus, sample, stretch
from server.store.spoken import Spoken

Sums = dict[str, list[float]]
VECTORS = ("utility_histogram", "confidence_sums", "classes", "signals")
"""Fields of StreamCounts that are kept as sums: any tuple of numbers that adds up may join them."""

NOTHING = StreamCounts(read=0, scored=0, invalid=0, selected={})


class Run(NamedTuple):
    """From one start of an agent to its end: what a count is of."""

    device: str
    stream: str
    boot: int
    session: str  # a device that was wiped counts its boots anew


class Stretch(NamedTuple):
    """Samples `first_seq`..`last_seq` of a run. Those in it that were selected have these numbers in their ids."""

    id: int
    device: str
    stream: str
    boot: int
    session: str
    model_version: int  # 0: of several, the border between them is lost
    day: str  # on which the server heard of it, UTC: 2026-11-23
    first_seq: int
    last_seq: int
    read: int
    scored: int
    invalid: int
    selected: dict[str, int]  # reason -> samples
    sums: Sums  # name of VECTORS -> sums over every scored sample


class Uploaded(NamedTuple):
    """Samples of a stretch that were sent, which the model called the same, captured in the same hour of the day."""

    stretch_id: int
    predicted: int | None
    hour: int  # UTC
    recent: bool
    samples: int


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


def stretches(connection: sa.Connection, *, since_day: str = "") -> list[Stretch]:
    """All of them from `since_day` on, by device and in the order of its samples."""
    query = sa.select(*(stretch.c[name] for name in Stretch._fields)).where(stretch.c.day >= since_day)
    order = (stretch.c.device, stretch.c.stream, stretch.c.boot, stretch.c.first_seq, stretch.c.id)
    return [Stretch(*row) for row in connection.execute(query.order_by(*order))]


def confidence(connection: sa.Connection, version: int, *, since_day: str = "") -> dict[str, tuple[int, float]]:
    """Of each device under a version: how many samples it scored, and the sum of their confidences."""
    query = sa.select(stretch.c.device, stretch.c.scored, stretch.c.sums)
    found: dict[str, tuple[int, float]] = {}
    for device, scored, sums in connection.execute(
        query.where(stretch.c.model_version == version, stretch.c.day >= since_day)
    ):
        samples, total = found.get(device, (0, 0.0))
        found[device] = (samples + scored, total + sum(sums.get("confidence_sums", ())))
    return found


def labelled(connection: sa.Connection, *, since_day: str = "") -> Sequence[Any]:
    """Every device's sample with a label that it can be scored by, and the id of the stretch it is of.

    Rows of what decides in `sample`, with class_index and truth, asked (the probability of having been asked about, or
    None), plan_ms and stands_for (as in `label`), captured_at_ms, and stretch_id: None where the device has not yet
    said, or never will, what it counted around the sample.
    """
    more = (consensus.c[name] for name in ("truth", "plan_ms", "stands_for"))
    answers = labels.in_force().add_columns(*more).subquery()
    names = ("id", "reason", "probability", "floor", "utility", "confidence", "predicted", "model_version", "said")
    said = (sample.c[name] for name in names)
    query = (
        sa.select(*said, stretch.c.id.label("stretch_id"), answers.c.class_index, answers.c.truth)
        .add_columns(answers.c.probability.label("asked"), answers.c.plan_ms, answers.c.stands_for)
        .add_columns(sample.c.received_at_ms, sample.c.captured_at_ms)
        .select_from(answers.join(sample, sample.c.id == answers.c.sample_id).outerjoin(stretch, _around()))
        .where(sample.c.origin == "device", scorable(answers.c.class_index, sample.c.said))
        .where(
            sa.or_(
                stretch.c.day >= since_day, sa.and_(stretch.c.id.is_(None), sample.c.received_at_ms >= ms_of(since_day))
            )
        )
        .order_by(sample.c.id)
    )
    return connection.execute(query).all()


def uploaded(connection: sa.Connection, *, since_day: str = "", recent_ms: int = 0) -> Sequence[Any]:
    """What the devices sent, what was removed since among it: rows like Uploaded.

    recent: captured at `recent_ms` or later, which is the start of an hour.
    """
    hour = (sample.c.captured_at_ms // 3_600_000 % 24).label("hour")
    recent = (sample.c.captured_at_ms >= recent_ms).label("recent")
    of = (stretch.c.id.label("stretch_id"), sample.c.predicted, hour, recent)
    query = sa.select(*of, sa.func.count().label("samples")).select_from(sample.join(stretch, _around()))
    query = query.where(sample.c.origin == "device", stretch.c.day >= since_day)
    return [*connection.execute(query.group_by(*of)), *_uploaded_once(connection, since_day, recent_ms)]


def _uploaded_once(connection: sa.Connection, since_day: str, recent_ms: int) -> Iterator[Uploaded]:
    """The same of samples that were removed since."""
    parts = removed.parts(connection)
    if not parts:
        return
    query = sa.select(stretch.c.id, stretch.c.device, stretch.c.stream, stretch.c.boot)
    query = query.add_columns(stretch.c.first_seq, stretch.c.last_seq).where(stretch.c.day >= since_day)
    runs: dict[removed.Run, list[Any]] = {}
    for row in connection.execute(query):
        runs.setdefault((row.device, row.stream, row.boot), []).append(row)
    for part in parts:
        for row in runs.get(part[:3], ()):
            first, last = np.searchsorted(part.each["seq"], [row.first_seq, row.last_seq + 1])
            some = part.each[first:last]
            found = Counter(zip(some["predicted"].tolist(), some["hour"].tolist(), strict=True))
            for (label, hour), number in found.items():
                said = None if label == removed.NONE else label
                yield Uploaded(row.id, said, hour % 24, hour * removed.HOUR_MS >= recent_ms, number)


def _around() -> sa.ColumnElement[bool]:
    """That a sample is of a stretch."""
    return sa.and_(
        stretch.c.device == sample.c.device,
        stretch.c.stream == sample.c.stream,
        stretch.c.boot == sample.c.boot,
        sample.c.seq.between(stretch.c.first_seq, stretch.c.last_seq),
    )


def day_of(at_ms: int) -> str:
    """The day, UTC.

    >>> day_of(1_790_000_000_000)
    '2026-09-21'
    """
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).date().isoformat()


def ms_of(day: str) -> int:
    """When a day begins, ms since 1970; 0 for an empty one."""
    return int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp() * 1000) if day else 0


def added(one: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]]) -> Sums:
    """Sums over both, vector by vector.

    >>> added({"classes": [1, 2]}, {"classes": [3, 4, 5]})
    {'classes': [4, 6, 5]}
    """
    names = dict.fromkeys((*one, *other))
    return {name: vectors.added(one.get(name, ()), other.get(name, ())) for name in names}


_JSON: dict[str, Any] = {"selected": dict[str, int], "sums": dict[str, list[float | int]], "counted": StreamCounts}
_KEPT = ("model_version", "day", "first_seq", "last_seq", "read", "scored", "invalid", "selected", "sums", "counted")


def _last_rows(connection: sa.Connection, said: Sequence[Spoken[Heartbeat]]) -> dict[Run, dict[str, Any]]:
    """Of every run that is spoken of, its last row; its `id` among them."""
    runs = {
        Run(one.device, counts.stream, one.word.boot, one.word.session)
        for one in said
        for counts in (*one.word.cuts, one.word.counts)
        if counts.stream
    }
    if not runs:
        return {}
    given = listed(connection, [stretch.c[name] for name in Run._fields], list(runs))
    mine = (stretch.c[name] == column for name, column in zip(Run._fields, given.columns, strict=True))
    newest = sa.select(sa.func.max(stretch.c.id)).where(*mine).scalar_subquery()
    of = [sa.cast(column, sa.Text) if column.name in _JSON else column for column in stretch.c]
    query = sa.select(*of).where(stretch.c.id.in_(sa.select(newest).select_from(given.rows)))
    names = stretch.c.keys()
    found = {}
    for values in connection.execute(query):
        row = dict(zip(names, values, strict=True))
        row |= {name: msgspec.json.decode(row[name], type=kind) for name, kind in _JSON.items()}
        found[Run(*(row[name] for name in Run._fields))] = row
    return found


class _Pending:
    """Rows that grow, and rows that begin, before they are written."""

    def __init__(self, last: dict[Run, dict[str, Any]]) -> None:
        self._last = last
        self._grown: dict[int, dict[str, Any]] = {}  # by id
        self._begun: list[dict[str, Any]] = []
        self._seen: list[spans.Seen] = []
        self.told: list[beats.Told] = []

    def extend(self, run: Run, border: StreamCounts | None, counts: StreamCounts, *, now_ms: int) -> None:
        """Add what `counts` says beyond the last row of the run. `border`: where the model before it ended."""
        last = self._last.get(run)
        before = last["counted"] if last else NOTHING
        if not _follows(before, counts):
            return
        day = day_of(now_ms)
        version = counts.model_version if _of_one_model(before, border, counts) else 0
        values: dict[str, Any] = _difference(before, counts) | {
            "last_seq": counts.through_seq,
            "counted": counts,
        }
        self._seen.append(spans.Seen(run.device, version, values["sums"], now_ms))
        if (told := beats.of_scores(run.device, values["sums"], at_ms=now_ms)) is not None:
            self.told.append(told)
        if last is not None and (last["day"], last["model_version"]) == (day, version):
            for name in ("read", "scored", "invalid"):
                values[name] += last[name]
            values["selected"] = {why: n + last["selected"].get(why, 0) for why, n in values["selected"].items()}
            values["sums"] = added(last["sums"], values["sums"])
            last |= values
            if "id" in last:
                self._grown[last["id"]] = last
        else:
            values |= {"model_version": version, "day": day, "first_seq": before.through_seq + 1}
            self._last[run] = run._asdict() | values
            self._begun.append(self._last[run])

    def write(self, connection: sa.Connection) -> None:
        if self._grown:
            _GROWN.run(connection, [_written(row, _KEPT) | {"of": number} for number, row in self._grown.items()])
        if self._begun:
            _BEGUN.run(connection, [_written(row, row) for row in self._begun])
        spans.add(connection, self._seen)


def _written(row: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: _text(row[name]) if name in _JSON else row[name] for name in names}


def _text(value: object) -> str:
    try:
        return text(value)
    except OverflowError:  # sums of what a device claims may not fit 64 bits
        return dumps(value)


_GROWN = Many(lambda _: sa.update(stretch).where(stretch.c.id == sa.bindparam("of")).values(_changes()))
_BEGUN = Many(lambda _: sa.insert(stretch), *(column.name for column in stretch.c if column.name != "id"))


def _changes() -> dict[str, Any]:
    return {name: sa.bindparam(name, type_=stretch.c[name].type) for name in _KEPT}


def _follows(before: StreamCounts, after: StreamCounts) -> bool:
    """Whether `after` was counted later in the same run: nothing of it went down. Late heartbeats and liars do not."""
    names = ("scored", "invalid", "epoch", "through_seq")
    if after.read <= before.read or any(getattr(before, name) > getattr(after, name) for name in names):
        return False
    reasons = all(n <= after.selected.get(why, 0) for why, n in before.selected.items())
    pairs = ((getattr(before, name), getattr(after, name)) for name in ("utility_histogram", "classes"))
    return reasons and all(_no_less(less, more) for less, more in pairs)


def _no_less(before: Sequence[int], after: Sequence[int]) -> bool:
    """Of counts, none of them below 0; where one is shorter, it has 0."""
    return all(map(operator.le, before, after)) and not any(before[len(after) :])


def _of_one_model(before: StreamCounts, border: StreamCounts | None, after: StreamCounts) -> bool:
    begins = border is not None and border.epoch + 1 == after.epoch and border.read == before.read
    return before.epoch == after.epoch or begins


def _difference(before: StreamCounts, after: StreamCounts) -> dict[str, Any]:
    pairs = {name: (getattr(after, name), getattr(before, name)) for name in VECTORS}
    return {
        "read": after.read - before.read,
        "scored": after.scored - before.scored,
        "invalid": after.invalid - before.invalid,
        "selected": {why: n - before.selected.get(why, 0) for why, n in after.selected.items()},
        "sums": {name: [a - b for a, b in zip_longest(*pair, fillvalue=0)] for name, pair in pairs.items()},
    }
