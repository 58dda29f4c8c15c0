"""How likely was each sample to be labelled?

A sample comes to the server by the floor, with the probability f, which is the same for all; or by the rule, with
p - f. It then still has to be labelled: the audit's samples are asked about first, and of the others perhaps only some.
So it is labelled with

    f a + (p - f) b        a, b: how likely a sample that came by the floor, or the rule, was to be labelled

When all are labelled that is p, and when only the audit is, it is f. Where chance decided who is asked about, b is the
recorded probability; what got lost on the way besides (still in an outbox, evicted, not asked about yet, "cannot
tell") is taken to be lost alike, among the samples of one device, day and model: there a and b are scaled until the
labelled stand for all that the device says it selected (Saerndal et al. 1992, ch. 15). Pure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def inclusion(
    probability: Floats,
    floor: Floats,
    asked: Floats,
    *,
    audit: NDArray[np.bool_],
    group: NDArray[np.int64],
    selected_audit: NDArray[np.int64],
    selected_rule: NDArray[np.int64],
) -> Floats:
    """(N,) probability of having been selected and labelled; NaN in a group whose audit has no label yet.

    Args:
        probability: (N,) of selection, in (0, 1].
        floor: (N,) the part of it that is the same for all.
        asked: (N,) recorded probability of being asked about once selected, 1 where it was not left to chance.
        audit: (N,) whether it came by the floor.
        group: (N,) 0..G-1, within which losses are taken to be alike.
        selected_audit: (G,) samples the devices selected by the floor.
        selected_rule: (G,) and by the rule.
    """
    groups = len(selected_audit)

    def route(mine: NDArray[np.bool_], selected: NDArray[np.int64]) -> Floats:
        typical = _typical(asked, group, mine, groups)[group]  # of those that came the other way
        return np.minimum(1.0, np.where(mine, asked, typical) * _kept(asked, group, mine, selected, groups)[group])

    a, b = route(audit, selected_audit), route(~audit, selected_rule)
    found: Floats = floor * a + (probability - floor) * b
    found[(a == 0.0) | (found <= 0.0)] = np.nan
    return found


def _kept(
    asked: Floats, group: NDArray[np.int64], mine: NDArray[np.bool_], selected: NDArray[np.int64], groups: int
) -> Floats:
    """(G,) the share that was not lost, beyond what chance left out; 1 where nothing was selected."""
    stand_for = np.bincount(group[mine], 1.0 / asked[mine], groups)
    return np.where(selected > 0, stand_for / np.maximum(selected, 1), 1.0)


def _typical(asked: Floats, group: NDArray[np.int64], mine: NDArray[np.bool_], groups: int) -> Floats:
    """(G,) how likely such a sample was to be asked about: the harmonic mean of those that were."""
    count = np.bincount(group[mine], minlength=groups)
    return np.where(count > 0, count / np.maximum(np.bincount(group[mine], 1.0 / asked[mine], groups), 1e-12), 1.0)
