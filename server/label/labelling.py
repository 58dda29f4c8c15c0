"""How do samples get their labels?

A thread asks the labeler about what waits in the store, in batches, and keeps the answers. It looks when it is woken
(new samples), and again a while after a failure. A labeler that fails costs time, never a sample: nothing is marked
before its answer is committed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from server.errors import LabelError, StoreError
from server.label.labeler import Answer, Labeler, Question, ask
from server.store import labels
from server.store.samples import sample_array
from server.store.store import Store

log = logging.getLogger(__name__)

RETRY_S = 5.0  # shorter hammers a labeler that is down, longer leaves samples lying after it is back


class Labelling:
    """Asks one labeler, until there is nothing to ask or it is stopped."""

    def __init__(self, store: Store, labeler: Labeler, *, name: str, batch: int, now_ms: Callable[[], int]) -> None:
        """`name` is kept with every answer."""
        self._store = store
        self._labeler = labeler
        self._name = name
        self._batch = batch
        self._now_ms = now_ms
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
            rows = labels.waiting(connection, limit=self._batch)
            names = labels.names(connection)
        if not rows:
            return 0
        answers = ask(self._labeler, [self._question(row, names) for row in rows])
        self._keep(rows, answers)
        return len(rows)

    def _question(self, row: Any, names: Sequence[str]) -> Question:
        known = row.predicted is not None and row.predicted < len(names)
        return Question(
            id=row.id,
            ref=row.ref,
            guess=names[row.predicted] if known else "",
            confidence=row.confidence or 0.0,
            load=lambda: sample_array(self._store.blobs, row),
        )

    def _keep(self, rows: Sequence[Any], answers: Sequence[Answer | None]) -> None:
        at_ms = self._now_ms()
        with self._store.database.write() as connection:
            index = labels.ensure_names(connection, [answer for answer in answers if isinstance(answer, str)])
            given = [
                labels.Label(row.id, _class(answer, index, self._name), self._name, at_ms)
                for row, answer in zip(rows, answers, strict=True)
            ]
            labels.add(connection, given)

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait()
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
