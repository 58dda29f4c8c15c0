"""How is a cloud of embeddings laid out on a plane, so that what is alike lies together?

Principal components keep the large distances and crowd the small ones. So they are where each point begins, and the
nearest neighbours, found exactly, draw each other near while all others push: the forces of UMAP (McInnes, Healy and
Melville 2018, section 3.2), with its curve 1 / (1 + d^2), on a fuzzy graph of neighbours that is the union of both
directions. Others are drawn anew at each step, as negative samples. Pure.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NEIGHBOURS = 12  # fewer tear a class into scraps, more blur what is near
KEPT = 32  # principal components in which neighbours are sought: the others are mostly noise
STEPS = 120  # fewer leave strands, more change nothing that is seen
PUSHES = 3  # others that push, for each neighbour that draws
FARTHEST = 4.0  # that a force may move a point in a step: else two that coincide fly apart
_ROWS = 500  # of distances at once: memory
_TINY = 1e-3


def lay_out(vectors: NDArray[Any], *, rng: np.random.Generator) -> Floats:
    """(N, 2) in 0..1, of embeddings (N, D); the same for the same generator."""
    x = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    parts = principal(x / np.maximum(norms, 1e-12), KEPT)
    start = _padded(parts)
    if len(x) <= NEIGHBOURS + 1:
        return _framed(start)
    scale = 10.0 / max(float(np.abs(start).max()), 1e-12)
    return _framed(_settled(start * scale, _graph(parts), rng))


def principal(x: Floats, most: int) -> Floats:
    """(N, K) principal components, at most so many, the largest first. Signs so that the largest entry is positive."""
    centred = x - x.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / max(1, len(x)))
    axes = axes[:, np.argsort(values)[::-1][:most]]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return np.asarray(centred @ axes, np.float32)


def neighbours(x: Floats, count: int) -> tuple[NDArray[np.intp], Floats]:
    """(N, count) places of the nearest others, the nearest first, and how far they are."""
    squares = np.einsum("nd,nd->n", x, x)
    near = np.empty((len(x), count), np.intp)
    far = np.empty((len(x), count), np.float32)
    for start in range(0, len(x), _ROWS):
        some = slice(start, min(start + _ROWS, len(x)))
        distance = squares[some, None] + squares[None, :] - 2.0 * (x[some] @ x.T)
        distance[np.arange(len(distance)), np.arange(some.start, some.stop)] = np.inf
        best = np.argpartition(distance, count - 1, axis=1)[:, :count]
        each = np.take_along_axis(distance, best, axis=1)
        order = np.argsort(each, axis=1, kind="stable")
        near[some] = np.take_along_axis(best, order, axis=1)
        far[some] = np.sqrt(np.maximum(np.take_along_axis(each, order, axis=1), 0.0))
    return near, far


class _Graph(NamedTuple):
    """Who draws whom: each pair once. (E,) each."""

    one: NDArray[np.intp]
    other: NDArray[np.intp]
    weight: Floats  # 0..1


def _graph(x: Floats) -> _Graph:
    near, far = neighbours(x, NEIGHBOURS)
    spread = np.maximum((far - far[:, :1]).mean(axis=1, keepdims=True), 1e-9)
    sure = np.exp(-(far - far[:, :1]) / spread).ravel()  # 1 for the nearest: none is alone
    one, other = np.repeat(np.arange(len(x)), NEIGHBOURS), near.ravel()
    key = np.minimum(one, other) * len(x) + np.maximum(one, other)
    pairs, place = np.unique(key, return_inverse=True)
    doubt = np.ones(len(pairs))
    np.multiply.at(doubt, place, 1.0 - sure)  # a or b = 1 - (1 - a)(1 - b)
    return _Graph(pairs // len(x), pairs % len(x), np.asarray(1.0 - doubt, np.float32))


def _settled(y: Floats, graph: _Graph, rng: np.random.Generator) -> Floats:
    """All pairs at once in each step, which get smaller."""
    size = len(y)
    for step in range(STEPS):
        rate = 1.0 - step / STEPS
        gap = y[graph.one] - y[graph.other]
        square = np.einsum("ed,ed->e", gap, gap)
        pull = -2.0 * graph.weight / (1.0 + square)
        moved = _summed(gap * pull[:, None], graph.one, size) - _summed(gap * pull[:, None], graph.other, size)
        for _ in range(PUSHES):
            others = rng.integers(size, size=len(graph.one))
            away = y[graph.one] - y[others]
            square = np.einsum("ed,ed->e", away, away)
            push = 2.0 * graph.weight / ((_TINY + square) * (1.0 + square))
            moved += _summed(np.clip(away * push[:, None], -FARTHEST, FARTHEST), graph.one, size)
        y = y + np.clip(moved * (rate * 0.1), -FARTHEST, FARTHEST).astype(np.float32)
    return y


def _summed(values: NDArray[Any], at: NDArray[np.intp], size: int) -> NDArray[np.float64]:
    return np.stack([np.bincount(at, values[:, axis], minlength=size) for axis in (0, 1)], axis=1)


def _padded(parts: Floats) -> Floats:
    return np.pad(parts[:, :2], ((0, 0), (0, max(0, 2 - parts.shape[1]))))


def _framed(y: NDArray[Any]) -> Floats:
    """Into 0..1, both axes to one scale, without letting a few far ones crowd the rest."""
    if not len(y):
        return np.empty((0, 2), np.float32)
    low, high = np.quantile(y, 0.002, axis=0), np.quantile(y, 0.998, axis=0)
    middle, half = (low + high) / 2, max(float((high - low).max()) / 2, 1e-12)
    return np.asarray(np.clip(0.5 + 0.48 * (y - middle) / half, 0.0, 1.0), np.float32)
