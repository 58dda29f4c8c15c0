"""How do samples get their labels?

A thread asks the labeler about what waits in the store, in batches, and keeps the answers. It looks when it is woken
(new samples), and again a while after a failure. A labeler that fails costs time, never a sample: nothing is marked
before its answer is committed.

The audit's samples are asked about first. With `labels_per_day` any 24 hours see at most so many questions; what they
leave unasked waits. Strategy `gumbel` draws those that are asked by the utility the device gave, and keeps the
probability with the label: of being among those that the budget has room for, of all that wait at that time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from server.errors import LabelError, StoreError
from server.label.choice import audit_first
from server.label.labeler import Answer, Labeler, Question, ask
from server.store import labels
from server.store.samples import AUDIT_REASONS, sample_array
from server.store.store import Store

Planned = tuple[Any, float | None]  # a row of `sample`, and its probability of being asked about

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
CANDIDATES = 10_000  # the oldest that are drawn from at once: fewer forgets the new, more makes every draw slow
BUDGET_LOOK_S = 60.0  # between looks whether the budget has room again

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
        strategy: str = "arrival",
        labels_per_day: int = 0,
        rng: np.random.Generator | None = None,
    ) -> None:
        """`name` is kept with every answer; `rng` is for strategy "gumbel"; `labels_per_day` 0 is no budget."""
        self._store = store
        self._labeler = labeler
        self._name = name
        self._batch = batch
        self._now_ms = now_ms
        self._strategy = strategy
        self._labels_per_day = labels_per_day
        self._rng = rng or np.random.default_rng(0)
        self._planned: list[Planned] = []
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
        with self._store.database.read() as connection:
            if not self._planned:
                self._planned = self._plan(connection)
            names = labels.names(connection)
        batch = self._planned[: self._batch]
        if not batch:
            return 0
        answers = ask(self._labeler, [self._question(row, names) for row, _ in batch])
        self._keep(batch, answers)
        del self._planned[: len(batch)]
        return len(batch)

    def _plan(self, connection: sa.Connection) -> list[Planned]:
        """What to ask next: one batch without a budget, what there is room for with one."""
        room = self._room(connection)
        if self._strategy == "arrival":
            probability = None if self._labels_per_day else 1.0  # without a budget everything is asked in the end
            return [(row, probability) for row in labels.waiting(connection, limit=min(room, self._batch))]
        rows = labels.waiting(connection, limit=CANDIDATES)
        audit = np.array([row.reason in AUDIT_REASONS for row in rows], np.bool_)
        utility = np.array([row.utility or 0.0 for row in rows], np.float32)
        chosen = audit_first(
            audit, utility, min(room, len(rows) if self._labels_per_day else self._batch), rng=self._rng
        )
        probability_of = chosen.probability if self._labels_per_day else np.ones(len(chosen.rows))
        return [(rows[row], float(p)) for row, p in zip(chosen.rows, probability_of, strict=True)]

    def _room(self, connection: sa.Connection) -> int:
        if not self._labels_per_day:
            return CANDIDATES
        since = self._now_ms() - DAY_MS
        return max(0, self._labels_per_day - labels.given_since(connection, labeler=self._name, at_ms=since))

    def _question(self, row: Any, names: Sequence[str]) -> Question:
        known = row.predicted is not None and row.predicted < len(names)
        return Question(
            id=row.id,
            ref=row.ref,
            guess=names[row.predicted] if known else "",
            confidence=row.confidence or 0.0,
            load=lambda: sample_array(self._store.blobs, row),
        )

    def _keep(self, batch: Sequence[Planned], answers: Sequence[Answer | None]) -> None:
        at_ms = self._now_ms()
        with self._store.database.write() as connection:
            index = labels.ensure_names(connection, [answer for answer in answers if isinstance(answer, str)])
            given = [
                labels.Label(row.id, _class(answer, index, self._name), self._name, at_ms, probability=probability)
                for (row, probability), answer in zip(batch, answers, strict=True)
            ]
            labels.add(connection, given)

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(BUDGET_LOOK_S if self._labels_per_day else None)
            self._woken.clear()
            try:
                while not self._stopped.is_set() and self.step():
                    pass
            except (LabelError, StoreError) as error:
                self.errors += 1
                log.warning("labelling: %s; asked again in %.0f s", error, RETRY_S)
                self._stopped.wait(RETRY_S)
                self._woken.set()


def _class(answer: Answer | None, index: dict[str, int], who: str) -> int:
    if answer is None:
        return labels.CANNOT_TELL
    if isinstance(answer, str):
        return index[answer]
    if answer >= len(index):
        raise LabelError(f"labeler {who}: answered class {answer}, known are 0..{len(index) - 1}")
    return answer
