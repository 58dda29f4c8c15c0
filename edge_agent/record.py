"""What became of every sample, and how does the running model do?"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.batch import Batch
from edge_agent.choose.acquisition import Scored
from edge_agent.choose.confidence import Confidence, Mean
from edge_agent.choose.selector import Chosen
from edge_agent.choose.tally import Tally
from edge_agent.contract.artifact import Manifest
from edge_agent.contract.wire import StreamCounts
from edge_agent.latency import KEPT, percentile_ms


class Vitals(msgspec.Struct, frozen=True):
    """How the running model does since it took over. invalid: sound samples for which it gave no finite logits."""

    version: int
    samples: int
    invalid: int
    latency_p50_ms: float
    latency_p95_ms: float
    confidence: Mean
    expected: float  # mean confidence by its manifest


class Record:
    """Since the start. Any thread may add, any may ask."""

    def __init__(self, about: Manifest, *, stream: str) -> None:
        """`about`: the model that begins."""
        self._lock = threading.Lock()  # held once a block
        self._tally = Tally(stream=stream, version=about.version, classes=len(about.outcomes))
        self._begin(about)

    def _begin(self, about: Manifest) -> None:
        self._about = about
        self._runs = self._invalid = 0
        self._latency_s: deque[float] = deque(maxlen=KEPT)
        self._confidence = Confidence()

    def model_changed(self, about: Manifest) -> None:
        """What is added from now on is another model's."""
        with self._lock:
            self._begin(about)
            self._tally.model_changed(version=about.version, classes=len(about.outcomes))

    def add(self, batch: Batch, scored: Scored, chosen: Sequence[Chosen]) -> None:
        """A block, and what is sent of it."""
        count = len(batch.readings)
        confidence, utility = scored.confidence[:count], scored.utility[:count]
        with self._lock:
            self._runs += count
            self._latency_s.extend(batch.took_s)
            self._tally.count(scored, chosen, count=count, through_seq=batch.readings[-1].seq)
            self._invalid += int(np.count_nonzero(np.isnan(confidence)))
            self._confidence.add(confidence[np.isfinite(utility)])

    def add_signals(self, sums: NDArray[np.int64]) -> None:
        """What a block looked like (drift.Watch.latest)."""
        with self._lock:
            self._tally.add_signals(sums)

    def add_recalled(self, count: int) -> None:
        """So many were sent out of the recent ring."""
        with self._lock:
            self._tally.recalled += count

    def skip(self) -> None:
        """A sample that could not even be given to the model."""
        with self._lock:
            self._tally.skip()

    @property
    def read(self) -> int:
        """Samples so far."""
        return self._tally.read

    def counts(self) -> StreamCounts:
        """What became of every sample since the start."""
        return self.said()[0]

    def said(self) -> tuple[StreamCounts, tuple[StreamCounts, ...]]:
        """The same with the cuts, of one moment."""
        with self._lock:
            return self._tally.counts(), self._tally.cuts()

    def vitals(self) -> Vitals:
        """How the running model does."""
        with self._lock:
            runs, invalid, about = self._runs, self._invalid, self._about
            seconds, confidence = list(self._latency_s), self._confidence.mean()
        p50_ms, p95_ms = (percentile_ms(seconds, share) for share in (0.5, 0.95))
        expected = about.reference.confidence_mean
        return Vitals(about.version, runs, invalid, p50_ms, p95_ms, confidence, expected)
