"""What was not sent?

The server can only say how the fleet does when it also knows of the samples that stayed on the device: how many, how
confident the model was, which classes it saw. Counts since the agent started; the heartbeat carries them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.selector import Chosen
from edge_agent.contract.wire import StreamCounts

BINS = 20  # of the histogram of utility over 0..1; unbounded utilities fall into the outer ones


class Tally:
    """Counts every sample once: read = scored + invalid, scored = selected + unsent."""

    def __init__(self, *, classes: int) -> None:
        """`classes`: of the model; more may come with a later one, none go."""
        self.read = 0
        self.invalid = 0
        self.selected: dict[str, int] = {}
        self.recalled = 0  # sent later, out of the recent ring; counted as unsent when they were read
        self._confidence_sum = 0.0
        self._histogram = np.zeros(BINS, np.int64)
        self._classes = np.zeros(classes, np.int64)

    def grow(self, classes: int) -> None:
        """Make room for a model of more classes."""
        if classes > len(self._classes):
            self._classes = np.concatenate([self._classes, np.zeros(classes - len(self._classes), np.int64)])

    def count(self, scored: Scored, chosen: Sequence[Chosen], *, count: int) -> None:
        """Count the first `count` rows of a block."""
        utility = scored.utility[:count]
        unsent = np.isfinite(utility)
        self.read += count
        self.invalid += count - int(unsent.sum())
        for row, selection in chosen:
            unsent[row] = False
            self.selected[selection.reason] = self.selected.get(selection.reason, 0) + 1
        self._confidence_sum += float(scored.confidence[:count][unsent].sum())
        bins = np.clip((utility[unsent] * BINS).astype(np.int64), 0, BINS - 1)
        self._histogram += np.bincount(bins, minlength=BINS)
        self._classes += np.bincount(scored.label[:count][unsent], minlength=len(self._classes))

    def skip(self, count: int = 1) -> None:
        """Count samples that could not even be given to the model."""
        self.read += count
        self.invalid += count

    def counts(self) -> StreamCounts:
        """What the heartbeat says."""
        return StreamCounts(
            read=self.read,
            scored=self.read - self.invalid,
            invalid=self.invalid,
            selected=dict(self.selected),
            unsent_confidence_sum=self._confidence_sum,
            unsent_utility_histogram=tuple(self._histogram.tolist()),
            unsent_classes=tuple(self._classes.tolist()),
            recalled=self.recalled,
        )
