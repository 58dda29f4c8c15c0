"""Who was right on which held-out sample, and what is known of it?

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


@dataclass(frozen=True)
class Held:
    """The held-out samples, one row each, and who was right."""

    candidate: NDArray[np.bool_]  # (N,)
    champion: NDArray[np.bool_]  # (N,); all False when there is none
    stream: NDArray[np.bool_]  # (N,) from a device; otherwise imported
    probability: Floats  # (N,) of selection by the floor, in (0, 1]; 1 for imports
    device: Names  # (N,)
    label: Names  # (N,) names of the true classes
    slices: Mapping[str, Names] = field(default_factory=dict)  # kind -> (N,) which slice it is in; "": in none

    @property
    def weight(self) -> Floats:
        """(N,) how much of its stream each stands for."""
        return 1.0 / self.probability

    @property
    def change(self) -> NDArray[np.int8]:
        """(N,) 1: only the candidate is right; -1: only the champion; 0: they agree."""
        return self.candidate.astype(np.int8) - self.champion.astype(np.int8)

    def of(self, rows: NDArray[np.bool_]) -> Held:
        """Some of the rows."""
        arrays = {one.name: getattr(self, one.name)[rows] for one in fields(self) if one.name != "slices"}
        return Held(**arrays, slices={kind: values[rows] for kind, values in self.slices.items()})

    def difference(self, *, confidence: float) -> Difference:
        """Of accuracies: the share that only the candidate has right, less the share that only the champion has."""
        return self.mean(self.change, confidence=confidence)

    def mean(self, values: NDArray[np.generic], *, confidence: float) -> Difference:
        """Of values (N,) in -1..1, by the interval that these samples call for."""
        interval = paired.anytime if self.stream.any() else paired.fixed
        return interval(values, self.weight, confidence=confidence)
