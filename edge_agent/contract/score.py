"""How well does what a model says of a sample agree with the truth about it?

One figure a sample, 0..1, for whatever asks "was it right?": gates, the audit of a fleet, int8 against float, one
version against another. Of several answers one is as good as another by the same figure.

    classification   1 where the class is the true one, else 0
    multilabel       share of right decisions over the K classes: 1 - Hamming loss (Schapire and Singer 2000)
    regression       1 - |error| / scale, no less than 0, over the targets that are known; scale: the target's sd
    detection        F1 of the boxes that count, each true box found once by IoU >= .5; 1 where there are none and none
                     were said

Truth is an array with a row a sample, so that all tasks are handled alike:

    classification (N,) int64 class; multilabel (N, K) 0 or 1; regression (N, K), NaN: not known;
    detection (N, M, 6): class, left, top, right, bottom, score, as many rows as the fullest has, class -1: no box

Pure; defined here because device, models and server all ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.boxes import match
from edge_agent.contract.task import Applies, Box, Said, Task, Truth, Value

Floats = NDArray[np.float64]

OVERLAP_MIN = 0.5  # of a said and a true box that are one, as of PASCAL VOC
NO_BOX = -1.0  # class of a row that only fills up
SURE = 0.5  # probability from which a class is said to apply


def of_several(said: NDArray[Any], true: NDArray[Any]) -> Floats:
    """(N,) share of right decisions; said: (N, K) probabilities or decisions, true: (N, K) 0 or 1.

    >>> of_several(np.array([[0.9, 0.2, 0.6]]), np.array([[1, 0, 0]])).round(3).tolist()
    [0.667]
    """
    found: Floats = ((np.asarray(said) >= SURE) == (np.asarray(true) >= SURE)).mean(axis=1, dtype=np.float64)
    return found


def of_values(said: NDArray[Any], true: NDArray[Any], scale: NDArray[Any]) -> Floats:
    """(N,) 1 - |error| / scale, cut at 0, averaged over the targets whose truth (N, K) is known; scale: (K,).

    A sample of which nothing is known scores 0.

    >>> of_values(np.array([[1.0, 5.0]]), np.array([[1.5, np.nan]]), np.array([2.0, 1.0])).tolist()
    [0.75]
    """
    known = np.isfinite(true)
    with np.errstate(invalid="ignore", over="ignore"):
        each = np.clip(1.0 - np.abs(np.where(known, np.subtract(said, true), 0.0)) / scale, 0.0, 1.0)
    each = np.where(known & np.isfinite(each), each, 0.0)
    found: Floats = each.sum(axis=1, dtype=np.float64) / np.maximum(known.sum(axis=1), 1)
    return found


def of_boxes(said: NDArray[Any], true: NDArray[Any]) -> float:
    """F1 of boxes (M, 6) against the true ones (G, 6 or 5): 2 found / (M + G); rows of no box do not count.

    >>> box = np.array([[0, 0.1, 0.1, 0.5, 0.5, 1.0]])
    >>> of_boxes(box, box), of_boxes(box[:0], box[:0]), of_boxes(box, box[:0])
    (1.0, 1.0, 0.0)
    """
    ours, theirs = said[said[:, 0] >= 0.0], true[true[:, 0] >= 0.0]
    if not len(ours) and not len(theirs):
        return 1.0
    same = ours[:, :1] == theirs[:, 0]
    found = match(ours[:, 1:5], ours[:, 5], theirs[:, 1:5], overlap_min=OVERLAP_MIN, same=same)
    return 2.0 * float(np.count_nonzero(found >= 0)) / (len(ours) + len(theirs))


# --- arrays out of what travels and is stored -------------------------------------------------------------------------


def several(applies: Sequence[Applies], classes: int) -> Floats:
    """(K,) the probability of each class; 0 of one that is not named."""
    found = np.zeros(classes)
    for one in applies:
        if one.label < classes:
            found[one.label] = one.probability
    return found


def values(said: Sequence[Value], targets: int) -> Floats:
    """(K,) the value of each target; NaN of one that is not named."""
    found = np.full(targets, np.nan)
    for one in said:
        if one.label < targets:
            found[one.label] = one.value
    return found


def boxes(said: Sequence[Box], score_min: float = 0.0) -> Floats:
    """(M, 6) class, left, top, right, bottom, score of those that count."""
    kept = [one for one in said if one.score >= score_min]
    rows = [(one.label, one.left, one.top, one.right, one.bottom, one.score) for one in kept]
    return np.array(rows, np.float64).reshape(-1, 6)


def stacked(rows: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """(N, M, 6) of boxes (M_i, 6) of each of N samples, filled up."""
    most = max((len(one) for one in rows), default=0)
    found = np.zeros((len(rows), max(most, 1), 6), np.float32)
    found[:, :, 0] = NO_BOX
    for row, one in zip(found, rows, strict=True):
        row[: len(one)] = one
    return found


def truths(given: Sequence[Truth], task: Task, classes: int) -> NDArray[np.float32]:
    """The array of a task (above) that truths of it come to; ValueError where one is of another task."""
    if other := next((one.task for one in given if one.task != task), None):
        raise ValueError(f"a truth of {other} among those of {task}")
    if task == "detection":
        return stacked([boxes(one.boxes or ()) for one in given])
    if task == "multilabel":
        return np.stack([several(one.applies or (), classes) for one in given]).astype(np.float32)
    return np.stack([values(one.values or (), classes) for one in given]).astype(np.float32)


def of_said(said: Said, truth: Truth, *, classes: int, terms: Mapping[str, float]) -> float:
    """The score of what came with one sample, by the terms that the version's metrics state (`terms_of`).

    >>> from edge_agent.contract.task import truth_of
    >>> of_said(Said(values=(Value(0, 1.5),)), truth_of({"values": [[0, 1.0]]}), classes=1, terms={"scale/0": 2.0})
    0.75
    """
    if truth.boxes is not None:
        return of_boxes(boxes(said.boxes, terms.get("score_min", 0.0)), boxes(truth.boxes))
    if truth.applies is not None:
        return float(of_several(several(said.applies, classes)[None], several(truth.applies, classes)[None])[0])
    scale = np.array([terms.get(f"scale/{k}", 1.0) for k in range(classes)])
    return float(of_values(values(said.values, classes)[None], values(truth.values or (), classes)[None], scale)[0])


def terms_of(*, score_min: float | None = None, scale: Sequence[float] = ()) -> dict[str, float]:
    """What a score goes by, among the metrics of a version: they are read where its manifest is not at hand."""
    found = {f"scale/{k}": float(one) for k, one in enumerate(scale)}
    return found if score_min is None else found | {"score_min": score_min}
