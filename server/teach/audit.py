"""How accurate is the fleet, on everything it sees?

Samples that were sent were chosen for being hard: their plain accuracy is wrong by tens of points. Every one came with
the probability p of its selection, though, and the devices say how many samples they did not send and how confident the
model was of them. With that the accuracy on the whole stream is estimated without bias, and with an interval:

    Hajek        sum(right / p) / sum(1 / p)                                       (Hajek 1971)
    difference   mean confidence of the stream + mean of (right - confidence), by Hajek   (Saerndal et al. 1992, 6.3)

The difference estimator needs the confidences of the whole stream, and is the more precise the better they are
calibrated; it is right whether they are or not. Pure.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FEWEST = 30  # effective samples below which no interval is to be believed


class Estimate(NamedTuple):
    """An accuracy, 0..1, with its interval. `enough` is False when there is too little to say."""

    value: float
    low: float
    high: float
    labels: int
    effective: float  # labels of equal weight that would say as much (Kish 1965)

    @property
    def enough(self) -> bool:
        """Whether the interval can be believed."""
        return self.effective >= FEWEST


def hajek(right: NDArray[np.bool_], probability: NDArray[np.float64], *, confidence_level: float = 0.95) -> Estimate:
    """Accuracy on the stream from labelled samples alone.

    Args:
        right: (N,) whether the device's prediction was true.
        probability: (N,) of having been selected and labelled, in (0, 1].
        confidence_level: of the interval, 0..1.
    """
    return _weighted(right.astype(np.float64), probability, 0.0, confidence_level)


def difference(
    right: NDArray[np.bool_],
    confidence: NDArray[np.float64],
    probability: NDArray[np.float64],
    *,
    stream_confidence: float,
    confidence_level: float = 0.95,
) -> Estimate:
    """Accuracy on the stream from labelled samples and the mean confidence over all samples.

    Args:
        right: (N,) whether the device's prediction was true.
        confidence: (N,) what the device said of it, 0..1.
        probability: (N,) of having been selected and labelled, in (0, 1].
        stream_confidence: mean over every sample of the stream, sent or not.
        confidence_level: of the interval, 0..1.
    """
    return _weighted(right - confidence, probability, stream_confidence, confidence_level)


def _weighted(
    values: NDArray[np.float64], probability: NDArray[np.float64], offset: float, confidence_level: float
) -> Estimate:
    if len(values) == 0:
        return Estimate(offset, 0.0, 1.0, 0, 0.0)
    weight = 1.0 / probability
    total = float(weight.sum())
    mean = float((weight * values).sum()) / total
    # Linearised variance of the ratio under Poisson sampling (Saerndal et al. 1992, 5.8), with the usual n / (n - 1).
    spread = float(((1.0 - probability) * (weight * (values - mean)) ** 2).sum()) / total**2
    effective = total**2 / float((weight**2).sum())
    spread *= effective / max(effective - 1.0, 1e-9) if effective > 1.0 else 1.0
    half = NormalDist().inv_cdf(0.5 + confidence_level / 2.0) * spread**0.5
    value = offset + mean
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), len(values), effective)
