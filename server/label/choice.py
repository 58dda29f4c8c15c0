"""Which of the candidates are labelled next, and how likely was each to be?

Every strategy leaves a part of its picks, the exploration, to a draw from all that it did not pick. So every candidate
has a chance, and with each pick the inverse of its weight is kept: sums of label / probability over a choice are
unbiased for what it was made from (ADR 0008), whatever the strategy.

    an order    of all rows, the best first. The best are taken for certain, with probability 1; the exploration is
                drawn alike from the others, with (exploration picks) / (others). Exact, given the order
    badge       picks are drawn one after the other, with the chance q_m at turn m of M; the weight that makes the sum
                unbiased is that of LURE (Farquhar et al., ICLR 2021), of what Des Raj (1956) began. Where a pick was
                nearly certain late in the batch, it can be a little below 1, and its inverse above 1
    gumbel      given the others, a race is won with 1 - exp(-w t), t the first key that lost (Cohen and Kaplan, PODC
                2007)
    uniform     count / N

A label's probability is the device's times this one, over the number of duplicates it stands for (plan.py).
Pure: positions into the pool as given come back, in order of choice, never positions into a part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.label.coverage import Floats, Pool, Rows, k_centre, typical_order

PREFILTER = 10
"""Times the batch that margin leaves to k-centre: fewer gives near-duplicates, more gives easy samples."""

_TINY = 1e-12


class Choice(NamedTuple):
    """What was chosen: rows of the pool in order of choice (k,), and the inverse of each one's weight (k,), above 0."""

    rows: Rows
    probability: NDArray[np.float64]


def choose(name: str, pool: Pool, count: int, *, rng: np.random.Generator, exploration: float = 0.1) -> Choice:
    """Choose `count` rows of the pool, or all where there are no more, by the strategy `name`.

    Args:
        name: of STRATEGIES; KeyError otherwise.
        pool: the candidates, without duplicates and without the audit's samples.
        count: picks wanted.
        rng: where chance comes from.
        exploration: part of the picks drawn alike from what the strategy leaves, 0..1. With 0 sums are no longer
            unbiased; "gumbel" and "uniform" need none.
    """
    size = len(pool.embeddings)
    if size <= count or count == 0:
        everything = np.arange(size)[:count]
        return Choice(everything, np.ones(len(everything)))
    if name == "gumbel":
        return gumbel_top_k(utility(pool), count, rng=rng)
    if name == "uniform":
        return uniform(size, count, rng=rng)
    if name == "badge":
        return badge(pool, count, rng=rng, exploration=exploration)
    return with_exploration(ORDERS[name](pool, count, rng), size, rng=rng, exploration=exploration)


def utility(pool: Pool) -> Floats:
    """(N,) margin utility, 1 - (p1 - p2), per unit of price."""
    p = pool.probabilities
    if p.shape[1] < 2:
        return np.zeros(len(p), np.float32)
    top = np.partition(p, -2, axis=1)
    gap = 1.0 - (top[:, -1] - top[:, -2])
    value: Floats = gap if pool.price is None else gap / pool.price
    return value


def foremost(value: Floats, count: int) -> Rows:
    """The `count` rows of the highest value (N,), best first; of equals the earlier. Only those are put in order.

    >>> foremost(np.array([1.0, 3.0, 2.0, 3.0]), 3).tolist()
    [1, 3, 2]
    """
    below = -value
    if not 0 < count < len(below):
        return np.argsort(below, kind="stable")[:count]
    last = np.partition(below, count - 1)[count - 1]
    rows = np.flatnonzero(~(below > last))  # NaN is the last of all, and is not > either
    return rows[np.argsort(below[rows], kind="stable")][:count]


def uniform(size: int, count: int, *, rng: np.random.Generator) -> Choice:
    """`count` of `size` rows, all alike."""
    taken = min(count, size)
    return Choice(rng.choice(size, taken, replace=False), np.full(taken, taken / max(size, 1)))


def gumbel_top_k(weight: Floats, count: int, *, rng: np.random.Generator) -> Choice:
    """Top `count` of log weight + Gumbel noise: draws in proportion to the weight, without putting back.

    Kirsch et al., TMLR 2023 (power acquisition, beta 1); as a race of exponentials, whose first `count` are the same.
    """
    w = np.maximum(weight.astype(np.float64), _TINY)  # 0, too, may be asked when nothing else is left
    if count == 0 or len(w) <= count:
        return Choice(np.arange(len(w))[:count], np.ones(min(len(w), count)))
    key = rng.exponential(size=len(w)) / w
    nearest = np.argpartition(key, count)[: count + 1]
    ordered = nearest[np.argsort(key[nearest], kind="stable")]
    rows = ordered[:count]
    return Choice(rows, np.maximum(-np.expm1(-w[rows] * key[ordered[count]]), _TINY))


def with_exploration(best: Rows, size: int, *, rng: np.random.Generator, exploration: float) -> Choice:
    """The best rows of an order but for a part, and instead of that part as many drawn alike from all other rows.

    The part need not be whole: of 12 picks at 0.1 one is explored, and with the chance 0.2 another; that one's place
    goes to the last of `best` otherwise, whose probability says so. Explored rows stand anywhere among the others, so
    that a batch which is broken off is broken off for all alike.

    Args:
        best: (count,) rows that would be taken without exploration, the best first.
        size: rows of the pool, more than `count`.
        rng: where chance comes from.
        exploration: part of the picks, 0..1.
    """
    few, one_more = divmod(exploration * len(best), 1.0)
    drawn = int(few) + (rng.random() < one_more)
    kept = best[: len(best) - drawn]
    left = np.ones(size, np.bool_)
    left[kept] = False
    others = np.flatnonzero(left)
    rest = size - len(best) + few  # how many others there are when no further one is drawn
    explored = (1.0 - one_more) * few / rest + one_more * (few + 1.0) / (rest + 1.0)
    probability = np.ones(size)
    probability[others] = explored
    if one_more > 0.0:
        probability[best[len(best) - int(few) - 1]] = 1.0 - one_more + one_more * (few + 1.0) / (rest + 1.0)
    rows = np.empty_like(best)
    is_explored = np.zeros(len(best), np.bool_)
    is_explored[rng.choice(len(best), drawn, replace=False)] = True
    rows[is_explored], rows[~is_explored] = rng.choice(others, drawn, replace=False), kept
    return Choice(rows, probability[rows])


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

    def chance(self, free: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(N,) of each row to be next, 0 where not free: by squared distance to those taken, per unit of price."""
        value = np.where(free, self._nearest / self._price, 0.0).astype(np.float64)
        total = value.sum()
        if total <= 0.0:  # all that is left coincides with what was taken
            value, total = free.astype(np.float64), float(free.sum())
        elif self._empty:
            value, total = np.where(np.arange(len(value)) == value.argmax(), 1.0, 0.0), 1.0
        chance: NDArray[np.float64] = value / total
        return chance

    def took(self, row: int) -> None:
        """Lower the distances."""
        inner = (self._left @ self._left[row]) * (self._right @ self._right[row])
        distance = np.maximum(self._norms - 2.0 * inner + self._norms[row], 0.0)
        self._nearest = distance if self._empty else np.minimum(self._nearest, distance)
        self._nearest[row] = 0.0
        self._empty = False


def badge(pool: Pool, count: int, *, rng: np.random.Generator, exploration: float) -> Choice:
    """`count` rows, fewer than the pool has, drawn by Badge; at every turn with the chance `exploration` alike."""
    size = len(pool.embeddings)
    rule = Badge(pool)
    free = np.ones(size, np.bool_)
    rows = np.empty(count, np.intp)
    chances = np.empty(count)
    for turn in range(count):
        chance = (1.0 - exploration) * rule.chance(free) + exploration / (size - turn) * free
        edges = chance.cumsum()
        row = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
        free[row] = False
        rows[turn], chances[turn] = row, chance[row]
        rule.took(row)
    return Choice(rows, 1.0 / lure_weights(chances, size))


def lure_weights(chances: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Weights of sequential picks, so that the weighted sum of anything over them is unbiased for that of all.

    Farquhar et al., ICLR 2021, eq. 10, times N / M: for N alike chances all weigh N / M.

    Args:
        chances: (M,) of each pick at its turn, given the picks before it; no candidate may ever have had none.
        size: N candidates, more than M.

    >>> lure_weights(np.array([1 / 4, 1 / 3]), 4).tolist()
    [2.0, 2.0]
    """
    picks = len(chances)
    left = size - np.arange(picks)  # candidates at that turn
    ratio = (size - picks) / (left - 1) * (1.0 / (left * chances) - 1.0)
    weights: NDArray[np.float64] = size / picks * (1.0 + ratio)
    return weights


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


def _margin_k_centre(pool: Pool, count: int, _rng: np.random.Generator) -> Rows:
    return k_centre(pool, count, among=foremost(utility(pool), PREFILTER * count))


ORDERS: dict[str, Callable[[Pool, int, np.random.Generator], Rows]] = {
    "margin": lambda pool, count, _rng: foremost(utility(pool), count),
    "margin_k_centre": _margin_k_centre,
    "k_centre": lambda pool, count, _rng: k_centre(pool, count),
    "typical": lambda pool, count, rng: typical_order(pool, count, rng)[:count],
    "balanced": lambda pool, count, _rng: balanced_order(pool)[:count],
}
"""The best `count` rows of a pool, by name of the strategy."""

STRATEGIES = (*ORDERS, "badge", "gumbel", "uniform")
