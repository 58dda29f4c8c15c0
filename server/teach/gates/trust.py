"""Whose labels disagree with everybody else's?

A label is suspect when both models that could know better contradict it: the candidate, who learned from all labels
alike, is as sure of another class as it is on average of samples with that label (the confident joint of Northcutt et
al., JAIR 2021). What is merely hard, like a fogged lens, makes a model unsure and not contradict; and of a device
whose labels are turned round, the candidate has learned from all the others what its samples are.

The share of suspect labels of a device, or of a labeler, is held against that of all others (Agresti and Caffo 2000 for
the difference of two shares; all of them judged together by Holm). It fails when it is surely higher by more than
`max_label_disagreement`. Pure.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.config import Gates
from server.teach.gates import paired
from server.teach.gates.held import Names
from server.teach.gates.paired import Difference, Floats
from server.teach.gates.slices import holm
from server.teach.gates.verdict import Gate, at_most


class Labelled(NamedTuple):
    """Labels of samples of devices, trained on or not, and what the candidate makes of these."""

    kind: str  # whose they are: "device" or "labeler"
    who: Names  # (N,)
    label: Names  # (N,)
    predicted: Names  # (N,) by the candidate
    sure: Floats  # (N,) its probability of that, 0..1
    of_label: Floats  # (N,) its probability of the label, 0..1


def suspect(labelled: Labelled) -> NDArray[np.bool_]:
    """(N,) whether the candidate is as sure of another class as it usually is of that one."""
    usual = np.ones(len(labelled.label))
    for name in np.unique(labelled.predicted):
        mine = labelled.label == name
        usual[labelled.predicted == name] = labelled.of_label[mine].mean() if mine.any() else 1.0
    found: NDArray[np.bool_] = (labelled.predicted != labelled.label) & (labelled.sure >= usual)
    return found


def judge_labels(labelled: Labelled, rules: Gates) -> list[Gate]:
    """One gate to each device or labeler that has enough labels, and has others beside it."""
    found, who = suspect(labelled), labelled.who
    rows = [
        (f"labels/{labelled.kind} {name}", found[who == name], found[who != name])
        for name in np.unique(who)
        if rules.min_samples <= np.count_nonzero(who == name) <= len(who) - rules.min_samples
    ]
    limit, normal = rules.max_label_disagreement, NormalDist()
    shares = [_shares(mine, others) for _, mine, others in rows]
    p = np.array([normal.cdf((limit - centre) / error) for centre, error in shares])
    levels = holm(p, (1.0 - rules.confidence) / 2.0)
    gates = []
    for (name, mine, others), (centre, error), level in zip(rows, shares, levels, strict=True):
        share, of_others, half = float(mine.mean()), float(others.mean()), paired.z_of(1.0 - 2.0 * float(level)) * error
        higher = Difference(share - of_others, centre - half, centre + half, len(mine), float(len(mine)))
        why = f"{share:.0%} of its labels are contradicted, {of_others:.0%} of the others'"
        gates.append(at_most(name, higher.within(-1.0, 1.0), limit, min_samples=rules.min_samples, why=why))
    return gates


def _shares(mine: NDArray[np.bool_], others: NDArray[np.bool_]) -> tuple[float, float]:
    """The difference of two shares and its standard error, with two samples of each kind added (ibid.)."""
    p, q = ((np.count_nonzero(found) + 1.0) / (len(found) + 2.0) for found in (mine, others))
    return p - q, math.sqrt(p * (1.0 - p) / (len(mine) + 2.0) + q * (1.0 - q) / (len(others) + 2.0))
