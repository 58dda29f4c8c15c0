"""Has a stream moved from its own level?

A stream is a row of spans, each with the means of its signals. The level is what came before, the window what came
since; the split is looked for everywhere. A difference is held against the spread *between*
spans (method of batch means: Conway 1963), so that neighbouring samples may resemble each other as they like; where
neighbouring spans still do, they are joined in pairs until they do not.

    |-------- level --------|---- window ----|     t = (window - level) / (s sqrt(1 / N_w + 1 / N_l))

Pure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from edge_agent.choose.signals import SCALARS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 8  # spans before a window; fewer make a level of chance, more delay the first look
LEAST = 12  # spans in all; below, the spread between them is not known
LEAST_MS = 36 * 3_600_000  # of time in all; less, and the first night looks like drift
RESEMBLANCE = 0.1  # correlation of neighbouring spans above which they are joined; higher lets dependence through
LASTING = 0.5  # of the shift must still be there at the end of the window; otherwise it is over
FLOOR = 0.04  # variance of a direction, of 1 usual: a dead unit's first spark is not the world's
FINEST = 1e-6  # variance of a scalar that never changes


class Series(NamedTuple):
    """What a stream looked like. m spans in order, F signals: SCALARS, K directions, then the shares of C classes.

    start_ms: (m,) when each began. samples: (m,) in each. means: (m, F). classes: C.
    """

    start_ms: Ints
    samples: Floats
    means: Floats
    classes: int


class Moved(NamedTuple):
    """How far a stream is from its own level, where that shows most.

    p: probability of as much by chance, all windows and signals counted; 1 when nothing lasts. signal: index, where it
    is largest. begun_ms: of the window. level, shift: (F,) the level, and how far the window is from it. t: (F,).
    """

    p: float
    signal: int
    begun_ms: int
    level: Floats
    shift: Floats
    t: Floats


def moved(series: Series) -> Moved | str:
    """Hold the present of a stream against its past; or say why that cannot be done yet."""
    if len(series.start_ms) < LEAST or series.start_ms[-1] - series.start_ms[0] < LEAST_MS:
        return f"{len(series.start_ms)} hours were seen, {LEAST_MS // 3_600_000} are needed: a night must be among them"
    while True:
        spans = len(series.samples)
        if spans < LEAST:
            return f"{spans} spans that do not resemble each other, {LEAST} are needed"
        splits = _splits(series)
        best = LEVEL + int(np.abs(splits.t).max(axis=1).argmax())
        resemblance, error = _resemblance(_residual(series, best), series.classes)
        if resemblance - error <= RESEMBLANCE:
            return _most(series, splits, resemblance + 2.0 / spans)  # two means were fitted: they take off so much
        series = _joined(series)


def _most(series: Series, splits: _Splits, resemblance: float) -> Moved:
    """Where it shows most and lasts; what resemblance is left widens the errors, as of an AR(1) stream."""
    rest = min(max(resemblance, 0.0), 0.9)
    t = splits.t * math.sqrt((1.0 - rest) / (1.0 + rest))
    height = np.where(splits.lasting, np.abs(t), 0.0)
    row, signal = divmod(int(height.argmax()), height.shape[1])
    p = min(1.0, 2.0 * float(stdtr(len(series.samples) - 2, -height[row, signal])) * height.size)
    kept = (part[row].copy() for part in (splits.level, splits.shift, t))  # a view would keep every split
    return Moved(p, signal, int(series.start_ms[LEVEL + row]), *kept)


class _Splits(NamedTuple):
    """Every split into level and window. Row i: the window begins at span LEVEL + i. All (L, F)."""

    level: Floats
    shift: Floats
    t: Floats
    lasting: NDArray[np.bool_]  # whether the last quarter of the window is still away from the level


def _splits(series: Series) -> _Splits:
    n, m = series.samples[:, None], len(series.samples)
    centre = np.average(series.means, axis=0, weights=series.samples)
    x = series.means - centre  # so that squares lose nothing to rounding
    at = np.arange(LEVEL, m)
    count, total = np.cumsum(n, axis=0), np.cumsum(n * x, axis=0)
    before = count[at - 1]
    after = count[-1] - before
    level = total[at - 1] / before
    window = (total[-1] - total[at - 1]) / after
    square = (n * x * x).sum(axis=0) - before * level**2 - after * window**2
    floor = np.maximum(_floor(series, level + centre, before), _floor(series, window + centre, after))
    variance = np.maximum(square / (m - 2), floor)
    t = (window - level) / np.sqrt(variance * (1.0 / before + 1.0 / after))
    last = m - np.maximum(1, (m - at) // 4)
    now = (total[-1] - total[last - 1]) / (count[-1] - count[last - 1]) - level
    lasting = now * np.sign(window - level) >= LASTING * np.abs(window - level)
    return _Splits(level + centre, window - level, t, lasting)


def _floor(series: Series, mean: Floats, samples: Floats) -> Floats:
    """(L, F) variance of a sample, no less: what never varied so far may yet, and a class seen once is but one."""
    cut = mean.shape[1] - series.classes
    floor = np.full(mean.shape, FINEST)
    floor[:, len(SCALARS) : cut] = FLOOR
    share = (np.clip(mean[:, cut:], 0.0, 1.0) * samples + 1.0) / (samples + 2.0)
    floor[:, cut:] = share * (1.0 - share)
    return floor


def _residual(series: Series, cut: int) -> Floats:
    n = series.samples[:, None]
    parts = [
        np.sqrt(n[part]) * (series.means[part] - np.average(series.means[part], axis=0, weights=series.samples[part]))
        for part in (slice(0, cut), slice(cut, None))
    ]
    left = np.concatenate(parts)
    residual: Floats = left / np.sqrt(np.square(left).mean(axis=0) + FINEST)
    return residual


def _resemblance(residual: Floats, classes: int) -> tuple[float, float]:
    """The correlation of neighbouring spans, the most of scalars, directions, classes; and its standard error."""
    products = (residual[1:] * residual[:-1]).mean(axis=0)
    cut, scalars = len(products) - classes, len(SCALARS)
    parts = (products[: min(scalars, cut)], products[scalars:cut], products[cut:])
    return max((float(part.mean()), 1.0 / math.sqrt(len(residual) * len(part))) for part in parts if len(part))


def _joined(series: Series) -> Series:
    """Pairs of neighbours as one span; the oldest is left out where there is an odd one."""
    odd = len(series.samples) % 2
    n = series.samples[odd:].reshape(-1, 2)
    means = series.means[odd:].reshape(len(n), 2, -1)
    total = n.sum(axis=1)
    return series._replace(
        start_ms=series.start_ms[odd:][::2],
        samples=total,
        means=(n[:, :, None] * means).sum(axis=1) / total[:, None],
    )
