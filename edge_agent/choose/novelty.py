"""How unlike everything sent lately is this sample?

The embedding is projected to a short normalised sketch (Johnson-Lindenstrauss), and held against a ring of the
sketches of the last samples sent. Near-duplicates are the first complaint of users of active learning; a burst of
frames of the same scene has novelty near 0 after the first. Samples still waiting for their label stand in the ring
like any other.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored

Floats = NDArray[np.float32]

SKETCH = 24  # dimensions; fewer confuses scenes, more costs time and tells no more
RING = 64  # sketches remembered; fewer forgets a scene that comes back, more calls everything old


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
    """Embeddings (N, D) to unit sketches (N, SKETCH); the same on every machine for the same seed and D."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._matrix: Floats = np.empty((0, SKETCH), np.float32)

    def __call__(self, embedding: Floats) -> Floats:
        """Project (N, D). A row of zeros stays one; NaN gives NaN."""
        if len(self._matrix) != embedding.shape[1]:
            rng = np.random.default_rng([self._seed, embedding.shape[1]])
            self._matrix = rng.standard_normal((embedding.shape[1], SKETCH)).astype(np.float32)
        sketches = embedding @ self._matrix
        norm = np.sqrt(np.einsum("nd,nd->n", sketches, sketches))
        unit: Floats = sketches / np.maximum(norm, 1e-12)[:, None]
        return unit


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
        # Always against the whole ring: the shape of the product, and so its rounding, must not depend on the history.
        cosine = sketches @ self.memory.T
        distance: Floats = 1.0 - cosine[:, : min(self.sent, RING)].max(axis=1)
        return distance

    def remember(self, sketch: Floats) -> None:
        """Take (SKETCH,) into the ring, in place of the oldest."""
        self.memory[self.sent % RING] = sketch
        self.sent += 1

    def forget(self) -> None:
        """Empty the ring: sketches of another model's embedding mean nothing to this one's."""
        self.sent = 0
