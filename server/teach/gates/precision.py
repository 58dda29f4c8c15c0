"""How well does a detector rank its boxes: mean average precision, and how sure one may be of it?

As COCO has it (Lin et al., ECCV 2014): of every class, boxes of all images go by score; each finds the true box of its
image that it overlaps most, once; precision, made to fall, is averaged over 101 recalls, then over the IoU of .5 to .95
and over the classes that occur. Equal to pycocotools where images weigh alike. Here an image of a stream weighs
1 / its probability, in hits, misses and true boxes, so that the figure is that of the stream.

It is no mean over images, so its error comes of the influence of each image on it: the derivative by that image's
weight, which is the infinitesimal jackknife (Jaeckel 1972; Efron 1982), and exact for the area under the same curve at
all recalls (the 101 are a sum that comes near to it). A bootstrap would say the same, take hundreds of sortings and a
seed, and have no counterpart for a set that grows. What holds is asymptotic: normal for a fixed set, the confidence
sequence of paired.of_parts for the audit; of a few dozen images neither promises much, which is what `min_samples` is
for. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.boxes import overlap
from server.teach.gates.paired import Floats

OVERLAPS = tuple((np.arange(50, 100, 5) / 100.0).tolist())
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100  # boxes of a class in one image that count, as of COCO


class Ranked(NamedTuple):
    """Of one class: said boxes, surest first, and true ones. image: (D,) and (G,) row of each. hit: (T, D) by IoU."""

    image: NDArray[np.intp]
    hit: NDArray[np.bool_]
    true: NDArray[np.intp]


class Precision(NamedTuple):
    """Mean average precision over all IoU, at .5 alone, and of each class; influence: (N,) of each image, mean 0."""

    all: float
    half: float
    classes: dict[int, float]
    influence: Floats


def mean_precision(
    said: Sequence[NDArray[np.floating]],
    true: Sequence[NDArray[np.floating]],
    weight: Floats,
    *,
    classes: Sequence[int],
) -> Precision:
    """Of N images.

    Args:
        said: N arrays (M, 6): class, left, top, right, bottom, score; candidates of low score belong to it.
        true: N arrays (G, 6 or 5); rows of class -1 are no boxes.
        weight: (N,) how much of its stream each image stands for.
        classes: that are judged; one that does not occur among the true boxes has no precision.
    """
    found, half, influence = {}, [], np.zeros(len(weight))
    for one in classes:
        ranked = rank(said, true, one)
        if not len(ranked.true):
            continue
        parts = [average_precision(ranked.image, hit, ranked.true, weight) for hit in ranked.hit]
        found[int(one)] = float(np.mean([area for area, _ in parts]))
        half.append(parts[0][0])
        influence += np.mean([by for _, by in parts], axis=0)
    if not found:
        return Precision(0.0, 0.0, {}, influence)
    return Precision(float(np.mean(list(found.values()))), float(np.mean(half)), found, influence / len(found))


def rank(said: Sequence[NDArray[np.floating]], true: Sequence[NDArray[np.floating]], one: int) -> Ranked:
    """The boxes of one class over all images, the surest first; equal scores go by image."""
    images, scores, hits, theirs = [], [], [np.zeros((len(OVERLAPS), 0), np.bool_)], []
    for row, (ours, real) in enumerate(zip(said, true, strict=True)):
        boxes = ours[ours[:, 0] == one]
        boxes = boxes[np.argsort(-boxes[:, 5], kind="stable")][:MOST]
        actual = real[real[:, 0] == one]
        images += [row] * len(boxes)
        scores += boxes[:, 5].tolist()
        theirs += [row] * len(actual)
        hits.append(_hits(boxes, actual))
    order = np.argsort(-np.array(scores), kind="stable") if scores else np.zeros(0, np.intp)
    return Ranked(np.array(images, np.intp)[order], np.concatenate(hits, axis=1)[:, order], np.array(theirs, np.intp))


def _hits(said: NDArray[np.floating], true: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(T, M) which boxes (M, 6), surest first, find one of the true (G, 6) by each of the IoU; each is found once."""
    shared = overlap(said[:, 1:5], true[:, 1:5])
    found = np.zeros((len(OVERLAPS), len(said)), np.bool_)
    for level, least in enumerate(OVERLAPS):
        free = np.ones(len(true), np.bool_)
        for row in np.flatnonzero((shared >= least).any(axis=1)) if shared.size else ():
            best = int(np.where(free, shared[row], -1.0).argmax())
            if free[best] and shared[row, best] >= least:
                found[level, row], free[best] = True, False
    return found


def average_precision(
    image: NDArray[np.intp], hit: NDArray[np.bool_], true: NDArray[np.intp], weight: Floats
) -> tuple[float, Floats]:
    """Of one class at one IoU, and the influence (N,) of each image.

    With envelope e (the best precision at this recall or a higher one), reached behind box m(j), and H the weight of
    the true boxes, the area is A = sum over hits j of w_j e_j / H, and its derivative by the weight of image i

        1/H (sum over its hits of e_j  -  (its true boxes) A)
        + sum over all hits j of w_j / H / S_m(j) (hits of i up to m(j) - e_j (boxes of i up to m(j)))

    S: the weight of all boxes so far.
    """
    total = float(weight[true].sum())
    if not len(image) or total <= 0.0:
        return 0.0, np.zeros(len(weight))
    each = weight[image]
    hits, boxes = np.cumsum(each * hit), np.cumsum(each)
    precision = hits / boxes
    best, at = _envelope(precision)
    place = np.searchsorted(hits / total, RECALLS, side="left")
    area = float(np.where(place < len(best), best[np.minimum(place, len(best) - 1)], 0.0).mean())

    gained = np.where(hit, each, 0.0) / total  # of recall, at each box
    whole = float(gained @ best)
    moved = np.bincount(at, gained / boxes[at], len(image))
    behind = np.cumsum(moved[::-1])[::-1]
    behind_best = np.cumsum((moved * best)[::-1])[::-1]  # of box m the envelope is its own precision
    of_box = np.where(hit, best / total + behind, 0.0) - behind_best
    by = np.bincount(image, of_box, len(weight)) - np.bincount(true, minlength=len(weight)) * whole / total
    influence: Floats = by * weight.sum()
    return area, influence


def _envelope(precision: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """(D,) the largest precision at this place or behind it, and where that is: the last such place."""
    turned = precision[::-1]
    best = np.maximum.accumulate(turned)
    new = np.r_[True, turned[1:] > best[:-1]]
    at = np.maximum.accumulate(np.where(new, np.arange(len(turned)), 0))
    return best[::-1], (len(turned) - 1 - at)[::-1]
