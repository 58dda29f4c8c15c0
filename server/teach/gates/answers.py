"""Are the answers as good in themselves: on rare classes, in how sure they are, and where they were right before?

    macro F1         the mean F1 of the classes: a rare one counts as much as a common one
    calibration      does it know how sure it may be? ECE over bins of equal mass (Nguyen and O'Connor 2015), less what
                     a perfectly calibrated model would show by chance on as few samples
    Brier            mean squared error of the probabilities, 0..2 (Brier 1950): calibration and sharpness in one
    negative flips   the share that was right before and is wrong now (Yan et al., CVPR 2021)

NLL is measured and not judged: one sample that is wrong and very sure moves it as much as a hundred others. Champion
and candidate are compared on classes that both know. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from server.config import Gates
from server.teach.gates import paired
from server.teach.gates.held import Held, Names, Scores
from server.teach.gates.paired import Difference, Floats
from server.teach.gates.verdict import Gate, at_least, at_most

BINS = 15
CLASS_FEWEST = 5  # samples of a class below which its F1 is left out: its error would not be known


@dataclass(frozen=True)
class Said:
    """What a model says of the held-out samples; probabilities at its manifest's temperature."""

    predicted: Names  # (N,) names of its top classes
    confidence: Floats  # (N,) of these, 0..1
    brier: Floats  # (N,) sum over classes of (probability - truth)^2, 0..2
    nll: Floats  # (N,) nats; large where it does not know the class

    def of(self, rows: NDArray[np.bool_]) -> Said:
        """Some of the rows."""
        return Said(*(getattr(self, one.name)[rows] for one in fields(self)))


def judge_answers(held: Held, candidate: Said, champion: Said, known: Names, rules: Gates) -> list[Gate]:
    """The gates of this file, of the stream and of imports. `known`: classes that the champion knows."""
    gates = []
    both = np.isin(held.label, known)
    for origin, rows in (("stream", held.stream & both), ("import", ~held.stream & both)):
        if rows.any():
            gates += _judge(origin, held.of(rows), candidate.of(rows), champion.of(rows), rules)
    return gates


def _judge(origin: str, held: Held, candidate: Said, champion: Said, rules: Gates) -> list[Gate]:
    confidence, least = rules.confidence, rules.min_samples
    flips = held.mean(held.flipped, confidence=confidence).within(0.0, 1.0)
    brier = held.mean((candidate.brier - champion.brier) / 2.0, confidence=confidence)
    brier = Difference(2.0 * brier.figure, 2.0 * brier.low, 2.0 * brier.high, brier.n, brier.effective)
    f1 = macro_f1_change(held, candidate, champion, confidence=confidence)
    ece = ece_change(held, candidate, champion, confidence=confidence)
    return [
        at_least(f"{origin}/macro F1", f1, -rules.max_drop, min_samples=least),
        at_most(f"{origin}/calibration", ece, rules.max_ece_rise, min_samples=least),
        at_most(f"{origin}/Brier", brier, rules.max_brier_rise, min_samples=least),
        at_most(f"{origin}/negative flips", flips, rules.max_negative_flips, min_samples=least),
    ]


# --- macro F1 ---


def macro_f1(label: Names, predicted: Names, weight: Floats) -> tuple[float, Floats]:
    """Weighted mean F1 of the classes, and the influence (N,) of each sample on it.

    F1 = 2 TP / (P + A), of weighted shares: truly found, predicted, actual. A sample's influence is the derivative,
    (2 [found] - F1 ([predicted] + [actual])) / (P + A).

    >>> import numpy as np
    >>> label, predicted = np.repeat(["cat", "dog"], 10), np.repeat(["cat", "dog"], [15, 5])
    >>> round(macro_f1(label, predicted, np.ones(20))[0], 3)
    0.733
    """
    names, counts = np.unique(label, return_counts=True)
    return mean_f1([(label == name, predicted == name) for name in names[counts >= CLASS_FEWEST]], weight)


def mean_f1(decisions: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]], weight: Floats) -> tuple[float, Floats]:
    """The same of decisions: for each class (N,) what is so, and what was said to be."""
    share = weight / weight.sum()
    scores, influence = [], np.zeros(len(weight))
    for actual, said in decisions:
        both = float(share @ actual + share @ said)
        score = 2.0 * float(share @ (actual & said)) / both
        scores.append(score)
        influence += (2.0 * (actual & said) - score * (actual.astype(np.float64) + said)) / both
    if not scores:
        return 0.0, influence
    return float(np.mean(scores)), influence / len(scores)


def macro_f1_change(held: Held, candidate: Said, champion: Said, *, confidence: float) -> Difference:
    """The candidate's less the champion's."""
    ours, ours_by = macro_f1(held.label, candidate.predicted, held.weight)
    theirs, theirs_by = macro_f1(held.label, champion.predicted, held.weight)
    return paired.of_parts(
        ours - theirs, ours_by - theirs_by, held.weight, confidence=confidence, growing=bool(held.stream.any())
    ).within(-1.0, 1.0)


# --- calibration ---


def ece(right: Scores, confidence: Floats, weight: Floats) -> tuple[float, float, Floats]:
    """Expected calibration error; what of it is chance; the influence (N,) of each sample.

    In bins of equal mass the mean gap of confidence and accuracy. Even of a perfectly calibrated model it is above 0:
    there the gap of a bin is normal about 0, and the mean of its size is sd (2 / pi)^.5.

    >>> import numpy as np
    >>> right, sure = np.arange(1000) % 10 < 6, np.full(1000, 0.9)
    >>> error, chance, _ = ece(right, sure, np.ones(1000))
    >>> round(error, 3), round(chance, 3)
    (0.3, 0.029)
    """
    share = weight / weight.sum()
    gap, total, chance, influence = confidence - right, 0.0, 0.0, np.zeros(len(right))
    for part in np.array_split(np.argsort(confidence, kind="stable"), min(BINS, len(right))):
        signed = float(share[part] @ gap[part])
        doubt = confidence[part] * (1.0 - confidence[part])
        total += abs(signed)
        chance += math.sqrt(2.0 / math.pi * float(np.square(share[part]) @ doubt))
        influence[part] = math.copysign(1.0, signed) * gap[part]
    return total, chance, influence - float(share @ influence)


def ece_change(held: Held, candidate: Said, champion: Said, *, confidence: float) -> Difference:
    """The candidate's less the champion's, each less its chance."""
    ours, our_chance, ours_by = ece(held.candidate, candidate.confidence, held.weight)
    theirs, their_chance, theirs_by = ece(held.champion, champion.confidence, held.weight)
    return paired.of_parts(
        max(0.0, ours - our_chance) - max(0.0, theirs - their_chance),
        ours_by - theirs_by,
        held.weight,
        confidence=confidence,
        growing=bool(held.stream.any()),
    ).within(-1.0, 1.0)
