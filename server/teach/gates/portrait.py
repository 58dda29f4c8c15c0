"""What does a model take for what, and is it as right as it is sure?

Its answers on what is held out, as people look at them: a confusion matrix, and a reliability diagram (DeGroot and
Fienberg, The Statistician 1983) over the same bins of equal mass as the calibration error that the gate judges. Weights
are those of the gates, so shares stand for the stream; counts are samples. Judges nothing. Pure.
"""

from __future__ import annotations

import msgspec
import numpy as np

from server.audit.interval import limits
from server.teach.gates.answers import BINS, Said
from server.teach.gates.held import Held, Scores
from server.teach.gates.paired import Floats

CONFIDENCE = 0.95


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of which it was about as sure."""

    confidence: float  # mean, 0..1
    accuracy: float  # 0..1
    interval: tuple[float, float]  # of the accuracy, 95 %
    n: int
    share: float  # of all weight, 0..1


class Portrait(msgspec.Struct, frozen=True, kw_only=True):
    """Of the answers to samples of one origin."""

    names: tuple[str, ...]  # classes, true or said; "": no answer, since a logit was not finite
    cells: tuple[tuple[int, int, int, float], ...]  # (true, said, samples, weight), where there are any
    bins: tuple[Bin, ...]  # the least sure first


def portraits(held: Held, said: Said) -> dict[str, Portrait]:
    """By origin, "stream" and "import", where there are samples of it. `said`: by the candidate."""
    rows = {"stream": held.stream, "import": ~held.stream}
    return {name: _portrait(held.of(mine), said.of(mine)) for name, mine in rows.items() if mine.any()}


def _portrait(held: Held, said: Said) -> Portrait:
    names = np.unique(np.concatenate([held.label, said.predicted]))
    pairs = np.searchsorted(names, held.label) * len(names) + np.searchsorted(names, said.predicted)
    counts, weight = np.bincount(pairs), np.bincount(pairs, weights=held.weight)
    cells = [(*divmod(int(at), len(names)), int(counts[at]), float(weight[at])) for at in np.flatnonzero(counts)]
    bins = _bins(held.candidate, said.confidence, held.weight)
    return Portrait(names=tuple(names.tolist()), cells=tuple(cells), bins=tuple(bins))


def _bins(right: Scores, confidence: Floats, weight: Floats) -> list[Bin]:
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(BINS, len(right)))
    total = float(weight.sum())
    return [_bin(right[part], confidence[part], weight[part], total) for part in parts]


def _bin(right: Scores, confidence: Floats, weight: Floats, total: float) -> Bin:
    mine = float(weight.sum())
    share = weight / mine
    accuracy = min(1.0, float(share @ right))
    variance = float(np.square(share) @ np.square(right - accuracy))
    interval = limits(accuracy, variance, 1.0 / len(right), confidence_level=CONFIDENCE)
    sure = float(share @ confidence)
    return Bin(confidence=sure, accuracy=accuracy, interval=interval, n=len(right), share=mine / total)
