"""How likely was each sample to be labelled?

A sample comes to the server by the floor, with the probability f, which is the same for all; or by the rule, with
p - f. It then still has to be labelled: the audit's samples are asked about first, and of the others perhaps only some.
So it is labelled with

    f a + (p - f) b        a, b: how likely a sample that came by the floor, or the rule, was to be labelled

When all are labelled that is p, and when only the audit is, it is f. The audit is asked about all alike, sooner or
later: a is the share of it that is labelled. Where chance decided who else is asked about, b comes of the recorded
probabilities (`asked_at_last`); what got lost on the way besides (still in an outbox, evicted, not asked about yet,
"cannot tell") is taken to be lost alike, among the samples of one device, day and model: there b is scaled until the
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

    asked = np.where(audit, 1.0, asked)

    def route(mine: NDArray[np.bool_], selected: NDArray[np.int64]) -> Floats:
        typical = _typical(asked, group, mine, groups)[group]  # of those that came the other way
        likely = np.where(mine, asked, typical)
        return np.minimum(1.0, likely * _kept(asked, group, mine, selected, groups)[group])

    a, b = route(audit, selected_audit), route(~audit, selected_rule)
    found: Floats = floor * a + (probability - floor) * b
    found[(a == 0.0) | (found <= 0.0)] = np.nan
    return found


def asked_at_last(
    probability: Floats, stands_for: NDArray[np.int64], since: NDArray[np.int64], after: NDArray[np.int64]
) -> Floats:
    """(N,) 1 / weight of each labelled sample, over all the plans that it waited through, or would have.

    Every plan gives an unbiased total of what had arrived before it: what was labelled by then, as it is, and its own
    picks by 1 / probability. Their mean, over the plans since a sample's arrival, is unbiased too, whatever the plans
    learned from each other (Des Raj 1956; Farquhar et al., ICLR 2021). A sample picked in one of n plans, m of them
    later, has the weight (1 / probability + m s) / n in it; s: what shows the same, and is spared beside it.

    Args:
        probability: (N,) 1 / weight in the plan that picked it, in (0, 1].
        stands_for: (N,) s, itself included.
        since: (N,) n, the plans since its arrival; 0 where it was not left to chance.
        after: (N,) m, those after its own.
    """
    n = np.maximum(since, after + 1)
    found: Floats = np.where(since > 0, n / (1.0 / probability + after * stands_for), probability)
    return found


def _kept(
    asked: Floats, group: NDArray[np.int64], mine: NDArray[np.bool_], selected: NDArray[np.int64], groups: int
) -> Floats:
    """(G,) the share that was not lost, beyond what chance left out; 1 where nothing was selected.

    Nobody is likelier than 1 to be asked about. Who would be stands for itself alone, and the others for the rest.
    """
    certain = np.zeros(len(asked), np.bool_)
    share = np.where(selected > 0, np.bincount(group[mine], 1.0 / asked[mine], groups) / np.maximum(selected, 1), 1.0)
    while (more := mine & ~certain & (asked * share[group] > 1.0)).any():
        certain |= more
        alone, left = np.bincount(group[certain], minlength=groups), mine & ~certain
        stand_for = np.bincount(group[left], 1.0 / asked[left], groups)
        raised = (stand_for > 0) & (selected > alone)
        share = np.where(raised, stand_for / np.maximum(selected - alone, 1), share)
    return share


def _typical(asked: Floats, group: NDArray[np.int64], mine: NDArray[np.bool_], groups: int) -> Floats:
    """(G,) how likely such a sample was to be asked about: the harmonic mean of those that were."""
    count = np.bincount(group[mine], minlength=groups)
    return np.where(count > 0, count / np.maximum(np.bincount(group[mine], 1.0 / asked[mine], groups), 1e-12), 1.0)
