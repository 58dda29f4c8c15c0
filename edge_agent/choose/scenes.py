"""Does the stream come in scenes?

Frames of one scene, windows of one movement: a sample is then nearer to the one before it than to anything that was
sent. In a stream without an order the one before is a stranger like any other, and of it and k sent ones each is as
likely the nearest:

    alike = running mean of [nearer to the one before than to all k that were sent] - 1 / (k + 1)

0 without an order, towards 1 in long scenes that were not asked about. It compares ranks of distances and nothing else,
so that neither the model nor the scale of its embedding matters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ALIKE_ALPHA = 0.01  # of the running mean, about 100 samples; lower learns late that scenes began, higher is noise


class Before:
    """The sketch of the sample before."""

    def __init__(self, *, saved: bytes = b"") -> None:
        """`saved`: what `save` gave; ValueError when it is not that."""
        self._last: NDArray[np.float64] | None = np.frombuffer(saved, np.float64) if saved else None

    def distance(self, sketches: Floats, count: int) -> Floats:
        """1 less the cosine of each of the first `count` sketches (N, D) to the one before: (count,), inf if unknown.

        Sketches are whole steps of a grid (novelty.py), so that no sum depends on the blocks.
        """
        now = sketches[:count].astype(np.float64)
        away = np.full(count, np.inf)
        if self._last is not None:
            away[0] = 1.0 - now[0] @ self._last
        away[1:] = 1.0 - np.einsum("nd,nd->n", now[1:], now[:-1])
        self._last = now[-1].copy()
        distance: Floats = np.maximum(away, 0.0).astype(np.float32)
        return distance

    def forget(self) -> None:
        """The next sketch is another model's."""
        self._last = None

    def save(self) -> bytes:
        """For a new one to go on from."""
        return b"" if self._last is None else self._last.tobytes()
