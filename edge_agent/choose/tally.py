"""What was not sent?

The server can only say how the fleet does when it also knows of the samples that stayed on the device: how many, how
confident the model was, which classes it saw. Counts since the agent started; the heartbeat carries them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.selector import Chosen
from edge_agent.contract.wire import StreamCounts

BINS = 20  # of the histogram of utility over 0..1; unbounded utilities fall into the outer ones
NOTES = 2048  # samples noted before they are counted in one pass: fewer cost more each, more is memory for nothing


class Tally:
    """Counts every sample once: read = scored + invalid, scored = selected + unsent."""

    def __init__(self, *, classes: int) -> None:
        """`classes`: of the model; more may come with a later one, none go."""
        self.read = 0
        self.selected: dict[str, int] = {}
        self._invalid = 0
        self._confidence_sum = 0.0
        self._histogram = np.zeros(BINS, np.int64)
        self._classes = np.zeros(classes, np.int64)
        self._noted = 0
        self._notes: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]] = []
        self._sent: list[int] = []  # of the samples noted, those that were selected

    @property
    def invalid(self) -> int:
        """Samples that could not be scored."""
        self._sum_up()
        return self._invalid

    def grow(self, classes: int) -> None:
        """Make room for a model of more classes."""
        if classes > len(self._classes):
            self._classes = np.concatenate([self._classes, np.zeros(classes - len(self._classes), np.int64)])

    def count(self, scored: Scored, chosen: Sequence[Chosen], *, count: int) -> None:
        """Count the first `count` rows of a block."""
        self.read += count
        for row, selection in chosen:
            self.selected[selection.reason] = self.selected.get(selection.reason, 0) + 1
            self._sent.append(self._noted + row)
        self._noted += count
        self._notes.append((scored.utility[:count], scored.confidence[:count], scored.label[:count]))
        if self._noted >= NOTES:
            self._sum_up()

    def _sum_up(self) -> None:
        """Count what is noted."""
        if not self._notes:
            return
        utility, confidence, label = (np.concatenate(parts) for parts in zip(*self._notes, strict=True))
        unsent = np.isfinite(utility)
        self._invalid += len(utility) - int(np.count_nonzero(unsent))
        unsent[self._sent] = False
        self._confidence_sum += float(confidence[unsent].sum(dtype=np.float64))
        bins = np.clip(utility[unsent] * BINS, 0, BINS - 1).astype(np.int64)
        self._histogram += np.bincount(bins, minlength=BINS)
        self._classes += np.bincount(label[unsent], minlength=len(self._classes))
        self._noted = 0
        self._notes.clear()
        self._sent.clear()

    def skip(self, count: int = 1) -> None:
        """Count samples that could not even be given to the model."""
        self.read += count
        self._invalid += count

    def counts(self) -> StreamCounts:
        """What the heartbeat says."""
        self._sum_up()
        return StreamCounts(
            read=self.read,
            scored=self.read - self._invalid,
            invalid=self._invalid,
            selected=dict(self.selected),
            unsent_confidence_sum=self._confidence_sum,
            unsent_utility_histogram=tuple(self._histogram.tolist()),
            unsent_classes=tuple(self._classes.tolist()),
        )
