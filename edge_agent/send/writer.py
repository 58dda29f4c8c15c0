"""How do selected samples get from the loop to the disk?

One thread takes what the loop hands over, encodes it, and puts it into the outbox together with the state that led to
it, in one commit: after a crash the loop goes on from exactly there, so nothing selected is lost and nothing is
selected twice. The loop never waits for the disk, unless it is a thousand samples ahead.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edge_agent.contract.errors import OutboxError
from edge_agent.contract.types import Sample
from edge_agent.contract.wire import encode_sample
from edge_agent.send.outbox import Outbox, Put

log = logging.getLogger(__name__)

AHEAD = 1000  # hand-overs that may wait; more is memory, fewer makes the loop wait for a slow disk
RETRY_S = 1.0


class Handover(NamedTuple):
    """Selected samples (maybe none), the state after them, and records for the prediction log."""

    samples: list[Sample]
    state: dict[str, bytes]
    predictions: bytes = b""


class Writer:
    """Commits hand-overs in their order."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        commit_rows: int,
        commit_ms: float,
        stored: Callable[[], None],
        predictions: Path | None = None,
    ) -> None:
        """`stored` is called after each commit. `predictions`: the file that records are appended to."""
        self._outbox = outbox
        self._commit_rows = commit_rows
        self._commit_s = commit_ms / 1000.0
        self._stored = stored
        self._predictions = predictions
        self._queue: queue.Queue[Handover | None] = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Begin to take hand-overs."""
        self._thread.start()

    def hand_over(self, item: Handover) -> None:
        """Called by the loop; returns at once unless the disk is far behind."""
        self._queue.put(item)

    def stop(self) -> None:
        """Commit what was handed over, then end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            group, going = self._gather()
            self._commit(group)

    def _gather(self) -> tuple[list[Handover], bool]:
        """Hand-overs for one commit, and whether more may come."""
        group: list[Handover] = []
        deadline = None
        while sum(len(item.samples) for item in group) < self._commit_rows:
            try:
                wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                item = self._queue.get(timeout=wait_s)
            except queue.Empty:
                break
            if item is None:
                return group, False
            group.append(item)
            deadline = deadline or time.monotonic() + self._commit_s
        return group, True

    def _commit(self, group: list[Handover]) -> None:
        rows = [Put(*encode_sample(sample)) for item in group for sample in item.samples]
        state = {key: value for item in group for key, value in item.state.items()}
        while rows or state:
            try:
                self._outbox.put(rows, state=state)
                self._stored()
                break
            except OutboxError as error:
                log.error("outbox: %s: trying again", error)
                time.sleep(RETRY_S)
        records = b"".join(item.predictions for item in group)
        if records and self._predictions is not None:
            with open(self._predictions, "ab") as file:
                file.write(records)
