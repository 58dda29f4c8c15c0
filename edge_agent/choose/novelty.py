"""How unlike everything sent lately is this sample?

The embedding is projected to a short normalised sketch (Johnson-Lindenstrauss), and held against a ring of the
sketches of the last samples sent. Near-duplicates are the first complaint of users of active learning; a burst of
frames of the same scene has novelty near 0 after the first. Samples still waiting for their label stand in the ring
like any other.

A matrix product rounds a row by where it stands in its block, on some processors. Sketches and distances are sums of
whole numbers instead, small enough to be exact in any order, so that decisions do not depend on the blocks.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.hadamard import directions

Floats = NDArray[np.float32]

SKETCH = 24  # dimensions; fewer confuses scenes, more costs time and tells no more
RING = 64  # sketches remembered; fewer forgets a scene that comes back, more calls everything old
EXACT = 2.0**24  # whole numbers up to here are exact in float32
TINY = np.float32(1e-30)  # a row of zeros is divided by it
GRID = np.float32(2.0**20)  # steps to 1 of a unit sketch: its products are then exact in float64


class Memory(Protocol):
    """What was sent lately, and how far from it a sample is."""

    memory: Floats  # all of it, as saved
    sent: int

    def sketch(self, scored: Scored, embedding: Floats | None) -> Floats | None:
        """A block's samples as (N, length) numbers to compare; None when there is nothing to compare them by."""

    def distance(self, sketches: Floats) -> Floats:
        """How unlike what was sent, (N,), 0 or more."""

    def remember(self, sketch: Floats) -> None:
        """This one was sent: (length,)."""

    def forget(self) -> None:
        """Begin again."""


class Projection:
    """Rows (N, D) to (N, length) by the directions of hadamard.py; the same on every machine for the same seed and D.

    Each row is rounded to steps of its greatest number, of which there are so many that no sum of them reaches EXACT:
    30,000 for 512 dimensions.
    """

    def __init__(self, *seed: int, length: int = SKETCH) -> None:
        self._seed = seed or (0,)
        self._length = length
        self._matrix: Floats = np.empty((0, length), np.float32)
        self._steps = np.float32(0.0)

    def project(self, rows: Floats) -> Floats:
        """Keep lengths and angles as they are, nearly: rows (N, D) to (N, length). NaN or inf gives NaN."""
        if len(self._matrix) != rows.shape[1]:
            self._draw(rows.shape[1])
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            step: Floats = np.maximum(np.maximum(rows.max(axis=1), -rows.min(axis=1)) / self._steps, TINY)[:, None]
            whole: Floats = rows * (np.float32(1.0) / step)
            projected: Floats = np.rint(whole) @ self._matrix
            projected *= step
        return projected

    def __call__(self, embedding: Floats) -> Floats:
        """Embeddings (N, D) to unit sketches. A row of zeros stays one; NaN or inf gives NaN."""
        sketches = self.project(embedding)
        with np.errstate(invalid="ignore", over="ignore"):
            norm = np.sqrt(np.einsum("nd,nd->n", sketches, sketches))
            unit: Floats = sketches * (GRID / np.maximum(norm, np.float32(1e-12)))[:, None]
        np.rint(unit, out=unit)
        unit /= GRID
        return unit

    def _draw(self, dimensions: int) -> None:
        self._matrix = directions(dimensions, self._length, seed=self._seed)
        self._steps = np.float32(max(1.0, EXACT // max(1, dimensions) - 1.0))


class Novelty:
    """Distance to what was sent lately: 0 (the same) to 2 (opposite); 1 while nothing was sent."""

    def __init__(self, *, seed: int = 0) -> None:
        """`seed`: of the projection; it must not change while sketches are remembered."""
        self._project = Projection(seed)
        self.memory: Floats = np.zeros((RING, SKETCH), np.float32)
        self.sent = 0

    def sketch(self, scored: Scored, embedding: Floats | None) -> Floats | None:  # noqa: ARG002 - the seam's
        """Embeddings (N, D) to unit sketches (N, SKETCH); None without."""
        return None if embedding is None else self._project(embedding)

    def distance(self, sketches: Floats) -> Floats:
        """1 less the greatest cosine to the ring, (N,)."""
        if self.sent == 0:
            return np.ones(len(sketches), np.float32)
        cosine = sketches.astype(np.float64) @ self.memory[: min(self.sent, RING)].T.astype(np.float64)
        distance: Floats = np.maximum(1.0 - cosine.max(axis=1), 0.0).astype(np.float32)
        return distance

    def remember(self, sketch: Floats) -> None:
        """Take (SKETCH,) into the ring, in place of the oldest."""
        self.memory[self.sent % RING] = sketch
        self.sent += 1

    def forget(self) -> None:
        """Empty the ring: sketches of another model's embedding mean nothing to this one's."""
        self.sent = 0
