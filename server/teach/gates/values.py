"""Are the numbers as near, and as near as they claim to be?

    MAE t          mean absolute error of a target, in units of its scale (the sd of the target on training data): each
                   target by itself, for a mean hides the one that was lost; all judged together (Bonferroni)
    coverage       by how much more than the champion's it misses that 90 % of the truths lie within 1.64 sd
    negative flips the share of samples that lost more than half of their score

The score itself is cut at an error of one scale, MAE is not: what is far off shows here. Squared errors and likelihoods
are measured and not judged: one sample that is far off moves them as much as a hundred others. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract import score
from server.config import Gates
from server.teach.gates import paired
from server.teach.gates.held import Held, Names
from server.teach.gates.paired import Difference, Floats
from server.teach.gates.verdict import Gate, at_most

COVERED, COVERED_SD = 0.9, 1.645  # the share of a normal distribution within so many sd


@dataclass(frozen=True)
class Values:
    """What a model says of N samples and K targets."""

    names: Names  # (K,)
    mean: Floats  # (N, K); NaN of a target that the model does not know
    sd: Floats  # (N, K)
    true: Floats  # (N, K); NaN where it is not known
    scale: Floats  # (K,) that errors are counted in, the same for both models

    def of(self, rows: NDArray[np.bool_]) -> Values:
        """Of some of the samples."""
        return Values(self.names, self.mean[rows], self.sd[rows], self.true[rows], self.scale)

    def score(self, targets: NDArray[np.bool_]) -> Floats:
        """(N,) 0..1, by some of the targets."""
        return score.of_values(self.mean[:, targets], self.true[:, targets], self.scale[targets])

    @property
    def off(self) -> Floats:
        """(N, K) absolute error over scale; NaN where it is not known."""
        found: Floats = np.abs(self.mean - self.true) / self.scale
        return found

    @property
    def covered(self) -> Floats:
        """(N, K) whether the truth is within 1.64 sd; NaN where it is not known."""
        return np.where(np.isfinite(self.true), np.abs(self.mean - self.true) <= COVERED_SD * self.sd, np.nan)


def judge_values(held: Held, candidate: Values, champion: Values, known: Names, rules: Gates) -> list[Gate]:
    """The gates of this file, of the stream and of imports. `known`: targets that the champion knows."""
    gates, targets = list[Gate](), np.flatnonzero(np.isin(candidate.names, known))
    for origin, rows in (("stream", held.stream), ("import", ~held.stream)):
        if rows.any() and len(targets):
            gates += _judge(origin, held.of(rows), candidate.of(rows), champion.of(rows), targets, rules)
    return gates


def _judge(
    origin: str, held: Held, ours: Values, theirs: Values, targets: NDArray[np.intp], rules: Gates
) -> list[Gate]:
    least = rules.min_samples
    flips = held.mean(held.flipped, confidence=rules.confidence).within(0.0, 1.0)
    return [
        *_errors(origin, held, ours, theirs, targets, rules),
        at_most(
            f"{origin}/coverage", _missed(held, ours, theirs, targets, rules), rules.max_ece_rise, min_samples=least
        ),
        at_most(f"{origin}/negative flips", flips, rules.max_negative_flips, min_samples=least),
    ]


def _errors(
    origin: str, held: Held, ours: Values, theirs: Values, targets: NDArray[np.intp], rules: Gates
) -> list[Gate]:
    """One gate to a target that has enough truths: its error may not surely rise by more than `max_drop` scales."""

    def rise(k: int, tail: float) -> Difference:
        rows = np.isfinite(ours.true[:, k])
        return _mean(held.of(rows), (ours.off - theirs.off)[rows, k], confidence=1.0 - 2.0 * tail)

    tail, least = (1.0 - rules.confidence) / 2.0, rules.min_samples
    judged = sum(rise(k, tail).effective >= least for k in targets)
    found = {str(ours.names[k]): rise(k, tail / max(judged, 1)) for k in targets}
    return [at_most(f"{origin}/MAE {name}", one, rules.max_drop, min_samples=least) for name, one in found.items()]


def _missed(held: Held, ours: Values, theirs: Values, targets: NDArray[np.intp], rules: Gates) -> Difference:
    """By how much more coverage is off than the champion's was; both by all known truths together."""
    parts = [coverage(one, held.weight, targets) for one in (ours, theirs)]
    (our, our_by), (their, their_by) = parts
    sides = np.sign(our - COVERED), np.sign(their - COVERED)
    return paired.of_parts(
        abs(our - COVERED) - abs(their - COVERED),
        sides[0] * our_by - sides[1] * their_by,
        held.weight,
        confidence=rules.confidence,
        growing=bool(held.stream.any()),
    ).within(-1.0, 1.0)


def coverage(said: Values, weight: Floats, targets: NDArray[np.intp]) -> tuple[float, Floats]:
    """The share of truths within 1.64 sd, and the influence (N,) of each sample on it."""
    covered = said.covered[:, targets]
    known = np.isfinite(covered)
    share = weight / weight.sum()
    total = float(share @ known.sum(axis=1))
    if total <= 0.0:
        return COVERED, np.zeros(len(weight))
    found = float(share @ np.where(known, covered, 0.0).sum(axis=1)) / total
    influence: Floats = np.where(known, covered - found, 0.0).sum(axis=1) / total
    return found, influence


def _mean(held: Held, values: Floats, *, confidence: float) -> Difference:
    """Of values that have no bounds."""
    if not len(values):
        return paired.NOTHING
    figure = float(held.weight @ values / held.weight.sum())
    growing = bool(held.stream.any())
    return paired.of_parts(figure, values - figure, held.weight, confidence=confidence, growing=growing)
