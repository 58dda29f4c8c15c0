"""How does a figure grow with the number of devices?

A power of it: y = a n^e is a line in logarithms, fitted by least squares. The interval is Student's, of the slope
(Draper and Smith, "Applied Regression Analysis", 3rd ed., 1998, section 1.4): it says how little three points tell.
Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

CONFIDENCE = 0.95


class Growth(msgspec.Struct, frozen=True):
    """An exponent: 1 is in proportion, 0 is not at all."""

    exponent: float
    low: float
    high: float
    points: int


def fit(sizes: Sequence[float], values: Sequence[float]) -> Growth | None:
    """The exponent; None when there are fewer than three points above 0, or all are of one size.

    >>> fit([100, 1000, 10_000], [2.0, 20.0, 200.0])
    Growth(exponent=1.0, low=1.0, high=1.0, points=3)
    """
    from scipy import stats

    pairs = [(math.log(n), math.log(y)) for n, y in zip(sizes, values, strict=True) if n > 0 and y > 0]
    if len(pairs) < 3 or len({x for x, _ in pairs}) < 2:
        return None
    x, y = np.array(pairs).T
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    left = y - y.mean() - slope * (x - x.mean())
    error = math.sqrt(float((left**2).sum()) / (len(pairs) - 2) / spread)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(pairs) - 2)) * error
    return Growth(round(slope, 4), round(slope - half, 4), round(slope + half, 4), len(pairs))
