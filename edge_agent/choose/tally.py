"""What did the stream look like, sent or not?

The server can only say how the fleet does when it also knows of the samples that stayed on the device: how many, how
confident the model was, which classes it saw. Counts since the agent started; the heartbeat carries them, and with
them the sequence number up to which they go, so that the server can tell which samples they are about without a clock.

When a model gives way, the counts as they stood are kept as a *cut*: a heartbeat that was lost, or came late, loses
the border between two models as little as the counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.acquisition import Scored
from edge_agent.choose.selector import Chosen
from edge_agent.contract.wire import StreamCounts

BINS = 20  # of the histogram of utility over 0..1; unbounded utilities fall into the outer ones
NOTES = 2048  # samples noted before they are counted in one pass: fewer cost more each, more is memory for nothing
CLASSES = 2000  # of a model that are counted one by one: with more, a heartbeat would be longer than one may be
CUTS = 2  # kept: fewer loses a border when a trial ends between two heartbeats, more makes every heartbeat longer


def bin_of(utility: NDArray[np.floating]) -> NDArray[np.int64]:
    """(N,) the bin of each finite utility; the same wherever it is asked, device or server.

    >>> bin_of(np.array([-3.0, 0.0, 0.051, 1.0, 7.0])).tolist()
    [0, 0, 1, 19, 19]
    """
    scaled = utility.astype(np.float32) * np.float32(BINS)
    bins: NDArray[np.int64] = np.clip(scaled, 0, BINS - 1).astype(np.int64)
    return bins


class Tally:
    """Counts every sample once: read = scored + invalid, scored = selected + unsent."""

    def __init__(self, *, stream: str, version: int, classes: int) -> None:
        """`version` and `classes`: of the model that begins; more classes may come with a later one, none go."""
        self.read = 0
        self._skipped = 0
        self.selected: dict[str, int] = {}
        self.recalled = 0  # sent later, out of the recent ring; counted as unsent when they were read
        self._stream = stream
        self._version = version
        self._epoch = 0
        self._through_seq = -1
        self._cuts: deque[StreamCounts] = deque(maxlen=CUTS)
        self._scored, self._sent = _Sums(classes), _Sums(classes)
        self._signals = np.zeros(0, np.int64)

    def model_changed(self, *, version: int, classes: int) -> None:
        """What is counted from now on is another model's."""
        # What nobody asks of a cut would make the heartbeat of a model with as many CLASSES longer than it may be.
        self._cuts.append(
            msgspec.structs.replace(
                self.counts(), unsent_classes=(), unsent_utility_histogram=(), unsent_confidence_sum=0.0
            )
        )
        self._epoch += 1
        self._version = version
        self._scored.grow(classes)
        self._sent.grow(classes)

    def count(self, scored: Scored, chosen: Sequence[Chosen], *, count: int, through_seq: int) -> None:
        """Count the first `count` rows of a block, the last of which is number `through_seq` of the stream."""
        self._through_seq = through_seq
        self.read += count
        self._scored.note(scored, slice(count))
        if chosen:
            self._sent.note(scored, np.array([row for row, _ in chosen]))
        for _, selection in chosen:
            self.selected[selection.reason] = self.selected.get(selection.reason, 0) + 1

    def add_signals(self, sums: NDArray[np.int64]) -> None:
        """Add what a block looked like (drift.Watch.latest)."""
        grown = np.zeros(max(len(self._signals), len(sums)), np.int64)  # a model may have more directions than another
        grown[: len(self._signals)] = self._signals
        grown[: len(sums)] += sums
        self._signals = grown

    def skip(self, count: int = 1) -> None:
        """Count samples that could not even be given to the model."""
        self.read += count
        self._skipped += count

    def counts(self) -> StreamCounts:
        """What the heartbeat says."""
        scored, sent = self._scored, self._sent
        scored.add_up()
        sent.add_up()
        invalid = self._skipped + scored.unusable
        return StreamCounts(
            read=self.read,
            scored=self.read - invalid,
            invalid=invalid,
            selected=dict(self.selected),
            unsent_confidence_sum=float(scored.confidence.sum() - sent.confidence.sum()),
            unsent_utility_histogram=tuple((scored.histogram - sent.histogram).tolist()),
            unsent_classes=tuple((scored.classes - sent.classes).tolist()),
            stream=self._stream,
            through_seq=self._through_seq,
            model_version=self._version,
            epoch=self._epoch,
            utility_histogram=tuple(scored.histogram.tolist()),
            confidence_sums=tuple(scored.confidence.tolist()),
            classes=tuple(scored.classes.tolist()),
            signals=tuple(self._signals.tolist()),
            recalled=self.recalled,
        )

    def cuts(self) -> tuple[StreamCounts, ...]:
        """The counts as they stood when the last models gave way, oldest first."""
        return tuple(self._cuts)


class _Sums:
    """Over some of the samples: histogram of utility, confidence by the same bins, predicted classes.

    They are noted first, and added up when there are many, or somebody asks: a pass over few costs as much.
    """

    def __init__(self, classes: int) -> None:
        self.unusable = 0
        self.histogram = np.zeros(BINS, np.int64)
        self.confidence = np.zeros(BINS)
        self._noted = 0
        self._notes: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]] = []
        self.classes = np.zeros(0, np.int64)
        self.grow(classes)

    def grow(self, classes: int) -> None:
        """What is noted from now on is of a model of so many; of too many the counts stay as they are."""
        self.add_up()
        self._by_class = classes <= CLASSES
        if self._by_class:
            self.classes = np.pad(self.classes, (0, max(0, classes - len(self.classes))))

    def note(self, scored: Scored, rows: slice | NDArray[np.intp]) -> None:
        utility = scored.utility[rows]
        self._notes.append((utility, scored.confidence[rows], scored.label[rows]))
        self._noted += len(utility)
        if self._noted >= NOTES:
            self.add_up()

    def add_up(self) -> None:
        if not self._notes:
            return
        utility, confidence, label = (np.concatenate(parts) for parts in zip(*self._notes, strict=True))
        usable = np.isfinite(utility)
        self.unusable += len(usable) - int(np.count_nonzero(usable))
        bins = bin_of(utility[usable])
        self.histogram += np.bincount(bins, minlength=BINS)
        self.confidence += np.bincount(bins, confidence[usable], minlength=BINS)
        if self._by_class:
            self.classes += np.bincount(label[usable], minlength=len(self.classes))
        self._notes.clear()
        self._noted = 0
