"""Whose labels disagree with everybody else's?

A label is suspect when both models that could know better contradict it: the candidate, who learned from all labels
alike, is as sure of another class as it is on average of samples with that label (the confident joint of Northcutt et
al., JAIR 2021). What is merely hard, like a fogged lens, makes a model unsure and not contradict; and of a device
whose labels are turned round, the candidate has learned from all the others what its samples are.

The share of suspect labels of a device, or of a labeler, is held against that of all others (Fisher's exact test, one
side, all of them judged together by Holm). It fails when that share is surely higher, and by more than
`max_label_disagreement`. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from server.config import Gates
from server.teach.gates.held import Names
from server.teach.gates.paired import Floats
from server.teach.gates.slices import holm
from server.teach.gates.verdict import Gate, GateState


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
        (f"labels/{labelled.kind} {name}", who == name)
        for name in np.unique(who)
        if rules.min_samples <= np.count_nonzero(who == name) <= len(who) - rules.min_samples
    ]
    p = np.array([_above(found, mine) for _, mine in rows])
    levels = holm(p, (1.0 - rules.confidence) / 2.0)
    return [
        _gate(name, found, mine, bool(value < level), rules)
        for (name, mine), value, level in zip(rows, p, levels, strict=True)
    ]


def _above(found: NDArray[np.bool_], mine: NDArray[np.bool_]) -> float:
    """P of as many suspect labels as these, if they were no more likely here than elsewhere (Fisher 1922)."""
    suspects = int(found.sum())
    return float(hypergeom.sf(int(found[mine].sum()) - 1, len(found), suspects, int(mine.sum())))


def _gate(name: str, found: NDArray[np.bool_], mine: NDArray[np.bool_], surely: bool, rules: Gates) -> Gate:
    share, others = float(found[mine].mean()), float(found[~mine].mean())
    state: GateState = "failed" if surely and share - others > rules.max_label_disagreement else "passed"
    return Gate(
        name=name,
        state=state,
        figure=share - others,
        interval=None,
        limit=rules.max_label_disagreement,
        n=int(mine.sum()),
        why=f"{share:.0%} of its labels are contradicted, {others:.0%} of the others'",
    )
