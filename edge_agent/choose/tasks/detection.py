"""How much would a label teach, where the answer is boxes?

Every anchor of the graph is a box with a score s, the sigmoid of its likeliest class; p2 is that of the next class, of
the anchor or of another box in the same place. What gives way to a surer box of its class is left out
(contract/boxes.py). A box counts from s = score_min on; those down to half of that are looked at too.

    near        of a box: (1 - s) / (1 - score_min) where it counts, else (s / score_min)^2: how near it is to the
                other decision; 1 at score_min
    margin      1 - (1 - doubt) (1 - surprise)      doubt: the most, over boxes, of near and p2 / s
                                                    surprise: boxes that break off, or are missing (frames.py)
    least_confidence   1 - s of the least sure box that counts (Brust et al., VISAPP 2019, "maximum")
    entropy            the greatest binary entropy of a box, in bits (Roy et al., BMVC 2018)
    energy             -the greatest logit: unbounded, high where nothing is found
    confidence         F1 that the model expects, were its scores calibrated and its boxes independent

The most over boxes, not their mean: one open box among ten sure ones is worth a look, and not a sum, which asks about
crowds. A plug-in gets, for each class, the greatest logit of any box (N, C).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Acquisition, Floats, Scored, known_or_plug_in
from edge_agent.choose.targets import OF_COMMITTEES
from edge_agent.choose.tasks.frames import Frames
from edge_agent.contract.artifact import Answer
from edge_agent.contract.boxes import match, overlap, suppress
from edge_agent.contract.task import MOST, Box, Said

CANDIDATES = MOST  # surest anchors that are looked at: fewer miss boxes in a crowd, more let a broken model cost time
SAME = 0.5  # overlap from which two models' boxes are one, as of PASCAL VOC
DIGITS = 4  # of a corner and a score that are sent: a tenth of a pixel of 1000


class Found(NamedTuple):
    """Boxes of a sample, surest first, the first `counted` of which count.

    corners: (M, 4) within 0..1. score: (M,). other: (M,) p2, score at most, 0 without another class. label: (M,).
    """

    corners: NDArray[np.float64]
    score: NDArray[np.float64]
    other: NDArray[np.float64]
    label: NDArray[np.intp]
    counted: int


class Boxes(NamedTuple):
    """What was answered, sample by sample; None where the outputs cannot be used."""

    found: list[Found | None]
    alike: float = 0.5  # two answers agree where more is the same than not

    def said(self, row: int) -> Said:
        """The boxes that count."""
        found = self.found[row]
        if found is None:
            return Said()
        rows = np.column_stack((found.corners, found.score)).round(DIGITS).tolist()
        boxes = [Box(label, *at) for label, at in zip(found.label.tolist(), rows, strict=True)]
        return Said(boxes=tuple(boxes[: found.counted]))

    def differ(self, rows: NDArray[np.intp], other: Any) -> Floats:
        """1 - 2 sum of overlaps / (boxes of both), over those that are the same: 1 less panoptic quality.

        (Kirillov et al., CVPR 2019.) It is 1 - F1 where what is the same lies the same, and 0 only between equals.
        """
        pairs = zip((self.found[row] for row in rows), other.found, strict=True)
        return np.array([_differ(mine, theirs) for mine, theirs in pairs], np.float32)


def _differ(mine: Found | None, theirs: Found | None) -> float:
    if mine is None or theirs is None:
        return math.nan
    boxes = mine.counted + theirs.counted
    if not boxes:
        return 0.0
    a, b = mine.corners[: mine.counted], theirs.corners[: theirs.counted]
    same = mine.label[: mine.counted, None] == theirs.label[None, : theirs.counted]
    partner = match(a, mine.score[: mine.counted], b, overlap_min=SAME, same=same)
    both = np.flatnonzero(partner >= 0)
    return 1.0 - 2.0 * float(overlap(a, b)[both, partner[both]].sum()) / boxes


class Detection:
    """The adapter; see scoring.py."""

    def __init__(
        self, name: str, *, temperature: float = 1.0, answer: Answer | None = None, frames: Frames | None = None
    ) -> None:
        """`frames`: of the stream, to go on with. ConfigError when `name` is neither known nor a plug-in."""
        self.name = name
        self._plug_in = known_or_plug_in(name)
        self._inverse_temperature = np.float32(1.0 / temperature)
        self._answer = answer or Answer()
        self._frames = frames or Frames()
        self.complaint = ""
        if name in OF_COMMITTEES:
            self.complaint = f"acquisition {name!r} asks a model of several heads, a detector has 1: margin stands in"

    def score(self, logits: Floats, further: Floats | None = None, *, count: int | None = None) -> Scored:
        """Score logits (N, A, C) with their boxes, `further` (N, A, 4). Rows beyond `count` are not looked at."""
        if further is None:
            raise ValueError("a detector without boxes")  # a Model has them
        samples = len(logits) if count is None else count
        asked = None if self._plug_in is None else self._ask(self._plug_in, logits[:samples])
        scored = _nothing(len(logits), logits.shape[2])
        found: list[Found | None] = [None] * len(logits)
        for row in range(samples):  # one by one: logits of many anchors and classes are some MB each
            z = logits[row] * self._inverse_temperature
            top: Floats = z.max(axis=1)  # NaN comes through
            best = float(top.max())
            scored.energy[row] = -best  # type: ignore[index]
            if not math.isfinite(best) or (one := self._find(z, top, further[row])) is None:
                continue
            found[row] = one
            self._fill(scored, row, one, best)
            if asked is not None:
                scored.utility[row] = asked[row]
        return scored._replace(answers=Boxes(found))

    def _ask(self, plug_in: Acquisition, logits: Floats) -> Floats:
        best = np.stack([z.max(axis=0) for z in logits]) * self._inverse_temperature
        asked: Floats = plug_in(best)
        return asked

    def _find(self, z: Floats, top: Floats, corners: Floats) -> Found | None:
        """Of one sample: logits (A, C), the greatest of each anchor (A,), corners (A, 4). None: not usable."""
        least = self._answer.score_min
        anchors = np.flatnonzero(top >= _logit(least / 2.0))
        anchors = anchors[np.argsort(-top[anchors], kind="stable")[:CANDIDATES]]
        at = corners[anchors].astype(np.float64)
        if not np.isfinite(at).all():
            return None
        at = np.clip(at, 0.0, 1.0)
        sends = at.round(DIGITS)
        real = ((sends[:, 2:] - sends[:, :2]) > 0.0).all(axis=1)
        anchors, at = anchors[real], at[real]
        label = z[anchors].argmax(axis=1)
        kept = suppress(at, top[anchors], label, overlap_max=self._answer.overlap_max)
        at, label, score = at[kept], label[kept], _sigmoid(top[anchors[kept]])
        counted = min(int(np.count_nonzero(score >= least)), self._answer.most)
        other = np.zeros(len(kept)) if z.shape[1] < 2 else self._other(at, label, score, _second(z[anchors[kept]]))
        return Found(at, score, other, label, counted)

    def _other(
        self, at: NDArray[np.float64], label: NDArray[np.intp], score: NDArray[np.float64], own: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(M,) p2 of boxes, surest first: of the anchor itself, or of a less sure box of another class in its place."""
        rivals = (overlap(at, at) > self._answer.overlap_max) & (label[:, None] != label[None, :])
        return np.asarray(np.maximum(own, np.triu(rivals * score[None, :], 1).max(axis=1, initial=0.0)))

    def _fill(self, scored: Scored, row: int, found: Found, best: float) -> None:
        """What is known of one sample; it is the next frame."""
        score, count = found.score, found.counted
        surprise = self._frames.surprise(found.corners[:count], found.label[:count], score[:count])
        scored.utility[row] = self._utility(found, best, surprise)
        scored.confidence[row] = expected_f1(score, count, float(_sigmoid(np.float64(best))))
        if count:
            scored.label[row] = found.label[0]
        residual = scored.residual
        if residual is not None:  # of each class, the box that a label is most likely to overturn
            doubts = np.minimum(score, 1.0 - score)
            np.maximum.at(residual[row], found.label, doubts.astype(np.float32))

    def _utility(self, found: Found, best: float, surprise: float) -> float:
        score, count = found.score, found.counted
        if self.name == "least_confidence":
            return 1.0 - float(score[count - 1]) if count else 0.0
        if self.name == "entropy":
            return max(map(_bits, (*score.tolist(), float(_sigmoid(np.float64(best))))))
        if self.name == "energy":
            return -best
        least = self._answer.score_min
        if not len(score):  # the surest anchor, far below
            score = np.minimum(_sigmoid(np.array([best])), least / 2.0)
        near = np.where(score >= least, (1.0 - score) / (1.0 - least), (score / least) ** 2)
        doubt = max(float(near.max()), float((found.other / found.score).max(initial=0.0)))
        return 1.0 - (1.0 - doubt) * (1.0 - surprise)


def expected_f1(score: NDArray[np.float64], counted: int, best: float) -> float:
    """F1 that calibrated scores (M,), surest first, promise of the first `counted`; the others are misses, maybe.

    Exact for independent boxes (Ye et al., ICML 2012). Without a box: the chance that there is none. best: score of
    the surest anchor, however low.

    >>> round(expected_f1(np.array([0.9, 0.5, 0.2]), 2, 0.9), 3), expected_f1(np.array([]), 0, 0.125)
    (0.749, 0.875)
    """
    if not len(score):
        return 1.0 - best
    right, missed = _how_many(score[:counted]), _how_many(score[counted:])
    t, m = np.arange(len(right))[:, None], np.arange(len(missed))
    f1 = np.divide(2.0 * t, counted + t + m, out=np.ones((len(right), len(missed))), where=counted + t + m > 0)
    return min(1.0, float(right @ f1 @ missed))


def _how_many(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n + 1,) probability that 0 .. n of independent events happen."""
    found = np.ones(1)
    for one in p.tolist():
        found = np.convolve(found, (1.0 - one, one))
    return found


def _bits(p: float) -> float:
    return -sum(q * math.log2(q) for q in (p, 1.0 - p) if q > 0.0)


def _nothing(rows: int, classes: int) -> Scored:
    """Of samples that say nothing that can be used; label `classes` is what a detector says of an empty image."""
    utility, confidence = (np.full(rows, np.nan, np.float32) for _ in range(2))
    label, energy = np.full(rows, classes, np.intp), np.full(rows, np.nan, np.float32)
    return Scored(utility, label, confidence, None, energy, np.zeros((rows, classes), np.float32))


def _second(z: Floats) -> NDArray[np.float64]:
    """(M,) probability of the class next to the likeliest, of logits (M, C), C > 1."""
    return _sigmoid(np.partition(z, -2, axis=1)[:, -2])


def _sigmoid(z: NDArray[np.floating] | np.float64) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(z, np.float64))))


def _logit(share: float) -> float:
    return math.log(share / (1.0 - share))
