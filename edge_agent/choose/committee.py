"""How much do the members of a committee disagree about a sample?

Members are heads or exits of one graph, an ensemble, or passes with dropout. Every function maps logits (T, N, C), T
members by N samples by C classes, to utility (N,), float32, larger means ask, in [0, 1]: each measure is divided by the
most it can be. What is known as probabilities goes through `logits_of` first. -inf is a masked class; a sample of which
any member says NaN or +inf, or masks every class, gets the utility NaN, which is never selected. With one member there
is nothing to disagree about, with one class nothing to ask: both score 0 (but consensus entropy, which needs no
disagreement). The order of members, of classes and of samples does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_EPIG_ENTRIES = 1 << 20  # of the joint table held at once (8 MB): larger leaves the cache, smaller is all Python


def logits_of(probabilities: Floats) -> Floats:
    """Logits with the softmax `probabilities` (..., C), of which 0 is a masked class."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logits: Floats = np.log(probabilities, dtype=np.float32)
    return logits


def consensus(logits: Floats) -> Floats:
    """What the committee says as one: logits (N, C) with the softmax that is the mean of the members' probabilities.

    Their logsumexp is the mean of the members', so that energy means what it does of a single model. NaN throughout
    where a member is not usable.
    """
    top = logits.max(axis=2, keepdims=True)
    # inf - inf: NaN, as it should; log 0 where all mask a class; a difference beyond float32 is as good as -inf.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        exp = np.exp(logits - top)
        total = exp.sum(axis=2, keepdims=True)
        spoken: Floats = np.log((exp / total).mean(axis=0)) + (top + np.log(total)).mean(axis=0)
    return spoken


def vote_entropy(logits: Floats) -> Floats:
    """Entropy of the members' votes (arg max) over log min(T, C) (Dagan and Engelson, ICML 1995).

    >>> votes = np.array([[[9, 0], [9, 0]], [[0, 9], [9, 0]]], np.float32)  # they differ on the first sample
    >>> vote_entropy(votes).tolist()
    [1.0, 0.0]
    """
    members, samples, classes = logits.shape
    votes = np.zeros((samples, classes), np.float32)
    rows = np.arange(samples)
    for vote in logits.argmax(axis=2):
        votes[rows, vote] += 1.0
    return finish(_entropy(votes / members), min(members, classes), usable(logits))


def consensus_entropy(logits: Floats) -> Floats:
    """Entropy of the members' mean probabilities over log C (Settles 2009, 3.2)."""
    return finish(_entropy(probabilities(logits).mean(axis=0)), logits.shape[2], usable(logits))


def kl_max(logits: Floats) -> Floats:
    """Largest divergence of a member from the mean, over log T (McCallum and Nigam, ICML 1998, who average)."""
    return finish(_divergences(logits).max(axis=0), len(logits), usable(logits))


def bald(logits: Floats) -> Floats:
    """Mutual information of class and member over log min(T, C) (Houlsby et al. 2011).

    It is the mean divergence of the members from their mean: the same number as the difference of two entropies that
    the paper gives, without the cancellation.
    """
    members, _, classes = logits.shape
    return finish(_divergences(logits).mean(axis=0), min(members, classes), usable(logits))


COMMITTEE: dict[str, Callable[[Floats], Floats]] = {
    "vote_entropy": vote_entropy,
    "consensus_entropy": consensus_entropy,
    "kl_max": kl_max,
    "bald": bald,
}  # that need nothing but the sample's own logits


def epig(logits: Floats, targets: Floats) -> Floats:
    """What the label tells of the classes of `targets` (T, M, C): mean mutual information over log min(T, C).

    Bickford Smith et al., AISTATS 2023. `targets` are samples as the fleet meets them, by the same members in the same
    order. ValueError when no target is usable, or members or classes differ.
    """
    members, _, classes = logits.shape
    if targets.shape[0] != members or targets.shape[2] != classes:
        raise ValueError(f"epig: targets {targets.shape}, expected ({members}, M, {classes}) as of the samples")
    targets = targets[:, usable(targets)]
    if targets.shape[1] == 0:
        raise ValueError("epig: no usable target: each has NaN or +inf, or masks every class")
    sound = usable(logits)
    gain = np.zeros(logits.shape[1])
    gain[sound] = mean_information(probabilities(logits[:, sound]), probabilities(targets))
    return finish(gain, min(members, classes), sound)


def mean_information(p: Floats, q: Floats) -> NDArray[np.float64]:
    """(N,) mean over M of the mutual information of classes, given p (T, N, C) and q (T, M, C)."""
    members, samples, classes = p.shape
    # H(y) + H(y*) - H(y, y*), in float64: three numbers of size 1 whose sum may be 1e-6.
    first, second = p.astype(np.float64), q.astype(np.float64)
    apart = _entropy(first.mean(axis=0)) + _entropy(second.mean(axis=0)).mean()
    flat = second.reshape(members, -1)
    step = max(1, _EPIG_ENTRIES // (classes * flat.shape[1]))
    joint = np.empty(samples)
    for start in range(0, samples, step):
        block = first[:, start : start + step]
        table = (block.reshape(members, -1).T @ flat) / members
        joint[start : start + step] = _entropy(table.reshape(block.shape[1], -1)) / q.shape[1]
    information: NDArray[np.float64] = apart - joint
    return information


def usable(logits: Floats) -> NDArray[np.bool_]:
    """(N,) whether every member can be used."""
    top = logits.max(axis=2)  # NaN and +inf come through, and -inf only where all is masked
    sound: NDArray[np.bool_] = np.isfinite(top).all(axis=0)
    return sound


def probabilities(logits: Floats) -> Floats:
    """(T, N, C) each member's softmax; NaN where it is not usable."""
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf: an unusable row becomes NaN; else as in consensus
        exp: Floats = np.exp(logits - logits.max(axis=2, keepdims=True))
    p: Floats = exp / exp.sum(axis=2, keepdims=True)
    return p


def _divergences(logits: Floats) -> Floats:
    """(T, N) Kullback-Leibler divergence of each member from the mean, in nats."""
    p = probabilities(logits)
    mean = p.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = p * np.log(p / mean)
    terms[p == 0.0] = 0.0  # of 0 log 0
    divergences: Floats = terms.sum(axis=2)
    return divergences


def _entropy(p: NDArray[np.floating]) -> NDArray[np.floating]:
    """In nats over the last axis."""
    terms = p * np.log(np.where(p > 0.0, p, 1.0))
    entropy: NDArray[np.floating] = -terms.sum(axis=-1)
    return entropy


def finish(nats: NDArray[np.floating], ways: int, sound: NDArray[np.bool_]) -> Floats:
    """Over log `ways`, the most it can be; rounding kept out of sight; NaN where a member is not usable."""
    most = math.log(ways) if ways > 1 else 1.0
    utility: Floats = (np.clip(nats / most if ways > 1 else nats * 0.0, 0.0, 1.0) + 0.0).astype(np.float32)  # no -0.0
    utility[~sound] = np.nan
    return utility
