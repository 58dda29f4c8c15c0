"""How confident has a model been of late, and how sure is that mean?

Samples that follow each other are alike, so the standard error is taken from the means of groups of them (batch means,
Law and Carson 1979), not of single samples. It is still too small where a scene lasts for longer than a group.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec
import numpy as np
from numpy.typing import NDArray

GROUP = 25  # samples; fewer are too much alike for their means to be independent, more leave too few groups in a trial
GROUPS = 40  # kept, 1,000 samples: fewer know the mean worse, more remember what was long ago
LEAST = 6  # groups that an error can be taken from


class Mean(msgspec.Struct, frozen=True):
    """Of confidence. error: standard error; None: too few samples."""

    value: float
    error: float | None


class Confidence:
    """Takes in confidences of sound samples, in order."""

    def __init__(self) -> None:
        self._groups: deque[float] = deque(maxlen=GROUPS)
        self._rest = np.zeros(0, np.float32)

    def add(self, confidence: NDArray[np.float32]) -> None:
        """(N,), 0..1; what is not finite is left out."""
        self._rest = np.concatenate((self._rest, confidence[np.isfinite(confidence)]))
        whole = len(self._rest) // GROUP * GROUP
        if whole:
            self._groups.extend(self._rest[:whole].reshape(-1, GROUP).mean(axis=1, dtype=np.float64).tolist())
            self._rest = self._rest[whole:]

    def mean(self) -> Mean:
        """Of the last 1,000 at most, by whole groups where there is one.

        >>> one = Confidence()
        >>> one.add(np.tile(np.float32([0.6, 0.8]), 100))
        >>> mean = one.mean()
        >>> round(mean.value, 2), round(mean.error, 3)
        (0.7, 0.002)
        """
        groups = list(self._groups)
        if not groups:
            return Mean(float(self._rest.mean()) if len(self._rest) else 0.0, None)
        error = float(np.std(groups, ddof=1)) / math.sqrt(len(groups)) if len(groups) >= LEAST else None
        return Mean(float(np.mean(groups)), error)
