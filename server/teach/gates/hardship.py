"""Does it bear bad input: samples that are disturbed, and samples of nothing it knows?

    robustness   mean score over a fixed set of corruptions, each at one strength: the mean over them is one value to a
                 sample, so the difference is a paired one (after Hendrycks and Dietterich, ICLR 2019); and under each
                 of them, for a mean hides what only noise breaks
    strangers    how well the energy (Liu et al., NeurIPS 2020) tells what it was trained for from what is made not to
                 be that: AUROC, its difference by DeLong et al. (Biometrics 1988), both on the same samples

Both sets are made from held-out samples by models.corruption, whose SUITE is a version: figures of one compare. Pure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from server.config import Gates
from server.teach.gates import paired
from server.teach.gates.held import Scores
from server.teach.gates.paired import Difference, Floats
from server.teach.gates.slices import holm
from server.teach.gates.verdict import Gate, at_least


class Disturbed(NamedTuple):
    """The scores of the same samples under each of the corruptions; (K, N) each."""

    names: tuple[str, ...]
    candidate: Scores
    champion: Scores

    @property
    def change(self) -> Floats:
        """(K, N) what the candidate scores more, -1..1."""
        return np.asarray(self.candidate, np.float64) - np.asarray(self.champion, np.float64)


class Strange(NamedTuple):
    """Scores, larger where a model finds a sample stranger."""

    known: tuple[Floats, Floats]  # (N,) of candidate and champion, on samples of classes that both know
    strange: tuple[Floats, Floats]  # (M,) on what belongs to no class


def judge_disturbed(disturbed: Disturbed, rules: Gates) -> list[Gate]:
    """May not be surely less accurate on the mean of the corruptions, nor, by more, under any of them (Holm 1979)."""
    least, ones = rules.min_samples, np.ones(disturbed.candidate.shape[1])
    mean = paired.fixed(disturbed.change.mean(axis=0), ones, confidence=rules.confidence)
    gates = [at_least("robustness", mean, -rules.max_corrupted_drop, min_samples=least)]
    limit = -rules.max_corruption_drop
    p = np.array([paired.fixed_below(change, ones, limit) for change in disturbed.change])
    levels = holm(p, (1.0 - rules.confidence) / 2.0)
    for name, change, level in zip(disturbed.names, disturbed.change, levels, strict=True):
        found = paired.fixed(change, ones, confidence=1.0 - 2.0 * level)
        gates.append(at_least(f"robustness/{name}", found, limit, min_samples=least))
    return gates


def judge_strange(strange: Strange, rules: Gates) -> Gate:
    """May not surely tell strangers worse by more than `max_ood_drop`."""
    found = auroc_change(strange, confidence=rules.confidence)
    ours, theirs = (auroc(*scores) for scores in zip(strange.known, strange.strange, strict=True))
    why = f"AUROC {ours:.3f}, was {theirs:.3f}"
    return at_least("strangers", found, -rules.max_ood_drop, min_samples=rules.min_samples, why=why)


def auroc(known: Floats, strange: Floats) -> float:
    """The chance that a stranger has the higher score, ties half.

    >>> import numpy as np
    >>> auroc(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.875
    """
    return float(_placed(strange, known).mean())


def auroc_change(strange: Strange, *, confidence: float) -> Difference:
    """The candidate's less the champion's: each sample of either kind has a place among those of the other."""
    (our_known, their_known), (our_strange, their_strange) = strange.known, strange.strange
    n, m = len(our_known), len(our_strange)
    if min(n, m) < 2:
        return paired.NOTHING
    of_known = _placed(their_known, their_strange) - _placed(our_known, our_strange)  # low is good for known ones
    of_strange = _placed(our_strange, our_known) - _placed(their_strange, their_known)
    error = math.sqrt(float(of_known.var(ddof=1)) / n + float(of_strange.var(ddof=1)) / m)
    half = paired.z_of(confidence) * error
    figure = float(of_strange.mean())
    return Difference(figure, figure - half, figure + half, n, float(n)).within(-1.0, 1.0)


def _placed(scores: Floats, among: Floats) -> Floats:
    """(N,) the share of `among` (M,) that each score is above, ties half."""
    order = np.sort(among)
    places: Floats = (np.searchsorted(order, scores, "left") + np.searchsorted(order, scores, "right")) / 2.0
    return places / len(among)
