"""Does a detector find as much, and rank it as well?

    mAP              mean average precision over IoU .5 to .95 (precision.py), candidates of low score included
    negative flips   the share of images that lost more than half of their score, F1 of the boxes that count

On classes that both know. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract import score
from server.config import Gates
from server.teach.gates import paired
from server.teach.gates.held import Held, Names
from server.teach.gates.paired import Difference, Floats
from server.teach.gates.precision import Precision, mean_precision
from server.teach.gates.verdict import Gate, at_least, at_most


@dataclass(frozen=True)
class Detected:
    """What a model says of N images: (M, 6) class, left, top, right, bottom, score of each, classes by `names`."""

    names: Names  # (C,)
    said: Sequence[Floats]
    true: Sequence[Floats]  # (G, 6), of no row that only fills up
    score_min: float  # of a box that counts; the others are for the ranking

    def of(self, rows: NDArray[np.bool_]) -> Detected:
        """Of some of the images."""
        some = np.flatnonzero(rows).tolist()
        return Detected(self.names, [self.said[i] for i in some], [self.true[i] for i in some], self.score_min)

    def score(self, classes: NDArray[np.bool_]) -> Floats:
        """(N,) 0..1, F1 of the boxes that count, of some of the classes."""

        def kept(boxes: Floats, least: float) -> Floats:
            some: Floats = boxes[classes[boxes[:, 0].astype(int)] & (boxes[:, 5] >= least)]
            return some

        pairs = zip(self.said, self.true, strict=True)
        return np.array([score.of_boxes(kept(ours, self.score_min), kept(real, 0.0)) for ours, real in pairs])

    def precision(self, weight: Floats, classes: Sequence[int]) -> Precision:
        """Of some of the classes."""
        return mean_precision(self.said, self.true, weight, classes=classes)


def judge_detected(held: Held, candidate: Detected, champion: Detected, known: Names, rules: Gates) -> list[Gate]:
    """The gates of this file, of the stream and of imports. `known`: classes that the champion knows."""
    gates, classes = list[Gate](), np.flatnonzero(np.isin(candidate.names, known)).tolist()
    for origin, rows in (("stream", held.stream), ("import", ~held.stream)):
        if not rows.any():
            continue
        part = held.of(rows)
        found = precision_change(part, candidate.of(rows), champion.of(rows), classes, confidence=rules.confidence)
        flips = part.mean(part.flipped, confidence=rules.confidence).within(0.0, 1.0)
        gates += [
            at_least(f"{origin}/mAP", found, -rules.max_drop, min_samples=rules.min_samples),
            at_most(f"{origin}/negative flips", flips, rules.max_negative_flips, min_samples=rules.min_samples),
        ]
    return gates


def precision_change(
    held: Held, ours: Detected, theirs: Detected, classes: Sequence[int], *, confidence: float
) -> Difference:
    """The candidate's less the champion's."""
    one, other = (model.precision(held.weight, classes) for model in (ours, theirs))
    return paired.of_parts(
        one.all - other.all,
        one.influence - other.influence,
        held.weight,
        confidence=confidence,
        growing=bool(held.stream.any()),
    ).within(-1.0, 1.0)
