"""What did each device see, and when, that it did not send?

A *stretch* is a run of consecutive samples of one stream, scored by one model, that the server heard of on one day: how
many there were, how many were selected and why, and sums over all of them, sent or not.

Devices say what they counted since they started, and up to which sample. So a stretch is the difference of two
heartbeats of one run, and heartbeats that are lost, repeated or late change nothing: the next one says it all. A row
carries the counts at its end as they were said, which is where the next difference begins, also after a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from server.store import labels, removed, vectors
from server.store.consensus import scorable
from server.store.schema import consensus, sample, stretch

Sums = dict[str, list[float]]
VECTORS = ("utility_histogram", "confidence_sums", "classes", "signals")
"""Fields of StreamCounts that are kept as sums: any tuple of numbers that adds up may join them."""


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
