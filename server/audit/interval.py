"""Between which limits does a share lie?

The mid-p gamma interval for a weighted sum of rare counts (Fay and Feuer, Statistics in Medicine 1997; Fay and Kim,
Biometrical Journal 2017). Mistakes are rare, and the few that were found may all have been of small weight: then the
estimated variance is small, and a normal interval far too short. Here the upper limit allows for one more mistake, of
the weight that a sample of the stream has on average. With no mistake among n alike it is 3 / n, as it should be.

A variance that rests on few labels of unequal weight is itself a guess: it is taken as larger by the square of what a
Student's t of as many degrees of freedom is wider than a normal (Korn and Graubard, Survey Methodology 24(2), 1998).
Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import gammainc, ndtri, stdtrit

STEPS = 34  # of bisection, to 1e-10


def limits(
    share: float, variance: float, unit: float, *, confidence_level: float, free: float = math.inf
) -> tuple[float, float]:
    """Limits of a share in 0..1.

    Args:
        share: the estimate.
        variance: its estimated variance.
        unit: by how much one more sample of average weight would have moved it; 0 when all were seen.
        confidence_level: 0..1.
        free: degrees of freedom of the variance, 1 or more; inf when it is known, as that of equal weights.

    >>> tuple(round(limit, 3) for limit in limits(1.0, 0.0, 1 / 100, confidence_level=0.95))
    (0.97, 1.0)
    """
    if share > 0.5:  # of the two it is the rarer that is counted
        low, high = limits(1.0 - share, variance, unit, confidence_level=confidence_level, free=free)
        return 1.0 - high, 1.0 - low
    tail = (1.0 - confidence_level) / 2.0
    if free < math.inf:
        variance *= (float(stdtrit(free, tail)) / float(ndtri(tail))) ** 2
    seen = _gamma(share, variance)
    one_more = _gamma(share + unit, variance + unit**2)

    def below(x: float) -> float:
        return (seen(x) + one_more(x)) / 2.0

    low, high = _where(below, tail), _where(below, 1.0 - tail)
    return min(low, share), min(1.0, max(high, share))


def _gamma(mean: float, variance: float) -> Callable[[float], float]:
    """The distribution function of that mean and variance; a step where there is no variance."""
    if variance <= 1e-18 or mean <= 1e-12:
        return lambda x: float(x >= mean)
    shape, scale = mean**2 / variance, variance / mean
    return lambda x: float(gammainc(shape, max(x, 0.0) / scale))


def _where(below: Callable[[float], float], share: float) -> float:
    low, high = 0.0, 1.0
    if below(low) >= share:
        return low
    while below(high) < share:
        high *= 2.0
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if below(middle) < share else (low, middle)
    return high
