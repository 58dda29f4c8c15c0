"""Which of the candidates are labelled next, and how likely was each to be?

Every strategy picks one row at a time: with the chance `exploration` any free row alike, else what its rule proposes.
So every candidate has a chance, and it is recorded with the pick; a label's probability is the device's times this one.
The audit's samples (floor and random arm) compete with no other: they come first, drawn alike where not all can come.

The probability of a pick is that of being anywhere in the batch:

    gumbel      exact: given the others, its race is won with 1 - exp(-w t), t the first key that lost; sums of label /
                probability are unbiased (Cohen and Kaplan, PODC 2007)
    uniform     exact: count / N
    the others  an estimate: 1 - prod(1 - q) over the batch, q the chance at each turn up to its own, and after it the
                exploration alone: as along this one course of the batch. Never below what exploration gives.
                Too low, so not for unbiased sums: sum(1/p) came to 1.1 N (margin, k-centre), 1.8 N (badge)

Pure: positions into the pool as given come back, in order of choice, never positions into a part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.label.coverage import Floats, KCentre, Ordered, Pool, Proposal, Rows, Rule, surely, typical_order

PREFILTER = 10
"""Times the batch that margin leaves to k-centre: fewer gives near-duplicates, more gives easy samples."""

_TINY = 1e-12


class Choice(NamedTuple):
    """What was chosen: rows of the pool in order of choice (k,), and the probability of each, in (0, 1]."""

    rows: Rows
    probability: NDArray[np.float64]


def choose(name: str, pool: Pool, count: int, *, rng: np.random.Generator, exploration: float = 0.1) -> Choice:
    """Choose `count` rows of the pool, or all where there are no more, by the strategy `name` of STRATEGIES.

    Args:
        name: of STRATEGIES, or "gumbel", or "uniform"; KeyError otherwise.
        pool: the candidates, without duplicates and without the audit's samples.
        count: picks wanted.
        rng: where chance comes from.
        exploration: chance that a pick is drawn alike from all that is free, 0..1; gumbel needs none.
    """
    if len(pool.embeddings) <= count or count == 0:
        everything = np.arange(len(pool.embeddings))[:count]
        return Choice(everything, np.ones(len(everything)))
    if name == "gumbel":
        return gumbel_top_k(utility(pool), count, rng=rng)
    if name == "uniform":
        return uniform(len(pool.embeddings), count, rng=rng)
    rule = STRATEGIES[name](pool, count, rng)
    return _draw(rule, len(pool.embeddings), count, rng, exploration)


def utility(pool: Pool) -> Floats:
    """(N,) margin utility, 1 - (p1 - p2), per unit of price."""
    p = pool.probabilities
    rows = np.arange(len(p))
    label = p.argmax(axis=1)
    others = p.copy()
    others[rows, label] = 0.0
    gap = 1.0 - (p[rows, label] - others.max(axis=1))
    value: Floats = gap if pool.price is None else gap / pool.price
    return value


def uniform(size: int, count: int, *, rng: np.random.Generator) -> Choice:
    """`count` of `size` rows, all alike."""
    taken = min(count, size)
    return Choice(rng.choice(size, taken, replace=False), np.full(taken, taken / max(size, 1)))


def gumbel_top_k(weight: Floats, count: int, *, rng: np.random.Generator) -> Choice:
    """Top `count` of log weight + Gumbel noise: draws in proportion to the weight, without putting back.

    Kirsch et al., TMLR 2023 (power acquisition, beta 1); as a race of exponentials, whose first `count` are the same.
    """
    w = np.maximum(weight.astype(np.float64), _TINY)  # 0, too, may be asked when nothing else is left
    if len(w) <= count:
        return Choice(np.arange(len(w)), np.ones(len(w)))
    key = rng.exponential(size=len(w)) / w
    nearest = np.argpartition(key, count)[: count + 1]
    ordered = nearest[np.argsort(key[nearest], kind="stable")]
    rows = ordered[:count]
    return Choice(rows, np.maximum(-np.expm1(-w[rows] * key[ordered[count]]), _TINY))


def audit_first(audit: NDArray[np.bool_], weight: Floats, count: int, *, rng: np.random.Generator) -> Choice:
    """The audit's samples, all alike, then of the others by Gumbel top-k.

    Args:
        audit: (N,) whether a sample stands for the whole stream.
        weight: (N,) utility of the others, larger = asked rather.
        count: picks wanted.
        rng: where chance comes from.
    """
    first, others = np.flatnonzero(audit), np.flatnonzero(~audit)
    drawn = uniform(len(first), count, rng=rng)
    rest = gumbel_top_k(weight[others], count - len(drawn.rows), rng=rng)
    rows = np.concatenate((first[drawn.rows], others[rest.rows]))
    return Choice(rows, np.concatenate((drawn.probability, rest.probability)))


class Badge:
    """k-means++ on gradient embeddings (Ash et al., ICLR 2020), never built.

    The gradient of the last layer is g = (p - onehot(arg max)) (x) h, of C x D entries; <g, g'> is the product of two
    short inner products. The first is the longest, the next are drawn by squared distance to those taken.
    """

    def __init__(self, pool: Pool) -> None:
        """Squared norms at hand, nothing taken."""
        self._left = pool.probabilities.copy()
        self._left[np.arange(len(self._left)), self._left.argmax(axis=1)] -= 1.0
        self._right = pool.embeddings
        self._norms = np.einsum("nc,nc->n", self._left, self._left) * np.einsum("nd,nd->n", self._right, self._right)
        self._price = 1.0 if pool.price is None else pool.price
        self._nearest = self._norms.copy()
        self._empty = True

    def propose(self, free: NDArray[np.bool_]) -> Proposal:
        """Free rows by squared distance to those taken, per unit of price."""
        value = np.where(free, self._nearest / self._price, 0.0).astype(np.float64)
        if self._empty:
            return surely(int(np.where(free, value, -1.0).argmax()))
        total = value.sum()
        if total <= 0.0:  # all that is left coincides with what was taken
            value, total = free.astype(np.float64), float(free.sum())
        return Proposal(np.arange(len(value)), value / total)

    def took(self, row: int) -> None:
        """Lower the distances."""
        inner = (self._left @ self._left[row]) * (self._right @ self._right[row])
        distance = np.maximum(self._norms - 2.0 * inner + self._norms[row], 0.0)
        self._nearest = distance if self._empty else np.minimum(self._nearest, distance)
        self._nearest[row] = 0.0
        self._empty = False


def balanced_order(pool: Pool) -> Rows:
    """Class after class in turn, each time the row nearest to that class's boundary; for strong imbalance.

    The aim of GALAXY (Zhang et al., ICML 2022), which searches a graph per class; here nearness is |p_c - the largest
    other p| alone. A rare class has as many turns as a common one.
    """
    p = pool.probabilities
    size, classes = p.shape
    price = 1.0 if pool.price is None else pool.price
    ordered = np.sort(p, axis=1)
    top = ordered[:, -1:]
    second = ordered[:, -2:-1] if classes > 1 else np.zeros_like(top)
    rival = np.where(np.arange(classes) == p.argmax(axis=1)[:, None], second, top)
    nearness = (1.0 - np.abs(p - rival)) / np.reshape(price, (-1, 1))
    rank = np.empty((size, classes), np.intp)
    for c in range(classes):
        rank[np.argsort(-nearness[:, c], kind="stable"), c] = np.arange(size)
    # Turn by turn: (rank in its best class, that class); a row named by two classes keeps its earlier turn.
    return np.lexsort((rank.argmin(axis=1), rank.min(axis=1)))


def _margin(pool: Pool, _count: int, _rng: np.random.Generator) -> Rule:
    return Ordered(np.argsort(-utility(pool), kind="stable"))


def _margin_k_centre(pool: Pool, count: int, _rng: np.random.Generator) -> Rule:
    among = np.zeros(len(pool.embeddings), np.bool_)
    among[np.argsort(-utility(pool), kind="stable")[: PREFILTER * count]] = True
    return KCentre(pool, among)


def _k_centre(pool: Pool, _count: int, _rng: np.random.Generator) -> Rule:
    return KCentre(pool, np.ones(len(pool.embeddings), np.bool_))


STRATEGIES: dict[str, Callable[[Pool, int, np.random.Generator], Rule]] = {
    "margin": _margin,
    "margin_k_centre": _margin_k_centre,
    "k_centre": _k_centre,
    "badge": lambda pool, _count, _rng: Badge(pool),
    "typical": lambda pool, count, rng: Ordered(typical_order(pool, count, rng)),
    "balanced": lambda pool, _count, _rng: Ordered(balanced_order(pool)),
}
"""Rules by name; "gumbel" and "uniform" need no rule, they draw all at once."""


def _draw(rule: Rule, size: int, count: int, rng: np.random.Generator, exploration: float) -> Choice:
    free = np.ones(size, np.bool_)
    passed_over = np.zeros(size)  # log of the chance of not having been taken so far
    rows = np.empty(count, np.intp)
    logs = np.empty(count)
    for turn in range(count):
        proposal = rule.propose(free)
        alike = exploration / (size - turn)
        chance = np.where(free, alike, 0.0)
        chance[proposal.rows] += (1.0 - exploration) * proposal.chance
        row = _pick(proposal, free, rng, exploration)
        passed_over += np.log1p(-np.minimum(chance, 1.0 - _TINY))
        free[row] = False
        rows[turn], logs[turn] = row, passed_over[row]
        rule.took(row)
    later = np.log1p(-exploration / (size - np.arange(count)))
    still_to_come = later[::-1].cumsum()[::-1] - later
    return Choice(rows, -np.expm1(logs + still_to_come))


def _pick(proposal: Proposal, free: NDArray[np.bool_], rng: np.random.Generator, exploration: float) -> int:
    if rng.random() < exploration:
        return int(rng.choice(np.flatnonzero(free)))
    at = np.searchsorted(proposal.chance.cumsum(), rng.random(), side="right")
    return int(proposal.rows[min(int(at), len(proposal.rows) - 1)])
