"""Which samples does the model's last layer not know yet?

VeSSAL (Saran, Yousefi, Krishnamurthy, Langford and Ash, ICML 2023): a sample is asked for in proportion to how far its
gradient lies outside of those sent already,

    x    = ((p - onehot) R1) * (h R2)          64 numbers that stand for the gradient of the last layer
    q    = x' A^-1 x,  A = 0.01 I + sum of x x' over what was sent
    rule = share * q / mean(q), more when the bucket is full

It is uncertainty (p - onehot vanishes for a confident sample) and novelty in one. Against the paper: the sketch of the
outer product (Pham and Pagh, KDD 2013) in place of its C x D numbers, a running mean of q in place of a trace at every
step, and a bucket that bounds every window. Everything else is the Selector's.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.novelty import Memory, Projection
from edge_agent.choose.selector import NOVELTY_ALPHA, PACE, WARM, Asked, Selector

Floats = NDArray[np.float32]

SKETCH = 64  # dimensions; fewer takes different gradients for the same, more costs time and a larger saved state
RIDGE = 0.01  # of A, the paper's; lower asks for anything new however sure the model is, higher forgets what was sent
RULE_MAX = 0.999  # log-odds want less than 1
NEVER = -60.0  # log-odds of a rule of 0: nothing but the floor is left, which -inf would lose
MEAN_MIN = 1e-12  # lets q be divided by its mean where all of it is 0


def _residual(scored: Scored) -> Floats | None:
    """(N, C) p - onehot, or what an adapter says in its place; None: nothing is known."""
    if scored.exp is None:
        return scored.residual
    residual: Floats = scored.exp * scored.confidence[:, None]
    residual[np.arange(len(residual)), scored.label] -= 1.0
    return residual


class Gradients:
    """Covariance of the sketched gradients sent since the model changed; the seam of Novelty."""

    def __init__(self, *, seed: int = 0) -> None:
        """`seed`: of the projections; it must not change while a covariance is remembered."""
        self._residual, self._embedding = (Projection(seed, side, length=SKETCH) for side in (0, 1))
        self.memory: Floats = np.eye(SKETCH, dtype=np.float32) / np.float32(RIDGE)  # A^-1
        self.sent = 0

    def sketch(self, scored: Scored, embedding: Floats | None) -> Floats:
        """Class probabilities and embedding (N, D), which may be missing, to (N, SKETCH)."""
        residual = _residual(scored)
        if residual is None:  # no sample of the block can be used
            return np.zeros((len(scored.utility), SKETCH), np.float32)
        sketches = self._residual.project(residual)
        if embedding is not None:
            length = np.sqrt(np.einsum("nd,nd->n", embedding, embedding))
            unit = embedding / np.maximum(length, 1e-12)[:, None]  # or the scale of a layer would decide what is new
            sketches *= self._embedding.project(unit)
        scaled: Floats = sketches / np.float32(math.sqrt(SKETCH))
        return scaled

    def distance(self, sketches: Floats) -> Floats:
        """q, (N,): 0 where a sketch cannot be used."""
        # Each row a product of its own: in one of all, the rounding depends on where the row stands.
        turned = np.matmul(sketches[:, None], self.memory)[:, 0]
        q: Floats = np.einsum("nd,nd->n", turned, sketches)
        return np.where(q > 0.0, q, np.float32(0.0))  # NaN is not > 0 either

    def remember(self, sketch: Floats) -> None:
        """Take (SKETCH,) into the covariance (Sherman and Morrison 1950)."""
        self.sent += 1
        if np.isfinite(sketch).all():
            turned = self.memory @ sketch
            self.memory -= np.outer(turned, turned) / (np.float32(1.0) + sketch @ turned)

    def forget(self) -> None:
        """Nothing was sent: gradients of another model mean nothing to this one's."""
        self.memory = np.eye(SKETCH, dtype=np.float32) / np.float32(RIDGE)
        self.sent = 0


class Vessal(Selector):
    """A Selector with the rule above. The acquisition function is recorded with the samples, and decides nothing."""

    strategy: ClassVar[str] = "vessal-1"
    memory_of: ClassVar[type[Memory]] = Gradients

    def _walk(
        self, row: int, count: int, utilities: list[float], distances: list[float], needs: list[float]
    ) -> Asked | None:
        """See Selector: here `mean_novelty` is that of q, and a uniform draw goes on until it is known."""
        state, bucket, share = self._state, self.purse.labels, self.rules.label_share
        of_day = self.purse.day_fill
        asked = None
        while asked is None and row < count:
            q = distances[row]
            if utilities[row] == utilities[row]:  # else NaN: cannot be used
                bucket.earn(1.0)
                threshold, seen = state.mean_novelty, WARM if state.warm is None else len(state.warm)
                if seen >= self._first:
                    pace = math.exp(PACE * (min(bucket.tokens / bucket.depth, of_day) - 0.5))
                    rule = min(RULE_MAX, share * pace * q / max(threshold, MEAN_MIN))
                    lean = math.log(rule / (1.0 - rule)) if rule > 0.0 else NEVER
                else:
                    lean = self._uniform
                state.mean_novelty += max(NOVELTY_ALPHA, 1.0 / (1.0 + seen)) * (q - threshold)
                if state.warm is not None:
                    state.warm = [*state.warm, q] if seen < WARM else None
                if lean > needs[row]:
                    asked = Asked(row, lean, threshold)
            row += 1
        return asked
