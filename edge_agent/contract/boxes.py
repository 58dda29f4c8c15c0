"""Which boxes show the same thing?

Arrays of corners (N, 4): left, top, right, bottom, in one unit. Overlap is intersection over union (Jaccard 1912; as of
PASCAL VOC, Everingham et al. 2010). Pure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def overlap(first: Floats, second: Floats) -> NDArray[np.float64]:
    """(N, M) intersection over union, 0..1, of boxes (N, 4) with boxes (M, 4); 0 where a box has no area.

    >>> overlap(np.array([[0.0, 0.0, 2.0, 1.0]]), np.array([[1.0, 0.0, 2.0, 1.0], [5.0, 5.0, 6.0, 6.0]])).tolist()
    [[0.5, 0.0]]
    """
    a, b = np.asarray(first, np.float64).reshape(-1, 4), np.asarray(second, np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0.0, None), axis=2)
    union = area(a)[:, None] + area(b)[None, :] - shared
    found: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0.0)
    return found


def area(boxes: Floats) -> NDArray[np.float64]:
    """(N,) of boxes (N, 4); 0 where the corners are crossed."""
    corners = np.asarray(boxes, np.float64)
    found: NDArray[np.float64] = np.prod(np.clip(corners[:, 2:] - corners[:, :2], 0.0, None), axis=1)
    return found


def suppress(boxes: Floats, score: Floats, label: NDArray[np.integer], *, overlap_max: float) -> NDArray[np.intp]:
    """Which rows stay when every box gives way to a surer one of its class that it overlaps by more; surest first.

    Greedy non-maximum suppression (Girshick et al., CVPR 2014), class by class; equal scores go by row.

    Args:
        boxes: (N, 4).
        score: (N,) larger is surer.
        label: (N,) class of each.
        overlap_max: that two boxes of one class may have, 0..1.
    """
    order = np.argsort(-np.asarray(score), kind="stable")
    shared = overlap(boxes[order], boxes[order]) > overlap_max
    shared &= label[order][:, None] == label[order][None, :]
    stays = np.ones(len(order), np.bool_)
    for place in range(len(order)):
        if stays[place]:
            stays[place + 1 :] &= ~shared[place, place + 1 :]
    kept: NDArray[np.intp] = order[stays]
    return kept


def match(
    said: Floats, score: Floats, true: Floats, *, overlap_min: float, same: NDArray[np.bool_] | None = None
) -> NDArray[np.intp]:
    """(N,) which true box (M, 4) each said box (N, 4) finds, -1 for none: surest first, each true box once.

    As of PASCAL VOC: a box finds the one that it overlaps most among those not yet found, by `overlap_min` at least.
    `same`: (N, M) which may match at all, by class; None: all.
    """
    shared = overlap(said, true)
    if same is not None:
        shared = np.where(same, shared, -1.0)
    found = np.full(len(shared), -1, np.intp)
    if shared.shape[1] == 0:
        return found
    free = np.ones(shared.shape[1], np.bool_)
    for row in np.argsort(-np.asarray(score), kind="stable"):
        best = int(np.where(free, shared[row], -1.0).argmax())
        if free[best] and shared[row, best] >= overlap_min:
            found[row], free[best] = best, False
    return found
