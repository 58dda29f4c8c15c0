"""Which of what waits is asked about next, and what need not be asked?

    the audit      samples that stand for the whole stream: first, all alike, never spared as duplicates
    duplicates     what shows the same as a labelled sample is spared; of several that wait and show the same, one drawn
                   at random stands for all, its probability divided by their number
    the rest       by a strategy (choice.py) on what the champion makes of them; where it cannot be run, drawn in
                   proportion to the utility that the device gave, as many as they are of all

Sums of label / probability are unbiased for all that waited and was not spared. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.label.choice import Choice, choose, gumbel_top_k, uniform
from server.label.coverage import Floats, Pool, Rows, representatives

USEFUL = 0.5
"""Accuracy below which a model's doubts say little: lower trusts noise, higher wastes rounds on typical samples."""
FIRST_LABELS = 5
"""Labels of each class below which a model of unknown accuracy counts as none."""
IMBALANCE = 20.0
"""Times the rarest class that the commonest has: lower balances what is merely uneven, higher never does."""


class Waiting(NamedTuple):
    """N samples that wait for a label.

    audit: (N,) bool, whether it stands for the whole stream. utility: (N,) float32, as the device gave it. bodies:
    N hashes of what the sensor gave. encoded: (N,) bool, whether the champion could be run on it; where not, the rows
    of the others are 0. embeddings: (N, D) float32. probabilities: (N, C) float32. price: (N,) float32, or None.
    """

    audit: NDArray[np.bool_]
    utility: Floats
    bodies: Sequence[str]
    encoded: NDArray[np.bool_]
    embeddings: Floats
    probabilities: Floats
    price: Floats | None = None


class Labelled(NamedTuple):
    """M samples that have a label: hashes, and embeddings (M, D) float32, 0 where there is none."""

    bodies: Sequence[str]
    embeddings: Floats


class Plan(NamedTuple):
    """What to ask: rows (k,) in order and 1 / weight of each (k,).

    stands_with: (N,) for each row itself, or the row that it need not be asked beside; N + m: the labelled m.
    """

    rows: Rows
    probability: NDArray[np.float64]
    stands_with: Rows


class Evidence(NamedTuple):
    """What a strategy is chosen by. accuracy: of the champion, None where unknown. counts: (C,) labels by class."""

    accuracy: float | None
    counts: NDArray[np.int64]


def plan(
    waiting: Waiting,
    labelled: Labelled,
    count: int,
    *,
    strategy: str,
    rng: np.random.Generator,
    exploration: float,
    min_cosine: float | None,
) -> Plan:
    """Choose `count` of what waits, or all where there are no more.

    Args:
        waiting: the candidates, the audit's samples among them.
        labelled: what need not be seen again, and what new picks keep away from.
        count: labels there is room for.
        strategy: of choice.STRATEGIES.
        rng: where chance comes from.
        exploration: part of the picks drawn alike, 0..1.
        min_cosine: of duplicates; None: nothing is spared.
    """
    size = len(waiting.audit)
    audit = np.flatnonzero(waiting.audit)
    drawn = uniform(len(audit), count, rng=rng)
    first = Choice(audit[drawn.rows], drawn.probability)
    left = count - len(audit)
    if left <= 0:
        return Plan(*first, np.arange(size))
    stands_with = np.arange(size) if min_cosine is None else _stands_with(waiting, labelled, min_cosine, rng)
    heads = np.flatnonzero(~waiting.audit & (stands_with == np.arange(size)))
    centres = labelled.embeddings[labelled.embeddings.any(axis=1)]
    rest = _of_heads(waiting, centres, heads, left, strategy, rng, exploration)
    alike = np.bincount(stands_with, minlength=size)[rest.rows]
    return Plan(
        np.concatenate((first.rows, rest.rows)),
        np.concatenate((first.probability, rest.probability / alike)),
        stands_with,
    )


def favoured(pool: Floats, evidence: Evidence) -> str:
    """The strategy that the evidence favours.

    typical without a useful model (Hacohen et al., ICML 2022: with few labels, doubt is worse than chance); balanced
    under strong imbalance (Zhang et al., ICML 2022); else margin_k_centre, never below random where it was measured.

    Args:
        pool: (N, C) the champion's probabilities of the candidates.
        evidence: on the model and the labels so far.

    >>> even, rare = np.array([90, 80, 70]), np.array([300, 80, 7])
    >>> pool = np.full((10, 3), 1 / 3, np.float32)
    >>> [favoured(pool, Evidence(0.8, counts)) for counts in (even, rare)], favoured(pool, Evidence(None, even // 30))
    (['margin_k_centre', 'balanced'], 'typical')
    """
    accuracy, counts = evidence
    enough = accuracy >= USEFUL if accuracy is not None else counts.sum() >= FIRST_LABELS * len(counts)
    if not enough:
        return "typical"
    seen = counts if counts.sum() else np.bincount(pool.argmax(axis=1), minlength=pool.shape[1])
    seen = seen[seen > 0]  # a class that nobody has met yet says nothing
    return "balanced" if len(seen) and seen.max() >= IMBALANCE * seen.min() else "margin_k_centre"


def price_of(probabilities: Floats, seconds: NDArray[np.float64]) -> Floats:
    """(N,) what a label is expected to cost in a person's time, 1 in the mean.

    Args:
        probabilities: (N, C).
        seconds: (C,) mean time of an answer, above 0.
    """
    expected = probabilities @ seconds
    price: Floats = (expected / expected.mean()).astype(np.float32)
    return price


def _stands_with(waiting: Waiting, labelled: Labelled, min_cosine: float, rng: np.random.Generator) -> Rows:
    size = len(waiting.audit)
    value = np.concatenate((np.nan_to_num(waiting.utility), np.zeros(len(labelled.bodies), np.float32)))
    ordered = np.lexsort((-value, np.concatenate((1 - waiting.audit, np.full(len(labelled.bodies), -1)))))
    rank = np.empty(len(value), np.float32)
    rank[ordered] = -np.arange(len(value))  # what is labelled first, then the audit, then the others by utility
    found = representatives(
        np.concatenate((waiting.embeddings, labelled.embeddings)),
        rank,
        bodies=[*waiting.bodies, *labelled.bodies],
        min_cosine=min_cosine,
    )[:size]
    found[waiting.audit] = np.flatnonzero(waiting.audit)
    own = np.flatnonzero((found < size) & ~waiting.audit)
    own = own[~waiting.audit[found[own]]]  # those beside the audit or a label have their representative
    shuffled = rng.permutation(own)
    _, at = np.unique(found[shuffled], return_index=True)
    for_all = np.arange(size)
    for_all[found[shuffled[at]]] = shuffled[at]
    found[own] = for_all[found[own]]
    return found


def _of_heads(
    waiting: Waiting,
    labelled: Floats,
    heads: Rows,
    count: int,
    strategy: str,
    rng: np.random.Generator,
    exploration: float,
) -> Choice:
    known, unknown = heads[waiting.encoded[heads]], heads[~waiting.encoded[heads]]
    blind, chance = _split(len(unknown), len(known), count, rng)
    by_device = gumbel_top_k(waiting.utility[unknown], blind, rng=rng)
    price = None if waiting.price is None else waiting.price[known]
    pool = Pool(waiting.embeddings[known], waiting.probabilities[known], labelled, price)
    chosen = choose(strategy, pool, min(count, len(heads)) - blind, rng=rng, exploration=exploration)
    return Choice(
        np.concatenate((known[chosen.rows], unknown[by_device.rows])),
        np.concatenate((chosen.probability, by_device.probability)) * chance,
    )


def _split(unknown: int, known: int, count: int, rng: np.random.Generator) -> tuple[int, float]:
    """How many of `count` go to the unknown, and the chance of that: both kinds get their share, and at least one."""
    everything = unknown + known
    if unknown == 0 or known == 0 or count >= everything:
        return min(unknown, count), 1.0
    if count == 1:
        blind = rng.random() * everything < unknown
        return int(blind), (unknown if blind else known) / everything
    share = round(count * unknown / everything)
    return min(max(share, 1, count - known), unknown, count - 1), 1.0
