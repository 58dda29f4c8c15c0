"""How do samples get their labels?

A thread asks the labeler about what waits in the store, in batches, and keeps the answers. It looks when it is woken
(new samples), and again a while after a failure. A labeler that fails costs time, never a sample: nothing is marked
before its answer is committed.

With `labels_per_day` any 24 hours see at most so many questions; what they leave unasked waits, and what shows the
same as something answered is spared. Which are asked, and with what probability, chooser.py says; without a budget all
are, in the end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from edge_agent.contract.artifact import Manifest
from server.errors import LabelError, StoreError
from server.label.chooser import Asked, Chooser
from server.label.labeler import Answer, Labeler, Question, ask
from server.store import labels
from server.store.samples import body_names, sample_array
from server.store.store import Store

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
BUDGET_LOOK_S = 60.0  # between looks whether the budget has room again
BUDGET_PAUSE_S = 1.0  # after a look under a budget: none, and every new sample costs a look at all that waits
PLANS_A_DAY = 48  # fewer lets questions wait for hours, more makes every choice small, and dear for what it chooses
LEAST_PICKS = 10  # of a plan, or a quarter of the day's: fewer are hardly a choice, more leave room unused for longer
PERSON_S = 0.1  # an answer, on average: lower takes a program's jitter for a price, higher misses a quick person
RETRY_S = 5.0  # shorter hammers a labeler that is down, longer leaves samples lying after it is back


class Labelling:
    """Asks one labeler, until there is nothing to ask or it is stopped."""

    def __init__(
        self,
        store: Store,
        labeler: Labeler,
        *,
        name: str,
        batch: int,
        now_ms: Callable[[], int],
        strategy: str = "auto",
        labels_per_day: int = 0,
        exploration: float = 0.1,
        duplicate_cosine: float = 0.995,
        rng: np.random.Generator | None = None,
    ) -> None:
        """`name` is kept with every answer; `labels_per_day` 0 is no budget; the others are for Chooser."""
        self._store = store
        self._labeler = labeler
        self._name = name
        self._batch = batch
        self._now_ms = now_ms
        self._labels_per_day = labels_per_day
        self._chooser = Chooser(
            store,
            strategy="arrival" if strategy == "auto" and not labels_per_day else strategy,
            rng=rng or np.random.default_rng(0),
            exploration=exploration,
            duplicate_cosine=duplicate_cosine,
        )
        self._planned: list[Asked] = []
        self._planned_ms = 0
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="labelling", daemon=True)
        self.errors = 0
        """Batches that failed and were asked again, or will be."""

    def start(self) -> None:
        """Begin with what waits already."""
        self._woken.set()
        self._thread.start()

    def wake(self) -> None:
        """There may be something to label."""
        self._woken.set()

    def stop(self, *, timeout_s: float) -> None:
        """End after the batch in hand; a labeler that hangs is left behind after `timeout_s`."""
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def step(self) -> int:
        """Ask one batch and keep the answers; returns how many were asked. LabelError, StoreError: nothing was kept."""
        champion = self._chooser.keep_up(stopped=self._stopped.is_set)
        if self._stopped.is_set():
            return 0
        if not self._planned:
            self._planned_ms = self._now_ms()
            self._planned = self._plan(champion)
        with self._store.database.read() as connection:
            self._planned = _waiting_still(connection, self._planned)
            names = labels.names(connection)
        batch = self._planned[: self._batch]
        if not batch:
            return 0
        began_ms = self._now_ms()
        answers = ask(self._labeler, [self._question(asked.row, names) for asked in batch])
        seconds = (self._now_ms() - began_ms) / 1000.0 / len(batch)
        self._keep(batch, answers, seconds if seconds >= PERSON_S else 0.0)
        del self._planned[: len(batch)]
        return len(batch)

    def _plan(self, champion: Manifest | None) -> list[Asked]:
        """What to ask next: one batch without a budget, what there is room for with one, not little by little."""
        if not self._labels_per_day:
            return self._chooser.everything(self._batch, champion=champion)
        since = self._now_ms() - DAY_MS
        with self._store.database.read() as connection:
            given = labels.given_since(connection, labeler=self._name, at_ms=since)
        room = self._labels_per_day - given
        day = self._labels_per_day
        least = max(1, min(LEAST_PICKS, day // 4), day // PLANS_A_DAY)
        return self._chooser.within(room, champion=champion) if room >= least else []

    def _question(self, row: Any, names: Sequence[str]) -> Question:
        known = row.predicted is not None and row.predicted < len(names)
        return Question(
            id=row.id,
            ref=row.ref,
            guess=names[row.predicted] if known else "",
            confidence=row.confidence or 0.0,
            load=lambda: sample_array(self._store, row),
        )

    def _keep(self, batch: Sequence[Asked], answers: Sequence[Answer | None], seconds: float) -> None:
        at_ms = self._now_ms()
        with self._store.database.write() as connection:
            # Some may have been erased while they were asked about: of those nothing is kept.
            here = body_names(connection, [asked.row.id for asked in batch])
            index = labels.ensure_names(connection, [answer for answer in answers if isinstance(answer, str)])
            given = [
                labels.Label(
                    asked.row.id, _class(answer, index, self._name), self._name, at_ms, seconds, **self._drawn(asked)
                )
                for asked, answer in zip(batch, answers, strict=True)
            ]
            labels.add(connection, [one for one in given if one.sample_id in here])
            told = [asked for asked, one in zip(batch, given, strict=True) if one.class_index != labels.CANNOT_TELL]
            labels.spare(connection, {other: asked.row.id for asked in told for other in asked.beside})

    def _drawn(self, asked: Asked) -> dict[str, Any]:
        """How a label came to be asked for, as it is kept."""
        at_ms = self._planned_ms if self._labels_per_day and asked.probability is not None else None
        return {"probability": asked.probability, "plan_ms": at_ms, "stands_for": 1 + len(asked.beside)}

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(BUDGET_LOOK_S if self._labels_per_day else None)
            self._woken.clear()
            try:
                while not self._stopped.is_set() and self.step():
                    pass
                if self._labels_per_day:
                    self._stopped.wait(BUDGET_PAUSE_S)
            except Exception as error:  # the supervising loop: one bad batch must not end labelling for good
                self.errors += 1
                unforeseen = not isinstance(error, (LabelError, StoreError))
                log.warning("labelling: %s; asked again in %.0f s", error, RETRY_S, exc_info=unforeseen)
                self._stopped.wait(RETRY_S)
                self._woken.set()


def _waiting_still(connection: sa.Connection, planned: Sequence[Asked]) -> list[Asked]:
    """Without what was erased, or answered elsewhere, since it was planned."""
    waiting = labels.still_waiting(connection, [asked.row.id for asked in planned])
    return [asked for asked in planned if asked.row.id in waiting]


def _class(answer: Answer | None, index: dict[str, int], who: str) -> int:
    if answer is None:
        return labels.CANNOT_TELL
    if isinstance(answer, str):
        return index[answer]
    if answer >= len(index):
        raise LabelError(f"labeler {who}: answered class {answer}, known are 0..{len(index) - 1}")
    return answer
