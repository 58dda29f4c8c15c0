"""How has each device been, over time?

What heartbeats say of a device, and how sure its model was (what else its stream was like: stretches.py, spans.py), in
slices of time: how many said a figure,
the sum, and the largest. Slices of five minutes become hours after two days, and hours days after two months, when the
next slice of the device begins: what is long ago is not looked at as closely, and nobody has to tidy up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from operator import mul
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from edge_agent.contract.wire import Heartbeat
from server.store.among import Question, among, looked_up
from server.store.insert import insert
from server.store.many import Many
from server.store.schema import beat
from server.store.spoken import Spoken
from server.store.vectors import packed, table

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


class _Key(NamedTuple):
    device: str
    start_ms: int
    step_ms: int


class Told(NamedTuple):
    """Figures of a device, each the sum over so many heartbeats or samples; None or not finite: nobody said it."""

    device: str
    figures: Sequence[float | None]  # (F,)
    number: float
    at_ms: int


def of_heartbeat(said: Spoken[Heartbeat]) -> Told:
    """What a heartbeat says of its device."""
    return Told(said.device, _figures(said.word), 1.0, said.at_ms)


def of_scores(device: str, sums: Mapping[str, Sequence[float]], *, at_ms: int) -> Told | None:
    """What became known of a stretch of samples (StreamCounts); None: nothing."""
    histogram = sums.get("utility_histogram", ())
    samples = float(sum(histogram))
    if samples <= 0:
        return None
    utility = (sum(map(mul, histogram, count())) + samples / 2) / len(histogram)  # each of the middle of its bin
    confidence = float(sum(sums.get("confidence_sums", ())))
    return Told(device, [*(None,) * OF_SAMPLES, utility, confidence], samples, at_ms)


def add(connection: sa.Connection, told: Sequence[Told], *, kept_ms: Sequence[int] = KEPT_MS) -> None:
    """Add figures to the slices of their time. A slice that is new has the device's old ones folded, by `kept_ms`."""
    by_start: dict[int, list[Told]] = defaultdict(list)
    for one in told:
        by_start[one.at_ms // STEPS_MS[0] * STEPS_MS[0]].append(one)
    for start_ms, some in by_start.items():
        _add(connection, start_ms, some, kept_ms)


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


def _add(connection: sa.Connection, start_ms: int, told: Sequence[Told], kept_ms: Sequence[int]) -> None:
    names = list({one.device: None for one in told})
    there: dict[str, bytes] = dict(map(tuple, _THERE.ask(connection, names, start_ms=start_ms)))
    place = {name: number for number, name in enumerate(names)}
    of = np.array([place[name] for name in (*there, *(one.device for one in told))])
    total = _together(np.concatenate((_read(list(there.values())), _counted(told))), of)
    same = {"start_ms": start_ms, "step_ms": STEPS_MS[0]}
    _ADDED.run(connection, [same | {"device": name, "figures": one} for name, one in zip(names, total, strict=True)])
    new = [name for name in names if name not in there]
    if first := _first_in_an_hour(connection, new, start_ms):
        for step_ms, next_ms, stay_ms in zip(STEPS_MS, STEPS_MS[1:], kept_ms, strict=False):
            _fold(connection, first, step_ms, next_ms, before_ms=(start_ms - stay_ms) // next_ms * next_ms)


def _there(connection: sa.Connection) -> sa.Select[Any]:
    mine = beat.c.start_ms == sa.bindparam("start_ms"), beat.c.step_ms == STEPS_MS[0]
    return looked_up(connection, sa.select(beat.c.device, beat.c.figures).where(*mine), beat.c.device)


_THERE = Question(_there)


def _added(connection: sa.Connection) -> sa.Executable:
    new, keys = insert(connection, beat), [beat.c.device, beat.c.start_ms, beat.c.step_ms]
    made: sa.Executable = new.on_conflict_do_update(index_elements=keys, set_={"figures": new.excluded.figures})
    return made


_ADDED = Many(_added, *beat.c.keys())


def _first_in_an_hour(connection: sa.Connection, names: list[str], start_ms: int) -> set[str]:
    """Devices whose slice is the first of its hour: what is old changes with the hour."""
    if not names:
        return set()
    earlier = _EARLIER.ask(connection, names, first_ms=start_ms // STEPS_MS[1] * STEPS_MS[1], last_ms=start_ms - 1)
    return set(names).difference(name for (name,) in earlier)


def _earlier(connection: sa.Connection) -> sa.Select[Any]:
    between = beat.c.start_ms.between(sa.bindparam("first_ms"), sa.bindparam("last_ms"))
    query = sa.select(beat.c.device).where(between, beat.c.step_ms == STEPS_MS[0]).distinct()
    return looked_up(connection, query, beat.c.device)


_EARLIER = Question(_earlier)


def _fold(connection: sa.Connection, names: Collection[str], step_ms: int, next_ms: int, *, before_ms: int) -> None:
    """Of all these devices at once: at the full hour it is every device's turn."""
    mine = among(connection, beat.c.device, names)
    old = sa.and_(mine, beat.c.step_ms == step_ms, beat.c.start_ms < before_ms)
    columns = beat.c.device, beat.c.start_ms, beat.c.figures
    parts: dict[_Key, list[bytes]] = {}
    for device, start_ms, figures in connection.execute(sa.delete(beat).where(old).returning(*columns)):
        parts.setdefault(_Key(device, start_ms // next_ms * next_ms, next_ms), []).append(figures)
    if not parts:
        return
    starts_ms = [key.start_ms for key in parts]
    there = sa.and_(mine, beat.c.step_ms == next_ms, beat.c.start_ms.between(min(starts_ms), max(starts_ms)))
    for device, start_ms, figures in connection.execute(sa.select(*columns).where(there)):
        if (some := parts.get(_Key(device, start_ms, next_ms))) is not None:
            some.append(figures)
    of = np.repeat(np.arange(len(parts)), list(map(len, parts.values())))
    total = _together(_read([figures for some in parts.values() for figures in some]), of)
    _ADDED.run(connection, [key._asdict() | {"figures": one} for key, one in zip(parts, total, strict=True)])


def _figures(said: Heartbeat) -> list[float | None]:
    drift, outbox = said.drift, said.outbox
    return [
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
        *(None,) * (len(FIGURES) - OF_SAMPLES),
    ]


def _counted(told: Sequence[Told]) -> NDArray[np.float64]:
    """(m, 3 F): how many said each figure, the sum, and the largest."""
    sums = np.array([one.figures for one in told], np.float64)  # None is NaN there
    number = np.array([[one.number] for one in told])
    known = np.isfinite(sums)
    sums[~known] = 0.0
    return np.concatenate((known * number, sums, sums / number), axis=1)


def _read(rows: Sequence[bytes]) -> NDArray[np.float64]:
    """(m, 3 F) of packed ones."""
    return table(rows, np.float64).reshape(len(rows), 3 * len(FIGURES))


def _together(parts: NDArray[np.float64], of: NDArray[np.int64]) -> list[bytes]:
    """Those of (m, 3 F), packed, the parts of one as one; of: (m,) which of 0..k-1 each is of, of each some."""
    order = np.argsort(of, kind="stable")
    starts = np.searchsorted(of[order], np.arange(of.max() + 1))
    counts, sums, largest = np.split(parts[order], 3, axis=1)
    said = np.maximum.reduceat(np.where(counts > 0, largest, -np.inf), starts)
    number = np.add.reduceat(counts, starts)
    with np.errstate(over="ignore", invalid="ignore"):  # a device may claim any number
        total = np.add.reduceat(sums, starts)
    return packed(np.concatenate((number, total, np.where(number > 0, said, 0.0)), axis=1))
