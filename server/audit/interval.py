"""Between which limits does a share lie?

The mid-p interval of a binomial share (Lancaster, JASA 56, 1961; Berry and Armitage, The Statistician 44, 1995),
carried over to a weighted sum of counts as Fay and Feuer do it for rare ones (Statistics in Medicine 1997; Fay and Kim,
Biometrical Journal 2017): by as many labels of equal weight as the variance says. Mistakes are rare, and the few that
were found may all have been of small weight: then the estimated variance is small, and a normal interval far too short.
Here the upper limit allows for one more mistake, of the weight that a sample of the stream has on average. With no
mistake among n alike it is 3 / n, as it should be.

A variance that rests on few labels of unequal weight is itself a guess: it is taken as larger by the square of what a
Student's t of its degrees of freedom is wider than one of those that as many equal labels have (Korn and Graubard,
Survey Methodology 24(2), 1998). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import betainc, stdtrit

STEPS = 34  # of bisection, to 1e-10


def limits(
    share: float,
    variance: float,
    unit: float,
    *,
    confidence_level: float,
    free: float = math.inf,
    alike: float = math.inf,
) -> tuple[float, float]:
    """Limits of a share in 0..1.

    Args:
        share: the estimate.
        variance: its estimated variance.
        unit: by how much one more sample of average weight would have moved it; 0 when all were seen.
        confidence_level: 0..1.
        free: degrees of freedom of the variance, 1 or more; inf when it is that of equal weights.
        alike: those it would have, were the weights equal.

    >>> tuple(round(limit, 3) for limit in limits(1.0, 0.0, 1 / 100, confidence_level=0.95))
    (0.97, 1.0)
    """
    if share > 0.5:  # of the two it is the rarer that is counted
        low, high = limits(1.0 - share, variance, unit, confidence_level=confidence_level, free=free, alike=alike)
        return 1.0 - high, 1.0 - low
    tail = (1.0 - confidence_level) / 2.0
    if free < alike:
        variance *= (float(stdtrit(free, tail)) / float(stdtrit(max(1.0, alike), tail))) ** 2
    of_counts = variance / (1.0 - share)  # as if whether one is a mistake said nothing of the next
    seen = _beta(share, of_counts)
    one_more = _beta(share + unit, of_counts + unit**2)

    def below(x: float) -> float:
        return (seen(x) + one_more(x)) / 2.0

    low, high = _where(below, tail), _where(below, 1.0 - tail)
    return min(low, share), min(1.0, max(high, share))


def _beta(share: float, variance: float) -> Callable[[float], float]:
    """How likely the true share is below one, by so many mistakes among so many as have this share and variance.

    A step where there is no variance. Of x mistakes among n: Beta(x, n - x + 1) (Clopper and Pearson 1934).
    """
    if variance <= 1e-18 or share <= 1e-12 or share >= 1.0:
        return lambda x: float(x >= share)
    found, among = share**2 / variance, share / variance
    return lambda x: float(betainc(found, max(0.0, among - found) + 1.0, min(x, 1.0)))


def _where(below: Callable[[float], float], share: float) -> float:
    low, high = 0.0, 1.0
    if below(low) >= share:
        return low
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if below(middle) < share else (low, middle)
    return high
