"""How accurate is it, as far as that can be told without labels?

The mean confidence of the stream, put right by what the reference knows of it: on held-out samples the model was right
that much more, or less, often than it said.

    nothing moved    mean confidence + mean of (right - confidence) on the reference
    label shift      mean confidence + sum_k p_k mean of (right - confidence) in class k       (p: shift.py)

That is right while the model is as well calibrated as it was. After a covariate or concept shift it is wrong by any
amount, in any direction (drift.md 6: 0.98 was called 0.92, and 0.85 was called 0.91), so nothing is said then. It is
never the audit's figure: that one rests on labels. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from server.drift.shift import CONFIDENCE, Z95, Floats, Known, Model, Seen, Shift, one_hot

ASSUMES = "assumes that the model is as well calibrated as on the held-out samples; no label was seen"


class Believed(NamedTuple):
    """An accuracy, 0..1, with its 95 % interval, of the samples of the window; see ASSUMES."""

    value: float
    low: float
    high: float


class Withheld(NamedTuple):
    """Nothing can be said, and why."""

    reason: str


def without_labels(known: Known, model: Model, seen: Seen, shift: Shift) -> Believed | Withheld:
    """Estimate the accuracy on a window whose kind of shift is told."""
    if shift.kind not in ("none", "label shift"):
        return Withheld(f"{shift.kind}: {shift.why}")
    right = (known.predicted == known.true).astype(np.float64)
    gain = right - known.values[:, CONFIDENCE]
    independent = float(seen.samples.sum()) / shift.inflation
    mean = np.average(seen.means, axis=0, weights=seen.samples)
    # Of the very samples of the window, not of the world they came from: they too were right by chance.
    chance = max(float(gain.var()), 1.0 / len(gain))
    if shift.kind == "none":
        value = mean[CONFIDENCE] + float(gain.mean())
        spread = float(known.values[:, CONFIDENCE].var()) / independent + chance / len(gain) + chance / independent
        return _interval(value, spread)
    value, spread = _reweighted(known, model, mean, gain, independent)
    return _interval(value, spread + chance / independent)


def _reweighted(known: Known, model: Model, mean: Floats, gain: Floats, samples: float) -> tuple[float, float]:
    """The estimate under label shift, and its variance by its influence function, as in shift.py."""
    truth = one_hot(known.true, known.classes)
    by_class = truth.T @ gain / model.counts
    pull = np.linalg.solve(model.confusion.T, by_class)  # (C,) of each predicted class
    shares = np.linalg.solve(model.confusion, mean[known.values.shape[1] :])
    said = known.values[:, CONFIDENCE] + pull[known.predicted]
    left = gain - pull[known.predicted]
    weight = np.clip(shares, 0.0, None) / (model.counts / len(gain))
    weight = weight[known.true] / weight[known.true].sum()
    of_window = float(weight @ np.square(said - weight @ said)) / samples
    of_reference = sum(
        float(share**2 / count * max(left[known.true == k].var(), 1.0 / count))
        for k, (share, count) in enumerate(zip(shares, model.counts, strict=True))
    )
    return float(mean[CONFIDENCE] + shares @ by_class), of_window + of_reference


def _interval(value: float, variance: float) -> Believed:
    half = Z95 * variance**0.5
    return Believed(*(float(np.clip(x, 0.0, 1.0)) for x in (value, value - half, value + half)))
