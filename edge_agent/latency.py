"""How long do runs of a model take? Pure.

>>> percentile_ms([0.004, 0.001, 0.002], 0.5), percentile_ms([], 0.95)
(2.0, 0.0)
"""

from __future__ import annotations

from collections.abc import Iterable

KEPT = 1024  # of the latest runs


def percentile_ms(seconds: Iterable[float], share: float) -> float:
    """The value below which that share of `seconds` lies, in ms, between two by the straight line; of nothing 0.

    numpy's own brings its masked arrays along: a megabyte, and a twentieth of the agent's start.
    """
    ordered = sorted(seconds)
    if not ordered:
        return 0.0
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return 1000.0 * (ordered[low] + (ordered[high] - ordered[low]) * (place - low))
