"""Who looks out for drift while the loop goes on, and who is told?"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_agent.batch import Batch
from edge_agent.choose.acquisition import Scored
from edge_agent.choose.drift import Alarm, Watch
from edge_agent.contract.wire import DriftState
from edge_agent.model import Model


class Lookout:
    """`state` may be asked from any thread, the rest is for the loop's."""

    def __init__(self, watch: Watch | None, *, on_alarm: Callable[[Alarm], None]) -> None:
        """None: nobody looks."""
        self._watch, self._on_alarm = watch, on_alarm
        self._lock = threading.Lock()  # held once a block

    def pass_time(self, seconds: float) -> None:
        """How long the stream takes."""
        if self._watch is not None:
            self._watch.pass_time(seconds)

    def look(self, batch: Batch, scored: Scored) -> NDArray[np.int64]:
        """At a block; the sums of its signals (Watch.latest), () when nobody looks."""
        watch, model = self._watch, batch.model
        if watch is None:
            return np.zeros(0, np.int64)
        with self._lock:
            alarm = watch.look(scored, model.logits, model.embedding, count=len(batch.readings))
        if alarm is not None:
            self._on_alarm(alarm)
        return watch.latest

    def meet(self, model: Model) -> None:
        """Another model goes on."""
        if self._watch is not None:
            with self._lock:
                self._watch.model_changed(model.manifest, embedding=model.embedding is not None)

    def state(self) -> DriftState | None:
        """Whether the stream is as it was; None when nobody looks."""
        if self._watch is None:
            return None
        with self._lock:
            return self._watch.state

    def save(self) -> bytes:
        """The state; b"" when nobody looks."""
        return b"" if self._watch is None else self._watch.save()
