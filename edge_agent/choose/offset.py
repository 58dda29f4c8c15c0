"""Is the stream what the model was made for?

What a stream's level is, is held against the manifest's reference. What differs is told when it is sure in spite of how
few samples both have, and large enough to matter: with many samples everything differs a little.

The mix of classes differs from place to place, which is no fault; the embedding is therefore held against what the
manifest expects of the classes that the stream does show (its centres, weighted by the stream's shares).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.level import Layout, Level
from edge_agent.choose.signals import Signals
from edge_agent.contract.artifact import Reference

Floats = NDArray[np.float64]

SURE = 5.0  # standard errors: by chance once in a million; fewer alarm for nothing, more need longer levels
MATTERS = {  # the least offset that is told; smaller ones are found on any device, larger ones hide faults
    "confidence": 0.03,
    "energy": 0.25,  # standard deviations
    "classes": 0.15,  # total variation
    "embedding": 0.5,  # standard deviations, length of the difference
}


class Offset(msgspec.Struct, frozen=True):
    """How far a signal is from what the manifest expects.

    expected, found: of the signal; of classes and embedding 0 and `size`. size: in the units of MATTERS, with its sign
    where it has one; for the embedding, less what chance makes of it. errors: how sure that is, in standard errors.
    """

    signal: str
    expected: float
    found: float
    size: float
    errors: float

    @property
    def told(self) -> bool:
        """Sure, and large enough."""
        return self.errors >= SURE and abs(self.size) >= MATTERS[self.signal]


def offsets(level: Level, layout: Layout, signals: Signals, reference: Reference) -> list[Offset]:
    """Of every signal that the manifest has an expectation of."""
    mean, spread = level.mean, level.spread
    unsure = 1.0 / level.seen + level.group / max(1, reference.samples)  # in variances of a group
    found = [_scalar("confidence", reference.confidence_mean, mean[0], spread[0], unsure, 1.0)]
    if reference.energy_mean is not None:
        sd = float(spread[1]) * math.sqrt(level.group)
        found.append(_scalar("energy", reference.energy_mean, mean[1], spread[1], unsure, sd))
    share, expected = mean[layout.columns :], np.array(reference.class_share)
    fold = np.arange(len(expected)) % layout.classes
    known: Floats = np.bincount(fold, weights=expected, minlength=layout.classes).astype(np.float64)
    found.append(_classes(known, share, level, reference.samples))
    if len(signals.centres) == len(expected):
        centres = np.zeros((layout.classes, layout.directions))
        np.add.at(centres, fold, signals.centres * (expected / np.maximum(known[fold], 1e-12))[:, None])
        found.append(_embedding(share @ centres, known, level, layout, reference.samples))
    return found


def _scalar(signal: str, expected: float, found: float, spread: float, unsure: float, unit: float) -> Offset:
    away = float(found) - expected
    return Offset(signal, expected, float(found), away / (unit + 1e-9), abs(away) / (float(spread) * math.sqrt(unsure)))


def _classes(expected: Floats, share: Floats, level: Level, samples: int) -> Offset:
    """Pearson's statistic for two samples, the stream's as much wider as its groups are more alike than by chance."""
    seen = level.seen * level.group
    pooled = (share * seen + expected * samples) / (seen + samples) + 1e-12
    chance = pooled * (1.0 - pooled) / level.group
    wider = max(1.0, float((level.spread[-len(share) :] ** 2).sum() / (chance.sum() + 1e-12)))
    statistic = float((np.square(share - expected) / (pooled * (wider / seen + 1.0 / max(1, samples)))).sum())
    size = 0.5 * float(np.abs(share - expected).sum())
    return Offset("classes", 0.0, size, size, _errors(statistic, int((pooled > 1e-9).sum()) - 1))


def _embedding(expected: Floats, known: Floats, level: Level, layout: Layout, samples: int) -> Offset:
    """`expected`: (directions,) of the stream's classes. `known`: (classes,) their shares in the reference."""
    part = slice(layout.scalars, layout.columns)
    share = level.mean[layout.columns :]
    weight = float(
        (share * share / np.maximum(known, 1.0 / max(1, samples))).sum()
    )  # a rare class's centre says little
    variance = np.square(level.spread[part]) * (1.0 / level.seen + level.group * weight / max(1, samples))
    away = level.mean[part] - expected
    size = math.sqrt(max(0.0, float((away * away - variance).sum())))
    return Offset("embedding", 0.0, size, size, _errors(float((away * away / variance).sum()), layout.directions))


def _errors(statistic: float, freedom: int) -> float:
    """A chi-squared statistic in standard errors (Wilson and Hilferty 1931).

    >>> [round(_errors(x, 10), 2) for x in (9.342, 18.307, 29.588)]  # the quantiles of 50, 95 and 99.9 %
    [-0.0, 1.65, 3.07]
    """
    if freedom < 1:
        return 0.0
    spread = 2.0 / (9.0 * freedom)
    return (math.pow(statistic / freedom, 1.0 / 3.0) - 1.0 + spread) / math.sqrt(spread)
