"""What is kept back of the training samples to see when learning no longer helps?

Whole devices where there are enough of them and they are small enough, else what came last on each: neighbours in time
show nearly the same, and with some of them on either side the figure would say what was learnt by heart. What is held
out to judge by is never touched for this.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARE = 0.15  # kept back: less says little, more is missed in training
SHARE_MIN, SHARE_MAX = 0.05, 0.3  # that whole devices may be of all: one alone may have half of the samples
DEVICES_MIN = 5  # below it one device is too large a part, or too special


def kept_back(
    y: NDArray[Any], device: NDArray[Any] | None, order: NDArray[Any] | None, *, seed: int
) -> NDArray[np.bool_]:
    """(N,) which samples are kept back.

    Args:
        y: (N,) classes; of each, some stay to be trained on.
        device: (N,) where each came from; None: all from one.
        order: (N,) numbers by which they came on a device; None: as they stand.
        seed: which devices.

    >>> device = np.repeat(np.arange(10), 10)
    >>> sorted(set(device[kept_back(np.arange(100) % 2, device, None, seed=0)].tolist()))
    [4, 6]
    """
    place = np.arange(len(y)) if order is None else order
    names, where = np.unique(np.zeros(len(y)) if device is None else device, return_inverse=True)
    back = np.isin(where, _devices(np.bincount(where), seed)) if len(names) >= DEVICES_MIN else np.zeros(len(y), bool)
    if back.mean() < SHARE_MIN:
        back = _latest(where, place)
    lost = np.setdiff1d(y[back], y[~back])  # a class that would be taught by nothing
    back &= ~np.isin(y, lost)
    return back


def _devices(sizes: NDArray[np.intp], seed: int) -> list[int]:
    """Numbers of devices with this many samples each, at random, until they are SHARE of all; never above SHARE_MAX."""
    chosen, taken, total = list[int](), 0, int(sizes.sum())
    for number in np.random.default_rng(seed).permutation(len(sizes)).tolist():
        if taken >= SHARE * total:
            break
        if taken + sizes[number] <= SHARE_MAX * total:
            chosen.append(number)
            taken += int(sizes[number])
    return chosen


def _latest(where: NDArray[np.intp], place: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) of each device what came last."""
    back = np.zeros(len(where), np.bool_)
    for number in range(int(where.max(initial=-1)) + 1):
        rows = np.flatnonzero(where == number)
        last = rows[np.argsort(place[rows], kind="stable")]
        back[last[len(last) - round(SHARE * len(last)) :]] = True
    return back
