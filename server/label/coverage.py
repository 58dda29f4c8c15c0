"""How do picks spread over what there is, and which samples show the same thing?

Pure, on arrays. A rule is an object with two methods, driven by server/label/choice.py: `propose(free)` says which row
it would take next, `took(row)` tells it what was taken. Rows are positions into the pool that was given, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

_BLOCK = 512  # rows compared at once: 512 x 10,000 float32 is 20 MB


class Pool(NamedTuple):
    """Candidates of the whole fleet, and what is labelled already.

    embeddings: (N, D) float32. probabilities: (N, C) float32, rows sum to 1. labelled: (M, D) float32, M may be 0.
    price: (N,) float32 above 0, what an annotation of each costs; None where all cost the same.
    """

    embeddings: Floats
    probabilities: Floats
    labelled: Floats
    price: Floats | None = None


class Proposal(NamedTuple):
    """Rows that may be taken next, and the chance of each: (k,) and (k,), summing to 1."""

    rows: Rows
    chance: NDArray[np.float64]


class Rule(Protocol):
    """What to take next."""

    def propose(self, free: NDArray[np.bool_]) -> Proposal:
        """Of the rows that are free (N,) bool, at least one."""
        ...

    def took(self, row: int) -> None:
        """That row was taken, by this rule or by exploration."""
        ...


def surely(row: int) -> Proposal:
    """No choice."""
    return Proposal(np.array([row]), np.ones(1))


class KCentre:
    """The row farthest from all that is labelled or taken: greedy core-set (Sener and Savarese, ICLR 2018).

    Distances are kept and only lowered, O(N D) a pick. The first of an empty set is the farthest from the mean.
    """

    def __init__(self, pool: Pool, among: NDArray[np.bool_]) -> None:
        """Only rows `among` (N,) bool are proposed, as long as any of them is free."""
        self._rows = np.flatnonzero(among)
        centre = pool.embeddings.mean(axis=0)  # distances do not change, and float32 loses less
        self._everything = pool.embeddings - centre
        self._points = self._everything[self._rows]
        self._norms = np.einsum("nd,nd->n", self._points, self._points)
        self._nearest = self._norms.copy() if len(pool.labelled) == 0 else self._to(pool.labelled - centre)
        self._empty = len(pool.labelled) == 0

    def propose(self, free: NDArray[np.bool_]) -> Proposal:
        """The farthest of the free."""
        open_ = free[self._rows]
        if not open_.any():
            return surely(int(np.flatnonzero(free)[0]))
        return surely(int(self._rows[np.where(open_, self._nearest, -np.inf).argmax()]))

    def took(self, row: int) -> None:
        """Lower the distances."""
        point = self._everything[row]
        distance = self._norms - 2.0 * (self._points @ point) + point @ point
        self._nearest = distance if self._empty else np.minimum(self._nearest, distance)
        self._empty = False

    def _to(self, others: Floats) -> Floats:
        """(n,) squared distance of each point to the nearest of `others` (M, D)."""
        norms = np.einsum("md,md->m", others, others)
        nearest = np.full(len(self._points), np.inf, np.float32)
        for start in range(0, len(others), _BLOCK):
            block = others[start : start + _BLOCK]
            partial = norms[start : start + _BLOCK] - 2.0 * (self._points @ block.T)
            np.minimum(nearest, partial.min(axis=1), out=nearest)
        distance: Floats = nearest + self._norms
        return distance


class Ordered:
    """Rows in a given order."""

    def __init__(self, order: Rows) -> None:
        """`order` holds every row of the pool once, the best first."""
        self._order = order
        self._at = 0

    def propose(self, free: NDArray[np.bool_]) -> Proposal:
        """The first that is free."""
        while not free[self._order[self._at]]:
            self._at += 1
        return surely(int(self._order[self._at]))

    def took(self, row: int) -> None:
        """Nothing depends on it."""


def typical_order(pool: Pool, count: int, rng: np.random.Generator) -> Rows:
    """For a first round: the most typical of each cluster, from clusters without a label and large ones on.

    In the line of TypiClust (Hacohen et al., ICML 2022): k-means of `count` clusters, typicality within the cluster.
    Differs: three rounds of k-means from random rows, and typicality is the nearness to the cluster's mean, which needs
    no table of distances.
    """
    points = pool.embeddings - pool.embeddings.mean(axis=0)
    clusters = min(count, len(points))
    centres = points[np.sort(rng.choice(len(points), clusters, replace=False))]
    for _ in range(3):
        home, _ = nearest_of(points, centres)
        sizes = np.bincount(home, minlength=clusters)
        by_home = np.argsort(home, kind="stable")
        filled = np.flatnonzero(sizes)
        starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))[filled]
        centres[filled] = np.add.reduceat(points[by_home], starts, axis=0) / sizes[filled, None]
    home, distance = nearest_of(points, centres)
    sizes = np.bincount(home, minlength=clusters)
    labelled = np.zeros(clusters, np.intp)
    if len(pool.labelled):
        homes, _ = nearest_of(pool.labelled - pool.embeddings.mean(axis=0), centres)
        labelled = np.bincount(homes, minlength=clusters)
    inside = np.lexsort((distance, home))
    turn = np.empty(len(points), np.intp)  # how many of its cluster come before it
    turn[inside] = np.arange(len(points)) - (np.cumsum(sizes) - sizes)[home[inside]]
    return np.lexsort((distance, -sizes[home], turn + labelled[home]))


def nearest_of(points: Floats, centres: Floats) -> tuple[Rows, Floats]:
    """For each of (N, D) the nearest of (K, D): its row (N,), and the squared distance (N,)."""
    table = points @ (-2.0 * centres.T)
    table += np.einsum("kd,kd->k", centres, centres)
    home = table.argmin(axis=1)
    return home, table[np.arange(len(points)), home] + np.einsum("nd,nd->n", points, points)


def representatives(
    embeddings: Floats, utility: Floats, *, bodies: Sequence[str] | None = None, min_cosine: float = 0.995
) -> Rows:
    """(N,) for each sample the row that stands for it, itself where it shows something new.

    In falling order of utility a sample is kept, unless one kept before has the same body or an embedding at a cosine
    of `min_cosine` or more: so a device that saw the same thing as another costs no second label. Nothing is removed:
    who drops duplicates knows which, and of what. A zero embedding is like no other.

    Args:
        embeddings: (N, D) float32.
        utility: (N,) larger = kept rather.
        bodies: hash of each body; None where unknown.
        min_cosine: too low merges what differs, too high pays twice for what a camera saw twice.
    """
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.where(norms > 0.0, norms, 1.0)
    stands = np.arange(len(unit))
    first: dict[str, int] = {}
    order = np.argsort(-utility, kind="stable")
    if bodies is not None:
        for row in order:
            stands[row] = first.setdefault(bodies[row], int(row))
    heads = order[stands[order] == order]
    kept = np.empty_like(unit)
    kept_rows: list[int] = []
    for start in range(0, len(heads), _BLOCK):
        block = heads[start : start + _BLOCK]
        before = len(kept_rows)
        alike = unit[block] @ kept[:before].T >= min_cosine
        within = unit[block] @ unit[block].T >= min_cosine
        fresh: list[int] = []
        for i, row in enumerate(block):
            if alike[i].any():
                stands[row] = kept_rows[int(alike[i].argmax())]
            elif same := [j for j in fresh if within[i, j]]:
                stands[row] = block[same[0]]
            else:
                fresh.append(i)
                kept[before + len(fresh) - 1] = unit[row]
        kept_rows += [int(block[i]) for i in fresh]
    return stands[stands]
