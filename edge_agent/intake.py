"""How do the readings of a source become blocks?

    reading -> row of the ring -> model -> (block full, or its time is up) -> loop.py

For sources behind which nobody waits for an answer; where somebody does, answers.py fills the blocks. What was read
from a source that failed stays in hand, and is finished by the next `run`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge_agent.batch import Batch
from edge_agent.contract.types import Reading
from edge_agent.loop import Loop
from edge_agent.model import Model

if TYPE_CHECKING:
    from edge_agent.shadow import Shadow


class Intake:
    """Fills the one ring of the loop's model, and has each block finished before the next begins."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._batch = Batch(loop.model)
        self._steps = loop.model.steps
        self._company: tuple[Shadow | None, Model] = (None, loop.model)
        self._accompany()

    def run(self, readings: Iterator[Reading | None], stopping: threading.Event) -> None:
        """Take readings until they end or `stopping` is set; what is in hand is finished first, and the state kept."""
        clock, batch, flush_s = time.perf_counter, self._batch, self._loop.flush_s
        block, began_s, took_s = batch.readings, batch.began_s, batch.took_s
        model, steps = batch.model, self._steps
        shape, dtype, last = model.shape, model.dtype, model.rows - 1
        due_s = 0.0
        for reading in readings:
            if reading is None:
                self._idle(stopping)
            elif reading.data.shape != shape or reading.data.dtype != dtype:
                self._loop.refuse(reading, first=not block)
            else:  # each sample passes here: every call counts
                row = len(block)
                place, infer = steps[row]
                now = clock()
                place[...] = reading.data
                block.append(reading)
                began_s.append(now)
                if row == 0:
                    due_s = now + flush_s
                if infer is not None:
                    infer()
                    ended = clock()
                    took_s.append(ended - now)
                    now = ended
                if row < last and now <= due_s:
                    continue
                self._finish()
            if not block:
                if stopping.is_set():
                    break
                if steps is not self._steps:
                    model, steps = batch.model, self._steps
                    shape, dtype, last = model.shape, model.dtype, model.rows - 1
        self._finish()
        self._loop.keep()

    def _idle(self, stopping: threading.Event) -> None:
        loop, batch = self._loop, self._batch
        loop.pulse.beat()  # a block may be let wait for longer than a watchdog does
        if not batch.readings or batch.has_waited(loop.flush_s) or stopping.is_set():
            self._finish()

    def _finish(self) -> None:
        loop, batch = self._loop, self._batch
        if (beside := self._company[0]) is not None:
            beside.deduct(batch.took_s)
        batch.infer_rest()
        loop.finish(batch)
        loop.take_over()
        batch.model = loop.model
        self._accompany()

    def _accompany(self) -> None:
        """A shadow model sees its samples within the steps of the running one; without it they are what they were."""
        batch, beside = self._batch, self._loop.extras.beside
        model = batch.model
        if (beside, model) != self._company:
            self._company = (beside, model)
            self._steps = beside.between(model.steps, batch.readings, batch.took_s) if beside else model.steps
