"""How has each device been, over time?

What heartbeats say of a device, and how sure its model was (what else its stream was like: stretches.py, spans.py), in
slices of time: how many said a figure,
the sum, and the largest. Slices of five minutes become hours after two days, and hours days after two months (or as
`[retention]` has it), when the next slice of the device begins: what is long ago is not looked at as closely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract.wire import Heartbeat
from server.store.schema import beat
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


def record(
    connection: sa.Connection, device: str, said: Heartbeat, *, now_ms: int, kept_ms: Sequence[int] = KEPT_MS
) -> None:
    """Add what a heartbeat says to the slice of now. kept_ms: for how long slices of a length stay, as KEPT_MS."""
    _add(connection, device, _figures(said), now_ms=now_ms, kept_ms=kept_ms)


def record_scores(
    connection: sa.Connection,
    device: str,
    sums: Mapping[str, Sequence[float]],
    *,
    now_ms: int,
    kept_ms: Sequence[int] = KEPT_MS,
) -> None:
    """Add what became known of a stretch of samples (StreamCounts) to the slice of now."""
    histogram = np.asarray(sums.get("utility_histogram", ()), np.float64)
    samples = float(histogram.sum())
    if samples <= 0:
        return
    utility = float(histogram @ (np.arange(len(histogram)) + 0.5)) / len(histogram)
    confidence = float(sum(sums.get("confidence_sums", ())))
    figures = np.zeros((3, len(FIGURES)))
    figures[:, OF_SAMPLES:] = [
        [samples, samples],
        [utility, confidence],
        [utility / samples, confidence / samples],
    ]
    _add(connection, device, figures.ravel().tolist(), now_ms=now_ms, kept_ms=kept_ms)


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
    connection: sa.Connection, device: str, figures: Sequence[float], *, now_ms: int, kept_ms: Sequence[int]
) -> None:
    start_ms = now_ms // STEPS_MS[0] * STEPS_MS[0]
    mine = _key(device, start_ms, STEPS_MS[0])
    there = connection.execute(sa.select(beat.c.figures).where(mine)).first()
    if there is not None:
        values = {"figures": pack(_together([unpack(there.figures), figures]))}
        connection.execute(sa.update(beat).where(mine).values(values))
        return
    _put(connection, device, start_ms, STEPS_MS[0], figures)
    for step_ms, next_ms, stay_ms in zip(STEPS_MS, STEPS_MS[1:], kept_ms, strict=False):
        _fold(connection, device, step_ms, next_ms, before_ms=(now_ms - stay_ms) // next_ms * next_ms)


def _fold(connection: sa.Connection, device: str, step_ms: int, next_ms: int, *, before_ms: int) -> None:
    old = sa.and_(beat.c.device == device, beat.c.step_ms == step_ms, beat.c.start_ms < before_ms)
    found: dict[int, list[list[float]]] = {}
    for row in connection.execute(sa.delete(beat).where(old).returning(beat.c.start_ms, beat.c.figures)):
        found.setdefault(row.start_ms // next_ms * next_ms, []).append(unpack(row.figures))
    for start_ms, parts in found.items():
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
    known = [value is not None and bool(np.isfinite(value)) for value in values]
    plain = [float(value or 0.0) if there else 0.0 for value, there in zip(values, known, strict=True)]
    return [*map(float, known), *plain, *plain]


def _together(parts: Sequence[Sequence[float]]) -> list[float]:
    counts, sums, largest = np.split(np.array(parts, np.float64), 3, axis=1)
    seen = np.where(counts > 0, largest, -np.inf).max(axis=0)
    return [*counts.sum(axis=0), *sums.sum(axis=0), *np.where(np.isfinite(seen), seen, 0.0)]
