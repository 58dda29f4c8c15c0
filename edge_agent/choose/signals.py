"""What of a sample can drift?

Every sample becomes a row of whole numbers, so that the sum of any group of them is exact and does not depend on the
blocks they came in:

    confidence, energy (-logsumexp), distance (log of the mean z^2), z_1 .. z_K      in units of 1/4096

z is the embedding, whitened by the manifest's reference and clipped to +-4: a dead ReLU unit has an sd of nearly zero,
and its first spark would drown everything else. A graph without an embedding gives confidence and energy alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.hadamard import directions
from edge_agent.contract.artifact import Reference

Ints = NDArray[np.int64]

UNIT = 4096.0  # of a whole number; coarser ties scores, finer would overflow no sooner than 2^40 samples
CLIP = 4.0  # of z
SPREAD_FLOOR = 0.2  # of the median sd: what varies less counts as varying so much
LARGEST = 32  # of K; more is slower, and each direction is known less well
SCALARS = ("confidence", "energy", "distance")
DRAWN = "hadamard"  # by what directions are drawn; sums along others mean nothing to these


class Rows(NamedTuple):
    """Sound samples of a block. values: (n, 3 + K) or, without an embedding, (n, 2). labels: (n,)."""

    values: Ints
    labels: NDArray[np.intp]


class Signals:
    """Turns blocks into rows, for one model."""

    def __init__(self, reference: Reference, *, temperature: float, embedding: bool) -> None:
        """`embedding`: whether the graph gives one."""
        self._inverse_temperature = np.float32(1.0 / temperature)
        self._mean = np.asarray(reference.embedding_mean.array(), np.float32)
        self._whiten = _whitening(reference) if embedding else None
        self.drawn = DRAWN if embedding and _drawn(reference) else ""  # by what, where the manifest has none
        self.directions = 0 if self._whiten is None else self._whiten.shape[1]
        self.centres = self._seen_as(np.asarray(reference.class_centres.array(), np.float32), reference)

    def _seen_as(self, centres: NDArray[np.float32], reference: Reference) -> NDArray[np.float64]:
        """(C, K): z of the manifest's class centres; (0, K) when it has none that fit."""
        if self._whiten is None or centres.shape != (len(reference.class_share), len(self._mean)):
            return np.zeros((0, self.directions))
        return np.clip((centres - self._mean) @ self._whiten, -CLIP, CLIP).astype(np.float64)

    def rows(
        self, scored: Scored, logits: NDArray[np.float32], embedding: NDArray[np.float32] | None, *, count: int
    ) -> Rows:
        """The first `count` rows of a block; the whole block is passed, so that rounding does not depend on its fill.

        Samples without a utility, or with anything not finite, are left out.
        """
        energy = self._energy(logits) if scored.energy is None else scored.energy
        table: NDArray[np.float32] = np.empty(
            (len(energy), 2 + (1 + self.directions if self.directions else 0)), np.float32
        )
        table[:, 0], table[:, 1] = scored.confidence, energy
        sound = np.isfinite(scored.utility[:count])  # so are confidence and energy then
        with np.errstate(invalid="ignore", over="ignore"):
            if self._whiten is not None and embedding is not None:
                z: NDArray[np.float32] = np.clip((embedding - self._mean) @ self._whiten, -CLIP, CLIP)
                table[:, 2] = np.log(np.square(z).mean(axis=1) + np.float32(1e-3))
                table[:, 3:] = z
                sound &= np.isfinite(table[:count, 2])  # which any z that is not finite would spoil
            whole = np.rint(table[:count] * UNIT).astype(np.int64)
        labels = scored.label[:count]
        return Rows(whole, labels) if sound.all() else Rows(whole[sound], labels[sound])

    def _energy(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) as the scores tell it, where they do not."""
        scaled = logits * self._inverse_temperature
        top = scaled.max(axis=1)
        energy: NDArray[np.float32] = -(top + np.log(np.exp(scaled - top[:, None]).sum(axis=1)))
        return energy


def _whitening(reference: Reference) -> NDArray[np.float32]:
    """(D, K): the manifest's; else its sd alone and, past LARGEST, directions that are drawn (hadamard.py)."""
    if reference.whitening is not None:
        return np.asarray(reference.whitening.array(), np.float32)
    sd = np.asarray(reference.embedding_sd.array(), np.float64)
    inverse = 1.0 / np.maximum(sd, SPREAD_FLOOR * float(np.median(sd)) + 1e-9)
    if not _drawn(reference):
        return np.diag(inverse).astype(np.float32)
    signs = directions(len(sd), LARGEST, seed=(0,)) / np.sqrt(len(sd))
    projection: NDArray[np.float32] = (inverse[:, None] * signs).astype(np.float32)
    return projection


def _drawn(reference: Reference) -> bool:
    return reference.whitening is None and reference.embedding_sd.shape[0] > LARGEST
