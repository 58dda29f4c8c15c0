"""How improbable is a statistic?

Tails of Student's and of Fisher's distribution by the incomplete beta function; numpy has none and nothing else is
needed of scipy.
"""

from __future__ import annotations

import math

TINY = 1e-300
CLOSE = 1e-12  # of the continued fraction; it takes some ten steps
STEPS = 500


def student(t: float, dof: float) -> float:
    """Probability that |T| is at least |t|, T of Student's distribution.

    >>> round(student(2.0, 10.0), 4)
    0.0734
    """
    return _beta(dof / (dof + t * t), 0.5 * dof, 0.5) if math.isfinite(t) else 0.0


def fisher(f: float, above: float, below: float) -> float:
    """Probability that F is at least f, F with `above` and `below` degrees of freedom.

    >>> round(fisher(4.0, 3.0, 20.0), 4)
    0.0221
    """
    return _beta(below / (below + above * f), 0.5 * below, 0.5 * above) if f > 0.0 else 1.0


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0.0 or x >= 1.0:
        return min(1.0, max(0.0, x))
    if x > (a + 1.0) / (a + b + 2.0):  # where the fraction converges slowly, its mirror image converges fast
        return 1.0 - _beta(1.0 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(max(front, -690.0)) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    """1 / (1 + d_1 / (1 + d_2 / ...)), by Lentz' method (Abramowitz and Stegun 26.5.8)."""
    value, c, d = 1.0, 1.0, 0.0
    for step in range(1, STEPS):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _nonzero(1.0 + term * d)
        c = _nonzero(1.0 + term / c)
        value *= c * d
        if abs(c * d - 1.0) < CLOSE:
            break
    return 1.0 / value


def _nonzero(number: float) -> float:
    return number if abs(number) > TINY else TINY
