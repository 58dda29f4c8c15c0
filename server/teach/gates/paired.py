"""How far is the candidate from the champion, and how sure may one be of it?

Both were asked about the same samples, so every figure is the weighted mean of one value to a sample, -1..1. With
weights of 1 / (probability of selection) that is the mean over the stream (Hajek 1971). Three intervals, by what the
samples are:

    fixed     a set that was fixed before anybody looked (imports): Agresti and Min (2005) for matched pairs
    anytime   a set that grows, and is looked at whenever a round happens to begin (the audit): the values of m against
              which no gambler could have grown rich, however often one looks (Waudby-Smith and Ramdas, JRSS-B 2024)
    of_parts  figures that are no mean, by their influence on the figure: F1, calibration. Normal for a fixed set; for
              one that grows the asymptotic confidence sequence of Waudby-Smith et al. (Annals of Statistics 2024)

None is of no width where no sample changed sides: a few that agree do not show that all do.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STAKES = 0.98 * 1.6 ** -np.arange(16.0)
"""Shares of what a gambler has, staked on every sample. Larger ones win on large differences, smaller ones on small
differences among many samples; the average over all loses little against the best (4 bits), whatever the truth is."""
STEPS = 30  # of bisection: 1e-9 of the range
PLANNED = 500.0  # effective samples at which the asymptotic sequence is narrowest; far from it, it is a little wider


class Difference(NamedTuple):
    """A mean, or another figure, with its interval."""

    figure: float
    low: float
    high: float
    n: int
    effective: float  # samples of equal weight that would say as much (Kish 1965)

    def negated(self) -> Difference:
        """The other way round."""
        return Difference(-self.figure, -self.high, -self.low, self.n, self.effective)

    def within(self, least: float, most: float) -> Difference:
        """With an interval that stays where figures of this kind can be."""
        return self._replace(low=max(self.low, least), high=min(self.high, most))


NOTHING = Difference(0.0, -1.0, 1.0, 0, 0.0)


def effective(weight: Floats) -> float:
    """Samples of equal weight that would say as much (Kish 1965)."""
    return float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0


def fixed(values: NDArray[Any], weight: Floats, *, confidence: float) -> Difference:
    """The weighted mean of values (N,) in -1..1, of a set that was fixed beforehand.

    Half a sample of -1, half a sample of 1 and one of 0 are added before the normal approximation (for matched pairs:
    half to each of the four cells), with the effective number of samples for n. Unlike the plain one it has a width
    when no sample changed sides, which is the usual case in a small slice; unlike a bootstrap it needs no seed.

    >>> import numpy as np
    >>> d = fixed(np.repeat([1, 0, -1], [20, 80, 0]), np.ones(100), confidence=0.95)
    >>> f"{d.figure:+.2f} [{d.low:+.2f}, {d.high:+.2f}]"
    '+0.20 [+0.12, +0.28]'
    """
    if not len(weight):
        return NOTHING
    figure, centre, error, size = _moments(values, weight)
    half = z_of(confidence) * error
    low, high = max(-1.0, min(figure, centre - half)), min(1.0, max(figure, centre + half))
    return Difference(figure, low, high, len(weight), size)


def fixed_below(values: NDArray[Any], weight: Floats, limit: float) -> float:
    """P that the mean is `limit` or more: small when it is surely below. One-sided, of the same interval."""
    if not len(weight):
        return 1.0
    figure, centre, error, _ = _moments(values, weight)
    return 1.0 if figure >= limit else NormalDist().cdf(-(limit - centre) / error)


def _moments(values: NDArray[Any], weight: Floats) -> tuple[float, float, float, float]:
    """Mean; mean and standard error with what is added; effective samples."""
    share, size = weight / weight.sum(), effective(weight)
    mean, square, total = float(share @ values), float(share @ np.square(values)), size + 2.0
    centre = size * mean / total
    variance = max((size * square + 1.0) / total - centre**2, 0.0)
    return mean, centre, math.sqrt(variance / total), size


def anytime(values: NDArray[Any], weight: Floats, *, confidence: float) -> Difference:
    """The weighted mean of values (N,) in -1..1, of a set that grows: the interval holds at every size at once.

    That the mean is m is refuted when betting on more, or on less, would have multiplied the stake by 2 / (1 -
    confidence): under m nobody's fortune is expected to grow (Ville 1939). A bet on sample i wins stake * v (value -
    m) / (1 + m), with v its weight over the largest: it has mean 0 for the weighted mean m, is never more than what one
    has, and falls as m grows, so that the interval is found by bisection. It does not depend on the samples' order.

    >>> import numpy as np
    >>> d = anytime(np.repeat([1, 0, -1], [20, 80, 0]), np.ones(100), confidence=0.95)
    >>> f"{d.figure:+.2f} [{d.low:+.2f}, {d.high:+.2f}]"
    '+0.20 [+0.08, +0.36]'
    """
    if not len(weight):
        return NOTHING
    values = np.asarray(values, np.float64)
    figure = float(weight @ values / weight.sum())
    rich = math.log(2.0) - math.log(1.0 - confidence) if confidence < 1.0 else math.inf
    low = _lower(_gambler(values, weight), figure, rich)
    high = -_lower(_gambler(-values, weight), -figure, rich)
    return Difference(figure, low, high, len(weight), effective(weight))


def anytime_below(values: NDArray[Any], weight: Floats, limit: float) -> float:
    """P that the mean is `limit` or more, whenever one looks: 1 / what betting on less has made of the stake."""
    if not len(weight) or limit <= -1.0:
        return 1.0
    return math.exp(-max(0.0, _gambler(-np.asarray(values, np.float64), weight)(-limit)))


def _gambler(values: Floats, weight: Floats) -> Callable[[float], float]:
    """The logarithm of what betting on a mean above m makes of 1."""
    pairs = np.stack([values, weight / weight.max()], axis=1)
    kinds, count = np.unique(pairs, axis=0, return_counts=True)  # few: verdicts are -1, 0 or 1, and weights alike
    value, stake = kinds[:, 0], STAKES[:, None] * kinds[:, 1]

    def fortune(m: float) -> float:
        each = np.log1p(stake * (value - m) / (1.0 + m)) @ count
        most = float(each.max())
        return most + math.log(float(np.exp(each - most).mean()))

    return fortune


def _lower(fortune: Callable[[float], float], figure: float, rich: float) -> float:
    low, high = -1.0 + 1e-9, figure
    if high <= low or fortune(low) < rich:
        return -1.0
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if fortune(middle) >= rich else (low, middle)
    return high


def of_parts(figure: float, influence: Floats, weight: Floats, *, confidence: float, growing: bool) -> Difference:
    """A figure whose error is the weighted mean of influences (N,), each of mean 0.

    To their variance the same two samples are added as in `fixed`.

    >>> import numpy as np
    >>> d = of_parts(0.5, np.repeat([-0.5, 0.5], 250), np.ones(500), confidence=0.95, growing=False)
    >>> round(d.low, 3), round(d.high, 3)
    (0.456, 0.544)
    """
    if not len(weight):
        return NOTHING
    share, size = weight / weight.sum(), effective(weight)
    error = widened(size**2 * float(np.square(share * influence).sum()), size)
    half = error * (_sequence(size, confidence) if growing else z_of(confidence))
    return Difference(figure, figure - half, figure + half, len(weight), size)


def widened(squares: float, size: float) -> float:
    """The standard error of a mean of mean-0 values with this sum of squares, with half a -1, half a 1 and a 0 added.

    >>> round(widened(0.0, 30.0), 3), round(widened(100.0, 1000.0), 4)
    (0.031, 0.01)
    """
    return math.sqrt(squares + 1.0) / (size + 2.0)


def _sequence(size: float, confidence: float) -> float:
    """Standard errors that the mean of `size` samples stays within, at every size at once (ibid., theorem 2.2)."""
    alpha = max(1.0 - confidence, 1e-9)
    spread = (-2.0 * math.log(alpha) + math.log(-2.0 * math.log(alpha)) + 1.0) / PLANNED
    seen = size * spread + 1.0
    return math.sqrt(2.0 * seen / (size * spread) * math.log(math.sqrt(seen) / alpha))


def z_of(confidence: float) -> float:
    """Standard errors within which a normal figure stays, two-sided."""
    return NormalDist().inv_cdf(0.5 + min(confidence, 1.0 - 1e-9) / 2.0)
