"""What gets whoever waits for each sample, and what does he wait for?

For a run of the model, and for nothing else: a block that is full is scored, chosen from and handed over by a thread of
its own, while the next one fills in another ring of the same model. Blocks are finished one after the other, so what is
selected is what the loop selects by itself. When both rings are full the caller waits for one: nothing is left out.

    caller    sample -> row of a ring -> model -> Prediction          full ->|   <- empty
    behind                                                                   finish
"""

from __future__ import annotations

import math
import threading
import time
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from edge_agent.batch import Batch
from edge_agent.choose.acquisition import top
from edge_agent.choose.tasks.scoring import answer_of
from edge_agent.contract.errors import EdgeError
from edge_agent.contract.types import Prediction, Reading
from edge_agent.loop import Loop
from edge_agent.model import Model


class Answers:
    """The loop, one sample at a time, for one caller at a time."""

    def __init__(self, loop: Loop) -> None:
        """What waits in a block is let go on as the loop would, whoever asks or not."""
        self._loop = loop
        self._turn = threading.Lock()  # of whoever has the batch that fills
        self._full: SimpleQueue[Batch | None] = SimpleQueue()
        self._empty: SimpleQueue[Batch] = SimpleQueue()
        self._over = False  # nothing more is taken in
        self._failed: Exception | None = None  # of the thread behind
        self._told = False  # of it, to the caller
        self._busy = False  # the thread behind, with a block
        self._begin(loop.model)
        self._behind = threading.Thread(target=self._work, name="blocks", daemon=True)
        self._behind.start()

    def _begin(self, model: Model) -> None:
        self._batch = Batch(model.twin())
        self._empty.put(Batch(model.twin()))
        self._speech = Speech(model)

    @property
    def model(self) -> Model:
        """The one that the next sample is for."""
        return self._batch.model

    def of(self, x: NDArray[np.generic], seq: int, ref: str = "", mark: str = "") -> Prediction | None:
        """What the model says of a sample, which is copied. `seq`, `ref`, `mark`: as of a Reading.

        None, and nothing is counted, when it does not fit. What failed is raised, once; EdgeError from then on.
        """
        with self._turn:
            batch = self._batch
            model, row = batch.model, len(batch.readings)
            if self._over:
                self._refuse()
            if x.shape != model.shape or x.dtype != model.dtype:
                return None
            place, infer = model.steps[row]
            began_s = time.perf_counter()
            place[...] = x
            try:
                if infer is not None:  # always: a twin infers one by one
                    infer()
            except Exception:
                self._over = True
                raise
            ended_s = time.perf_counter()
            batch.readings.append(Reading(place, seq, ref, mark))
            batch.began_s.append(began_s)
            batch.took_s.append(ended_s - began_s)
            said = self._speech.of(model, row)
            if row == model.rows - 1 or ended_s - batch.began_s[0] > self._loop.flush_s:
                self._turn_over()
            return said

    def idle(self) -> None:
        """Nothing comes, and nothing is stuck."""
        if self._over:
            self._refuse()
        if not self._busy:
            self._loop.pulse.beat()

    def close(self) -> None:
        """Finish what is in hand, and let the state be kept. Called once; raises what failed, if nobody knows yet."""
        with self._turn:
            self._over = True
            self._full.put(self._batch)
            self._full.put(None)
        self._behind.join()
        if self._failed is None:
            self._loop.keep()
        elif not self._told:
            raise self._failed

    def _refuse(self) -> None:
        if self._failed is not None and not self._told:
            self._told = True
            raise self._failed
        raise EdgeError("this agent failed before: open it again")

    # --- behind ---

    def _turn_over(self) -> None:
        """Go on in the other ring, as soon as it is free; with another model only when all of this one is finished."""
        self._over = True  # whatever interrupts the wait
        self._full.put(self._batch)
        self._batch = self._empty.get()
        if self._loop.coming is not self._loop.model:
            self._empty.put(self._empty.get())  # what was just handed over is finished
            self._take_over()
        self._over = self._failed is not None

    def _take_over(self) -> None:
        """Another model goes on, in rings of its own; both of this one's are here."""
        self._empty.get()
        self._loop.take_over()
        self._begin(self._loop.model)

    def _work(self) -> None:
        try:
            while (batch := self._next()) is not None:
                self._busy = True
                self._loop.finish(batch)
                self._busy = False
                self._empty.put(batch)
        except Exception as error:  # noqa: BLE001 - raised to the caller, in his thread
            self._failed, self._over = error, True
            for _ in range(2):  # he may wait for them
                self._empty.put(Batch(self._loop.model))

    def _next(self) -> Batch | None:
        """A full block, or one that has waited for long enough; None: it is over."""
        while True:
            try:
                return self._full.get(timeout=self._loop.flush_s)
            except Empty:
                pass
            if not self._turn.acquire(blocking=False):
                continue  # whoever is in a call looks to it himself, and may wait for this thread
            try:
                if (batch := self._waiting()) is not None:
                    return batch
            finally:
                self._turn.release()

    def _waiting(self) -> Batch | None:
        """What has filled for long enough; where nobody asks an empty one, for the orders that came."""
        self._loop.pulse.beat()  # here, where no call is stuck
        batch, flush_s = self._batch, self._loop.flush_s
        if not self._full.empty() or (batch.readings and not batch.has_waited(flush_s)):
            return None
        if not batch.readings and self._loop.coming is not self._loop.model:
            self._take_over()
        batch, self._batch = self._batch, self._empty.get()
        return batch


class Speech:
    """What a model says of one sample, as a block's pass will say it."""

    def __init__(self, model: Model) -> None:
        self._about = model.manifest
        self._classifies = model.manifest.task == "classification"
        self._inverse_temperature = 1.0 / model.manifest.temperature

    def of(self, model: Model, row: int) -> Prediction:
        """Of the sample in that row of its ring; the confidence is NaN where the graph has hidden one that is."""
        if self._classifies:
            label, confidence = top(model.logits[row], inverse_temperature=self._inverse_temperature)
            return Prediction(label, confidence if model.is_sound(row) else math.nan)
        further = None if model.further is None else model.further[row]
        said = answer_of(self._about, model.logits[row], further)
        return said if model.is_sound(row) else said._replace(confidence=math.nan)
