"""How has each device been, over time?

What heartbeats say of a device, and how sure its model was (what else its stream was like: stretches.py, spans.py), in
slices of time: how many said a figure,
the sum, and the largest. Slices of five minutes become hours after two days, and hours days after two months, when the
next slice of the device begins: what is long ago is not looked at as closely, and nobody has to tidy up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from operator import add as add_up
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract.wire import Heartbeat
from server.store.among import among
from server.store.insert import insert
from server.store.many import Many
from server.store.schema import beat
from server.store.spoken import Spoken
from server.store.vectors import pack, table, unpack

FIGURES = (
    "samples_per_s", "latency_p50_ms", "latency_p95_ms", "rss_bytes", "cpu_share", "temperature_c",
    "outbox_rows", "outbox_bytes", "outbox_age_s", "label_tokens", "drift", "utility", "confidence",
)  # fmt: skip
"""drift: the statistic over its threshold; 1 is an alarm. utility, confidence: of every scored sample, sent or not; the
largest is of a heartbeat's mean."""
OF_SAMPLES = FIGURES.index("utility")
"""From there on, figures are of samples, and not of heartbeats."""
DAY_MS = 86_400_000
STEPS_MS = (300_000, 3_600_000, DAY_MS)
"""Of 10,000 devices, the first fill some 900 MB in two days; shorter ones, more."""
KEPT_MS = (2 * DAY_MS, 60 * DAY_MS)
"""How long those of a length stay before they are folded into the next, unless somebody says otherwise."""


class Past(NamedTuple):
    """The m slices of a device, in order of time; NaN where nobody said a figure."""

    start_ms: NDArray[np.int64]  # (m,)
    step_ms: NDArray[np.int64]  # (m,)
    mean: NDArray[np.float32]  # (m, F), in the order of FIGURES
    largest: NDArray[np.float32]  # (m, F)


class Told(NamedTuple):
    """Figures of a device: of each how many said it, the sum, and the largest; 3 F numbers."""

    device: str
    figures: Sequence[float]
    at_ms: int


def of_heartbeat(said: Spoken[Heartbeat]) -> Told:
    """What a heartbeat says of its device."""
    return Told(said.device, _figures(said.word), said.at_ms)


def of_scores(device: str, sums: Mapping[str, Sequence[float]], *, at_ms: int) -> Told | None:
    """What became known of a stretch of samples (StreamCounts); None: nothing."""
    histogram = sums.get("utility_histogram", ())
    samples = float(sum(histogram))
    if samples <= 0:
        return None
    utility = sum(n * (place + 0.5) for place, n in enumerate(histogram)) / len(histogram)
    confidence = float(sum(sums.get("confidence_sums", ())))
    nothing = [0.0] * OF_SAMPLES
    counts, totals = [samples, samples], [utility, confidence]
    means = [utility / samples, confidence / samples]
    return Told(device, [*nothing, *counts, *nothing, *totals, *nothing, *means], at_ms)


def add(connection: sa.Connection, told: Sequence[Told], *, kept_ms: Sequence[int] = KEPT_MS) -> None:
    """Add figures to the slices of their time. A slice that is new has the device's old ones folded, by `kept_ms`."""
    by_start: dict[int, dict[str, list[Sequence[float]]]] = {}
    for one in told:
        start_ms = one.at_ms // STEPS_MS[0] * STEPS_MS[0]
        by_start.setdefault(start_ms, {}).setdefault(one.device, []).append(one.figures)
    for start_ms, figures in by_start.items():
        _add(connection, start_ms, figures, kept_ms)


def past(connection: sa.Connection, device: str, *, since_ms: int) -> Past:
    """What is known of a device from then on."""
    query = sa.select(beat.c.start_ms, beat.c.step_ms, beat.c.figures)
    query = query.where(beat.c.device == device, beat.c.start_ms >= since_ms).order_by(beat.c.start_ms)
    rows = connection.execute(query).all()
    if not rows:
        none = np.zeros((0, len(FIGURES)), np.float32)
        return Past(np.zeros(0, np.int64), np.zeros(0, np.int64), none, none)
    counts, sums, largest = np.split(table([row.figures for row in rows]), 3, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(counts > 0, sums / counts, np.nan).astype(np.float32)
    return Past(
        np.array([row.start_ms for row in rows], np.int64),
        np.array([row.step_ms for row in rows], np.int64),
        mean,
        np.where(counts > 0, largest, np.nan).astype(np.float32),
    )


def _add(
    connection: sa.Connection, start_ms: int, figures: dict[str, list[Sequence[float]]], kept_ms: Sequence[int]
) -> None:
    names = list(figures)
    there = sa.select(beat.c.device, beat.c.figures).where(
        among(connection, beat.c.device, names), beat.c.start_ms == start_ms, beat.c.step_ms == STEPS_MS[0]
    )
    for name, before in connection.execute(there).all():
        figures[name].append(unpack(before))
        names.remove(name)
    same = {"start_ms": start_ms, "step_ms": STEPS_MS[0]}
    rows = [same | {"device": name, "figures": pack(_together(parts))} for name, parts in figures.items()]
    _ADDED.run(connection, rows)
    if first := _first_in_an_hour(connection, names, start_ms):
        for step_ms, next_ms, stay_ms in zip(STEPS_MS, STEPS_MS[1:], kept_ms, strict=False):
            _fold(connection, first, step_ms, next_ms, before_ms=(start_ms - stay_ms) // next_ms * next_ms)


def _added(connection: sa.Connection) -> sa.Executable:
    new, keys = insert(connection, beat), [beat.c.device, beat.c.start_ms, beat.c.step_ms]
    made: sa.Executable = new.on_conflict_do_update(index_elements=keys, set_={"figures": new.excluded.figures})
    return made


_ADDED = Many(_added, *beat.c.keys())


def _first_in_an_hour(connection: sa.Connection, names: list[str], start_ms: int) -> set[str]:
    """Devices whose slice is the first of its hour: what is old changes with the hour."""
    if not names:
        return set()
    hour = beat.c.start_ms.between(start_ms // STEPS_MS[1] * STEPS_MS[1], start_ms - 1)
    query = sa.select(beat.c.device).where(among(connection, beat.c.device, names), hour)
    query = query.where(beat.c.step_ms == STEPS_MS[0]).distinct()
    return set(names) - set(connection.scalars(query))


def _fold(connection: sa.Connection, names: Collection[str], step_ms: int, next_ms: int, *, before_ms: int) -> None:
    """Of all these devices at once: at the full hour it is every device's turn."""
    old = sa.and_(beat.c.device.in_(names), beat.c.step_ms == step_ms, beat.c.start_ms < before_ms)
    found: dict[tuple[str, int], list[list[float]]] = {}
    gone = sa.delete(beat).where(old).returning(beat.c.device, beat.c.start_ms, beat.c.figures)
    for row in connection.execute(gone):
        found.setdefault((row.device, row.start_ms // next_ms * next_ms), []).append(unpack(row.figures))
    for (device, start_ms), parts in found.items():
        there = connection.execute(sa.delete(beat).where(_key(device, start_ms, next_ms)).returning(beat.c.figures))
        _put(connection, device, start_ms, next_ms, _together([*parts, *(unpack(row.figures) for row in there)]))


def _key(device: str, start_ms: int, step_ms: int) -> sa.ColumnElement[bool]:
    return sa.and_(beat.c.device == device, beat.c.start_ms == start_ms, beat.c.step_ms == step_ms)


def _put(connection: sa.Connection, device: str, start_ms: int, step_ms: int, figures: Sequence[float]) -> None:
    values = {"device": device, "start_ms": start_ms, "step_ms": step_ms, "figures": pack(figures)}
    connection.execute(sa.insert(beat).values(values))


def _figures(said: Heartbeat) -> list[float]:
    """Counts (0 or 1), sums and largest, of one heartbeat."""
    drift, outbox = said.drift, said.outbox
    values: list[float | None] = [
        said.samples_per_s,
        said.latency_p50_ms,
        said.latency_p95_ms,
        said.rss_bytes,
        said.cpu_share,
        said.temperature_c,
        outbox.rows,
        outbox.bytes,
        outbox.oldest_age_s,
        said.label_tokens,
        drift.statistic / drift.threshold if drift and drift.watching and drift.threshold > 0 else None,
        *(None for _ in FIGURES[OF_SAMPLES:]),
    ]
    known = [value is not None and isfinite(value) for value in values]
    plain = [float(value or 0.0) if there else 0.0 for value, there in zip(values, known, strict=True)]
    return [*map(float, known), *plain, *plain]


def _together(parts: Sequence[Sequence[float]]) -> list[float]:
    """Figures of all of them; in plain Python, as there are mostly two or three, of a few dozen numbers."""
    total = list(parts[0])
    for part in parts[1:]:
        total = _both(total, part)
    return total


def _both(one: Sequence[float], other: Sequence[float]) -> list[float]:
    n = len(FIGURES)
    seen = zip(one[:n], other[:n], one[2 * n :], other[2 * n :], strict=True)
    largest = [(max(a, b) if there else a) if here else b for here, there, a, b in seen]
    return [*map(add_up, one[: 2 * n], other[: 2 * n]), *largest]
