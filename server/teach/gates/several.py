"""Are the answers as good in themselves, where several classes may apply to a sample?

    macro F1         the mean F1 of the classes, each by itself: a rare one counts as much as a common one
    calibration      ECE over all decisions, as sure as the likelier side is, less what is chance (answers.py)
    Brier            mean squared error of a decision's probability, 0..1 (Brier 1950)
    negative flips   the share of samples that lost more than half of their score

The score itself is 1 less the Hamming loss. Champion and candidate are compared on classes that both know. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract import score
from server.config import Gates
from server.teach.gates import paired
from server.teach.gates.answers import CLASS_FEWEST, ece, mean_f1
from server.teach.gates.held import Held, Names
from server.teach.gates.paired import Floats
from server.teach.gates.verdict import Gate, at_least, at_most


@dataclass(frozen=True)
class Several:
    """What a model says of N samples and K classes."""

    names: Names  # (K,)
    probability: Floats  # (N, K) that it applies; 0 of a class that the model does not know
    true: NDArray[np.bool_]  # (N, K)

    def of(self, rows: NDArray[np.bool_]) -> Several:
        """Of some of the samples."""
        return Several(self.names, self.probability[rows], self.true[rows])

    def among(self, classes: NDArray[np.bool_]) -> Several:
        """Of some of the classes."""
        return Several(self.names[classes], self.probability[:, classes], self.true[:, classes])

    def score(self, classes: NDArray[np.bool_]) -> Floats:
        """(N,) 0..1, by some of the classes; 0 where it said nothing that can be read."""
        said = self.probability[:, classes]
        return score.of_several(said, self.true[:, classes]) * np.isfinite(said).all(axis=1)

    @property
    def brier(self) -> Floats:
        """(N,) 0..1."""
        found: Floats = np.square(self.probability - self.true).mean(axis=1)
        return found


def judge_several(held: Held, candidate: Several, champion: Several, known: Names, rules: Gates) -> list[Gate]:
    """The gates of this file, of the stream and of imports. `known`: classes that the champion knows."""
    gates, both = list[Gate](), np.isin(candidate.names, known)
    for origin, rows in (("stream", held.stream), ("import", ~held.stream)):
        if rows.any() and both.any():
            ours, theirs = (one.of(rows).among(both) for one in (candidate, champion))
            gates += _judge(origin, held.of(rows), ours, theirs, rules)
    return gates


def _judge(origin: str, held: Held, ours: Several, theirs: Several, rules: Gates) -> list[Gate]:
    least, confidence, growing = rules.min_samples, rules.confidence, bool(held.stream.any())

    def change(one: tuple[float, Floats], other: tuple[float, Floats]) -> paired.Difference:
        figure, influence = one[0] - other[0], one[1] - other[1]
        found = paired.of_parts(figure, influence, held.weight, confidence=confidence, growing=growing)
        return found.within(-1.0, 1.0)

    f1 = change(macro_f1(ours, held.weight), macro_f1(theirs, held.weight))
    error = change(calibration_error(ours, held.weight), calibration_error(theirs, held.weight))
    brier = held.mean(ours.brier - theirs.brier, confidence=confidence)
    flips = held.mean(held.flipped, confidence=confidence).within(0.0, 1.0)
    return [
        at_least(f"{origin}/macro F1", f1, -rules.max_drop, min_samples=least),
        at_most(f"{origin}/calibration", error, rules.max_ece_rise, min_samples=least),
        at_most(f"{origin}/Brier", brier, rules.max_brier_rise, min_samples=least),
        at_most(f"{origin}/negative flips", flips, rules.max_negative_flips, min_samples=least),
    ]


def macro_f1(said: Several, weight: Floats) -> tuple[float, Floats]:
    """Of the classes that apply often enough, and the influence (N,) of each sample."""
    columns = np.flatnonzero(said.true.sum(axis=0) >= CLASS_FEWEST)
    return mean_f1([(said.true[:, k], said.probability[:, k] >= score.SURE) for k in columns], weight)


def calibration_error(said: Several, weight: Floats) -> tuple[float, Floats]:
    """Over all decisions, less its chance; the influence of a sample is the mean of its decisions'."""
    classes = said.true.shape[1]
    right = ((said.probability >= score.SURE) == said.true).ravel()
    sure = np.maximum(said.probability, 1.0 - said.probability).ravel()
    error, chance, influence = ece(right, sure, np.repeat(weight, classes))
    return max(0.0, error - chance), influence.reshape(-1, classes).mean(axis=1)
