"""What is kept back of the training samples to see when learning no longer helps?

Whole devices where there are enough of them, else what came last on each: neighbours in time show nearly the same, and
with some of them on either side the figure would say what was learnt by heart. What is held out to judge by is never
touched for this.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARE = 0.15  # kept back: less says little, more is missed in training
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
    back = np.zeros(len(y), np.bool_)
    if len(names) >= DEVICES_MIN:
        shuffled = np.random.default_rng(seed).permutation(len(names))
        sizes = np.bincount(where)[shuffled]
        back = np.isin(where, shuffled[np.cumsum(sizes) - sizes < SHARE * len(y)])
    else:
        for number in range(len(names)):
            rows = np.flatnonzero(where == number)
            last = rows[np.argsort(place[rows], kind="stable")]
            back[last[len(last) - round(SHARE * len(last)) :]] = True
    lost = np.setdiff1d(y[back], y[~back])  # a class that would be taught by nothing
    back &= ~np.isin(y, lost)
    return back
