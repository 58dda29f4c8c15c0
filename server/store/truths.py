"""How alike are two labels that are more than a class, and what do several come to?

    boxes     alike: F1 of the boxes that overlap by SAME or more and have one class. Several: a box is in force where
              more than half of the labelers drew it, its corners the mean of theirs, its class what most of them say
    applies   alike: Jaccard's index. Several: a class applies where more than half say so
    values    alike: 1 - |difference| / scale, 0 at least, on average over the targets. Several: the median

Of two halves as large, the last one decides, as among classes (consensus.py). Pure: in order of time in, one truth out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from edge_agent.contract.boxes import overlap
from edge_agent.contract.task import Applies, Box, Said, Truth, Value

SAME = 0.5  # overlap of two boxes of one thing (PASCAL VOC): less takes neighbours for one, more splits a careless hand
LIKELY = 0.5  # probability from which a model says that a class applies
_EVEN = 1e-9  # two overlaps nearer than this are one

Floats = NDArray[np.float64]
Scales = Mapping[int, float]
"""Target -> a difference in its unit by which two numbers are not alike at all."""


def likeness(first: Truth | Said, second: Truth | Said, *, scales: Scales | None = None) -> float:
    """How alike two are, 0..1; 1 where both say that there is nothing, 0 where they are of different tasks.

    >>> likeness(Truth(applies=(Applies(0), Applies(2))), Truth(applies=(Applies(2),)))
    0.5
    """
    if isinstance(first, Truth) and isinstance(second, Truth) and first.task != second.task:
        return 0.0
    if first.boxes is not None and second.boxes is not None and (first.boxes or second.boxes):
        return 2.0 * _hits(first.boxes, second.boxes) / (len(first.boxes) + len(second.boxes))
    if first.values is not None and second.values is not None and (first.values or second.values):
        return _near(first.values, second.values, scales or {})
    a, b = (set(classes_of(part)) for part in (first, second))
    return len(a & b) / len(a | b) if a | b else 1.0


def agreement(said: Sequence[Truth], *, scales: Scales | None = None) -> float:
    """How alike they are, pair by pair, on average; at least two."""
    return float(np.mean([likeness(a, b, scales=scales) for a, b in combinations(said, 2)]))


def merged(said: Sequence[Truth]) -> Truth:
    """What they come to: of one task, in the order in which they were given, at least one."""
    if said[0].boxes is not None:
        groups = _groups([one.boxes or () for one in said])
        kept = [_box(group) for group in groups if _most([one.labeler for one in group], len(said))]
        return Truth(boxes=tuple(sorted(kept, key=astuple)))
    if said[0].applies is not None:
        voices: dict[int, list[int]] = defaultdict(list)
        for i, one in enumerate(said):
            for label in {applying.label for applying in one.applies or ()}:
                voices[label].append(i)
        return Truth(applies=tuple(Applies(label) for label in sorted(voices) if _most(voices[label], len(said))))
    numbers: dict[int, list[float]] = defaultdict(list)
    for one in said:
        for value in one.values or ():
            numbers[value.label].append(value.value)
    return Truth(values=tuple(Value(label, float(np.median(numbers[label]))) for label in sorted(numbers)))


def classes_of(said: Truth | Said) -> list[int]:
    """The classes or targets that it names, each as often as it does, by index; of a model, those that are likely."""
    applies = [one for one in said.applies or () if one.probability >= LIKELY]
    parts: Iterable[Box | Applies | Value] = (*(said.boxes or ()), *applies, *(said.values or ()))
    return sorted(one.label for one in parts)


# --- boxes ------------------------------------------------------------------------------------------------------------


class _Drawn(NamedTuple):
    """A box, and whose: the place of its labeler in order of time."""

    labeler: int
    box: Box


def corners(boxes: Sequence[Box]) -> Floats:
    """(N, 4): left, top, right, bottom."""
    return np.array([(one.left, one.top, one.right, one.bottom) for one in boxes], np.float64).reshape(-1, 4)


def _hits(first: Sequence[Box], second: Sequence[Box]) -> int:
    """The most pairs of boxes that are of one thing, each box in one pair at most."""
    from scipy.optimize import linear_sum_assignment  # here: few commands need it, and it takes long to load

    fit = overlap(corners(first), corners(second)) >= SAME
    labels = [np.array([one.label for one in boxes], np.int64) for boxes in (first, second)]
    fit &= labels[0][:, None] == labels[1][None, :]
    rows, columns = linear_sum_assignment(fit, maximize=True)
    return int(fit[rows, columns].sum())


def _groups(drawn: Sequence[Sequence[Box]]) -> list[list[_Drawn]]:
    """Boxes of one thing, one of a labeler at most: those of one class first, and those that overlap most.

    The same whatever order the labelers come in: equal overlaps go by the places of the boxes.
    """
    every = [_Drawn(i, box) for i, boxes in enumerate(drawn) for box in boxes]
    every.sort(key=lambda one: (astuple(one.box), one.labeler))
    places = corners([one.box for one in every])
    shared = np.rint(overlap(places, places) / _EVEN)
    pairs = np.argwhere(np.triu(shared >= SAME / _EVEN, 1)).tolist()
    pairs.sort(key=lambda pair: (every[pair[0]].box.label != every[pair[1]].box.label, -shared[tuple(pair)]))
    group = [[one] for one in every]
    for i, j in pairs:
        mine, theirs = group[i], group[j]
        if mine is not theirs and not {one.labeler for one in mine} & {one.labeler for one in theirs}:
            mine += theirs
            for k in range(len(group)):
                group[k] = mine if group[k] is theirs else group[k]
    return list({id(one): one for one in group}.values())


def _box(group: Sequence[_Drawn]) -> Box:
    """What several drew of one thing."""
    inorder = sorted(group, key=lambda one: one.labeler)
    votes = Counter(one.box.label for one in inorder)
    most = max(votes.values())
    label = next(one.box.label for one in reversed(inorder) if votes[one.box.label] == most)
    left, top, right, bottom = corners([one.box for one in group]).mean(axis=0).tolist()
    if left < right and top < bottom:
        return Box(label, left, top, right, bottom)
    last = inorder[-1].box  # so small that the mean has no area
    return Box(label, last.left, last.top, last.right, last.bottom)


def _most(voices: Sequence[int], labelers: int) -> bool:
    """Whether more than half say so, or half with the last."""
    return 2 * len(voices) > labelers or (2 * len(voices) == labelers and labelers - 1 in voices)


def _near(first: Sequence[Value], second: Sequence[Value], scales: Scales) -> float:
    a, b = ({one.label: one.value for one in values} for values in (first, second))
    off = [abs(a[k] - b[k]) / scales.get(k, 1.0) if k in a and k in b else 1.0 for k in a.keys() | b.keys()]
    return float(np.mean([max(0.0, 1.0 - part) for part in off]))
