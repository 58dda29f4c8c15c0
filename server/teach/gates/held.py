"""How right was whom on which held-out sample, and what is known of it?

A sample's score is 0..1 (contract/score.py): of a class 1 or 0, of boxes, numbers or several classes what lies between.
Samples are of two kinds. *Imported* ones are what the champion was made to know; each counts alike. *Stream* samples
are the audit: taken at the floor, that is with a probability p that does not depend on what they show. Weighted by 1/p
they stand for the whole stream, not for what was asked about. Where budgets differ some weigh more, so evidence is
counted in effective samples. The audit grows from round to round, and rounds begin when they like: its intervals hold
at any time (paired.py). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from server.teach.gates import paired
from server.teach.gates.paired import Difference, Floats

Names = NDArray[np.str_]
Scores = NDArray[np.float64] | NDArray[np.bool_]

FLIP = 0.5  # of a score, that more than is lost: a sample that was right and is wrong now


@dataclass(frozen=True)
class Held:
    """The held-out samples, one row each, and how right each model was."""

    candidate: Scores  # (N,)
    champion: Scores  # (N,); all 0 when there is none
    stream: NDArray[np.bool_]  # (N,) from a device; otherwise imported
    probability: Floats  # (N,) of selection by the floor, in (0, 1]; 1 for imports
    device: Names  # (N,)
    label: Names  # (N,) names of the true classes; "" where a sample has not the one
    slices: Mapping[str, Names] = field(default_factory=dict)  # kind -> (N,) which slice it is in; "": in none
    shows: Mapping[str, NDArray[np.bool_]] = field(
        default_factory=dict
    )  # class -> (N,) where a sample may show several

    @property
    def weight(self) -> Floats:
        """(N,) how much of its stream each stands for."""
        return 1.0 / self.probability

    @property
    def change(self) -> Floats:
        """(N,) what the candidate scores more, -1..1; of classes 1: only it is right; -1: only the champion."""
        return np.asarray(self.candidate, np.float64) - np.asarray(self.champion, np.float64)

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """(N,) whether the candidate lost more than half of a score: of a class, that it is wrong now and was right."""
        flipped: NDArray[np.bool_] = self.change < -FLIP
        return flipped

    def of(self, rows: NDArray[np.bool_]) -> Held:
        """Some of the rows."""
        maps = ("slices", "shows")
        arrays = {one.name: getattr(self, one.name)[rows] for one in fields(self) if one.name not in maps}
        slices, shows = ({key: values[rows] for key, values in getattr(self, name).items()} for name in maps)
        return Held(**arrays, slices=slices, shows=shows)

    def difference(self, *, confidence: float) -> Difference:
        """Of mean scores: of classes the share that only the candidate has right, less what only the champion has."""
        return self.mean(self.change, confidence=confidence)

    def mean(self, values: NDArray[np.generic], *, confidence: float) -> Difference:
        """Of values (N,) in -1..1, by the interval that these samples call for."""
        interval = paired.anytime if self.stream.any() else paired.fixed
        return interval(values, self.weight, confidence=confidence)
