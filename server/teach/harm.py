"""Does the model err more often than it did when it was published?

A shift of the inputs is not harm: a model may be as good on the new ones. Harm is a matter of labels, and those of the
audit are draws from the whole stream. So the errors of the version in force are bet on: a fortune that grows whenever
they are more frequent than allowed, and that no rule can grow on average while they are not. Pure.

    L_k = prod (1 + lambda w_i (e_i - m))       e: 1 wrong, 0 right; m: the error allowed; w: 1 / floor, scaled to <= 1
    R_k = (R_{k-1} + 1) (1 + lambda w_k (e_k - m))

R is the Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential
change detection", 2024) over the bets of Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting" (2024), averaged over several lambda. While the error, given the past, is at most m, E[R_k] <= k: the mean
number of labels between false alarms is at least the threshold, whatever else the labels do.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = NDArray[np.bool_] | Floats

BETS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)  # small ones find a small rise, large ones a large rise sooner
BET_MAX_SHARE = 0.9  # of what would lose everything on one right answer
REFERENCE_Z = 1.645  # upper end of a one-sided 95 % interval: a lucky reference must not make an honest model harmful


class Harm(NamedTuple):
    """What the labels say of one version."""

    version: int
    labels: int  # of the audit, under it
    errors: int  # of scores between 0 and 1 what they lack, summed
    allowed: float  # error rate up to which nothing is harm
    evidence: float  # how many labels without harm would be needed to see as much once, on average
    alarm_at: int | None  # labels after which the threshold was first passed; None: not


def allowed_error(error: float, labels: float, tolerance: float) -> float:
    """The error rate that is not harm yet: the upper end of Wilson's interval (1927) of the reference, and a tolerance.

    `labels`: of equal weight, that would say as much as those of the reference do.

    >>> round(allowed_error(0.1, 100, 0.02), 3), allowed_error(0.1, 0, 0.02)
    (0.18, 1.0)
    """
    if not labels:
        return 1.0
    z2 = REFERENCE_Z**2
    centre = (error + z2 / (2 * labels)) / (1 + z2 / labels)
    half = REFERENCE_Z * math.sqrt(error * (1 - error) / labels + z2 / (4 * labels**2)) / (1 + z2 / labels)
    return min(1.0, centre + half + tolerance)


def bet(version: int, errors: Scores, floor: Floats, *, allowed: float, threshold: float) -> Harm:
    """Bet on errors.

    Args:
        version: whose they are.
        errors: (N,) 0..1, what each lacks to a full score; of classes 1 where it is wrong. In the order of the labels.
        floor: (N,) the probability, > 0, with which every sample of that one's stream was drawn alike. Budgets set it,
            and no label does: so the least of all may scale every weight, as if it had been known from the start.
        allowed: m, 0..1.
        threshold: labels between false alarms, on average, at least.
    """
    evidence, alarm_at = 0.0, None
    if len(errors) and allowed < 1.0:
        weight = floor.min() / floor
        bets = np.minimum(BETS, BET_MAX_SHARE / max(allowed, 1e-9))
        fortune = np.zeros(len(bets))
        for k, gain in enumerate(weight * (errors - allowed), 1):
            fortune = (fortune + 1.0) * (1.0 + bets * gain)
            if (now := float(fortune.mean())) >= threshold and alarm_at is None:
                alarm_at = k
            evidence = max(evidence, now)
    return Harm(version, len(errors), round(float(errors.sum())), allowed, evidence, alarm_at)
