"""How do picks spread over what there is, and which samples show the same thing?

Pure, on arrays. Rows are positions into the pool that was given, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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


def k_centre(pool: Pool, count: int, *, among: Rows | None = None) -> Rows:
    """Greedy core-set (Sener and Savarese, ICLR 2018): each the farthest from all that is labelled or picked.

    Distances are squared, per unit of price; they are kept and only lowered, O(N D) a pick. The first of an empty set
    is the farthest from the mean.

    Args:
        pool: the candidates.
        count: picks, at most as many as there are candidates (in `among`).
        among: rows that may be picked; None: all.
    """
    rows = np.arange(len(pool.embeddings)) if among is None else among
    centre = pool.embeddings.mean(axis=0)  # distances do not change, and float32 loses less
    points = pool.embeddings[rows] - centre
    norms = np.einsum("nd,nd->n", points, points)
    nearest = _distance_to(points, norms, pool.labelled - centre) if len(pool.labelled) else norms.copy()
    price = None if pool.price is None else pool.price[rows]
    picked = np.empty(count, np.intp)
    for turn in range(count):
        at = int((nearest if price is None else nearest / price).argmax())
        picked[turn] = rows[at]
        distance = norms - 2.0 * (points @ points[at]) + norms[at]
        nearest = distance if turn == 0 and not len(pool.labelled) else np.minimum(nearest, distance)
        nearest[at] = -np.inf
    return picked


def _distance_to(points: Floats, norms: Floats, others: Floats) -> Floats:
    """(n,) squared distance of each point (n, D), of squared norms (n,), to the nearest of `others` (M, D)."""
    own = np.einsum("md,md->m", others, others)
    nearest = np.full(len(points), np.inf, np.float32)
    for start in range(0, len(others), _BLOCK):
        block = others[start : start + _BLOCK]
        partial = own[start : start + _BLOCK] - 2.0 * (points @ block.T)
        np.minimum(nearest, partial.min(axis=1), out=nearest)
    distance: Floats = nearest + norms
    return distance


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
