"""How accurate is the fleet, on everything it sees?

Samples that were sent were chosen for being hard: their plain accuracy is wrong by tens of points. Every one came with
the probability p of its selection, though, and the devices say of all their samples, sent or not, how many there were
in each bin of utility and how confident the model was of them. With that the accuracy on the whole stream is estimated
without bias, and with an interval:

    Hajek            sum(right / p) / sum(1 / p)                                               (Hajek 1971)
    difference       mean confidence of the stream + Hajek of (right - confidence)    (Saerndal et al. 1992, 6.3)
    post-stratified  the same in each stratum of utility, by how much of the stream is in it          (ibid. 7.6)

All are right whether the confidences are calibrated or not, and the more precise the better they are. The last also is
where they are off, and is what is reported. None can be more precise than p allows: what was sent with a small p and
turns out a mistake stands for many, and no estimator knows whether those are. For the same reason the variance rests on
fewer labels than there are: it is reduced of the bias that this has, and counts as so many degrees of freedom (Bell and
McCaffrey 2002). Of boxes, numbers and several classes the share is the mean score (contract/score.py); the intervals,
made for what is right or wrong, are then no shorter than they need be: a mean of values in 0..1 varies most where all
are 0 or 1. Pure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.audit.interval import limits

Floats = NDArray[np.float64]
Scores = NDArray[np.bool_] | Floats

FEWEST = 15  # effective labels; below, intervals were not found to hold, and would say next to nothing
LEFT_MIN = 1e-9  # of a label that is alone, whose residual is 0: it is divided by
STRATUM = 20.0  # effective labels in a stratum: fewer and its variance is a guess, more and it is not of one kind


class Estimate(NamedTuple):
    """A share of the stream, 0..1, with its interval. `enough` is False when there is too little to say."""

    value: float
    low: float
    high: float
    labels: int
    effective: float  # labels of equal weight that would say as much (Kish 1965)

    @property
    def enough(self) -> bool:
        """Whether the interval can be believed."""
        return self.effective >= FEWEST

    @property
    def missing(self) -> int:
        """About how many more labels, chosen as these were, would be enough; 0 when they are."""
        if self.enough:
            return 0
        worth = self.effective / self.labels if self.labels else 1.0
        return math.ceil((FEWEST - self.effective) / worth)


class Stream(NamedTuple):
    """What is known of every sample, by bins of utility; each (B,)."""

    samples: Floats
    confidence: Floats  # summed


NOTHING = Estimate(math.nan, 0.0, 1.0, 0, 0.0)


def hajek(right: Scores, probability: Floats, *, confidence_level: float = 0.95) -> Estimate:
    """The share of the stream that is right, from labelled samples alone.

    Args:
        right: (N,) how right the device's prediction was, 0..1; of a class whether it was true.
        probability: (N,) of having been selected and labelled, in (0, 1].
        confidence_level: of the interval, 0..1.
    """
    nothing = np.zeros(len(right))
    return difference(right, nothing, probability, stream_confidence=0.0, confidence_level=confidence_level)


def difference(
    right: Scores,
    confidence: Floats,
    probability: Floats,
    *,
    stream_confidence: float,
    confidence_level: float = 0.95,
) -> Estimate:
    """Accuracy on the stream from labelled samples and the mean confidence over all samples.

    Args:
        right: (N,) how right the device's prediction was, 0..1; of a class whether it was true.
        confidence: (N,) what the device said of it, 0..1.
        probability: (N,) of having been selected and labelled, in (0, 1].
        stream_confidence: mean over every sample of the stream, sent or not.
        confidence_level: of the interval, 0..1.
    """
    if not len(right):
        return NOTHING
    part = _Part.of(right - confidence, probability)
    return _estimate([(1.0, stream_confidence, part)], len(right), confidence_level)


def post_stratified(
    right: Scores,
    confidence: Floats,
    probability: Floats,
    bins: NDArray[np.int64],
    *,
    stream: Stream,
    confidence_level: float = 0.95,
) -> Estimate:
    """The difference estimator in strata: neighbouring bins together until their labels are worth STRATUM.

    Args:
        right: (N,) how right the device's prediction was, 0..1; of a class whether it was true.
        confidence: (N,) what the device said of it, 0..1.
        probability: (N,) of having been selected and labelled, in (0, 1].
        bins: (N,) of the utility, 0..B-1.
        stream: of every sample, sent or not.
        confidence_level: of the interval, 0..1.
    """
    if not len(right) or not stream.samples.sum():
        return NOTHING
    of_bin = _strata(bins, 1.0 / probability, len(stream.samples))
    stratum = of_bin[bins]
    samples, sure = np.bincount(of_bin, stream.samples), np.bincount(of_bin, stream.confidence)
    parts = []
    for s in range(len(samples)):
        mine = stratum == s
        if samples[s] > 0:
            part = _Part.of((right - confidence)[mine], probability[mine])
            parts.append((float(samples[s] / samples.sum()), float(sure[s] / samples[s]), part))
    return _estimate(parts, len(right), confidence_level)


class _Part(NamedTuple):
    """A weighted mean over the labels of one stratum."""

    mean: float
    variance: float
    free: float  # degrees of freedom of the variance; inf where there is nothing that it would have to be estimated of
    unit: float  # what one more of average weight adds
    effective: float

    @classmethod
    def of(cls, values: Floats, probability: Floats) -> _Part:
        weight = 1.0 / probability
        share = weight / weight.sum()
        mean = float(share @ values)
        effective = 1.0 / float((share**2).sum())
        # Linearised variance of the ratio under Poisson sampling (Saerndal et al. 1992, 5.8). A label pulls the mean
        # towards itself by its share, and its residual is too small by `left`, most where most of the weight is.
        left = np.maximum(1.0 - 2.0 * share + 1.0 / effective, LEFT_MIN)
        pull = (1.0 - probability) * share**2 / left
        variance = float(pull @ (values - mean) ** 2)
        unit = float(((1.0 - probability) * share**2).sum())
        return cls(mean, variance, _free(pull, share), unit, effective)


def _free(pull: Floats, share: Floats) -> float:
    """Degrees of freedom of sum(pull * residual^2) about the mean by `share`, (N,) each.

    Satterthwaite's, 2 E^2 / Var, were all values of one normal distribution (Bell and McCaffrey, Survey Methodology
    28(2), 2002). Residuals then have the covariances (i is j) - share_i - share_j + sum(share^2).
    """
    squares = float((share**2).sum())
    total, first, second = float(pull.sum()), float(pull @ share), float(pull @ share**2)
    expected = float(pull @ (1.0 - 2.0 * share + squares))
    alone = float(pull**2 @ (1.0 + 2.0 * (squares - 2.0 * share)))
    pairs = squares**2 * total**2 - 4.0 * squares * total * first + 2.0 * total * second + 2.0 * first**2
    return expected**2 / (alone + pairs) if expected > 0.0 else math.inf


def _estimate(parts: list[tuple[float, float, _Part]], labels: int, confidence_level: float) -> Estimate:
    """Of strata: (share of the stream, mean confidence there, what the labels add to it)."""
    value = sum(share * (sure + part.mean) for share, sure, part in parts)
    value = min(1.0, max(0.0, value))
    variance = sum(share**2 * part.variance for share, _, part in parts)
    unsure = sum((share**2 * part.variance) ** 2 / part.free for share, _, part in parts)
    free = max(1.0, variance**2 / unsure) if unsure > 0.0 else math.inf  # of the sum (Welch 1947)
    unit = sum(share**2 * part.unit for share, _, part in parts)
    effective = 1.0 / sum(share**2 / part.effective for share, _, part in parts)
    low, high = limits(value, variance, unit, confidence_level=confidence_level, free=free, alike=effective - 1.0)
    return Estimate(value, low, high, labels, effective)


def _strata(bins: NDArray[np.int64], weight: Floats, count: int) -> NDArray[np.int64]:
    """(B,) the stratum of each bin; each holds labels that are worth STRATUM, or there is only one."""
    total, squares = np.bincount(bins, weight, count), np.bincount(bins, weight**2, count)
    stratum = np.zeros(count, np.int64)
    begin, number = 0, 0
    for end in range(1, count + 1):
        sums = total[begin:end].sum(), squares[begin:end].sum()
        if sums[1] and sums[0] ** 2 / sums[1] >= STRATUM:
            stratum[begin:end] = number
            begin, number = end, number + 1
    stratum[begin:] = max(0, number - 1)  # what is left at the end is not worth a stratum of its own
    return stratum
