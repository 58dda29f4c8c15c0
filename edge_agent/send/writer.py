"""How do selected samples get from the loop to the disk?

One thread takes what the loop hands over, encodes it, and puts it into the outbox together with the state that led to
it, in one commit: after a crash the loop goes on from exactly there, so nothing selected is lost and nothing is
selected twice. The loop never waits for the disk, unless it is a thousand hand-overs ahead.

A disk that fails is tried again for as long as the agent runs. At a stop the writer gives up after a while: what it
could not keep is counted in `lost`, and so is all that comes later, so that the state on disk never speaks of samples
that are not there; a source that can go back gives them again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent.contract.errors import OutboxError
from edge_agent.contract.images import Codec
from edge_agent.contract.types import Sample
from edge_agent.contract.wire import Purge, encode_sample
from edge_agent.send.outbox import Outbox, Put
from edge_agent.send.privacy import Privacy
from edge_agent.send.purging import Purging

log = logging.getLogger(__name__)

AHEAD = 1000  # hand-overs that may wait; more is memory, fewer makes the loop wait for a slow disk
RETRY_S = 1.0
LAST_TRIES_S = 2.0  # at a stop; a healthy disk needs milliseconds, and a longer wait makes a service manager kill us
PREDICTIONS_BYTES = 256 << 20  # of the log and of the one before it: 15 million records each; more fills a small card
LOOK_S = 0.1  # between looks whether a stop has come


class Handover(msgspec.Struct, frozen=True):
    """Selected samples (maybe none), the state after them, records for the prediction log, and what to purge then."""

    samples: list[Sample]
    state: dict[str, bytes]
    predictions: bytes = b""
    purges: tuple[Purge, ...] = ()


class Writer:
    """Commits hand-overs in their order."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        commit_rows: int,
        commit_ms: float,
        stored: Callable[[], None],
        stopping: threading.Event,
        predictions: Path | None = None,
        codec: Codec | None = None,
        purging: Purging | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        """`stored` is called after each commit. Once `stopping` is set, the loop is not made to wait for the disk.

        `purging` forgets what is handed over to be purged; None: nothing is.

        `codec`: how images are encoded; None: as the arrays that they are. `privacy`: what is taken out of samples
        first. `predictions`: the file that records are
        appended to, while the disk has room by the outbox's rule; at PREDICTIONS_BYTES it is set aside, in place of the
        last one that was.
        """
        self.lost = 0  # samples that could not be kept
        self._outbox = outbox
        self._commit_rows = commit_rows
        self._commit_s = commit_ms / 1000.0
        self._stored = stored
        self._stopping = stopping
        self._give_up_at_s = math.inf
        self._given_up = False
        self._complained = False  # of the prediction log
        self._predictions = predictions
        self._codec = codec
        self._purging = purging
        self._privacy = privacy or Privacy(())
        self._queue: queue.Queue[Handover | None] = queue.Queue(AHEAD)
        self._losing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Begin to take hand-overs."""
        self._thread.start()

    def hand_over(self, item: Handover) -> None:
        """Called by the loop; returns at once unless the disk is far behind."""
        while True:
            try:
                return self._queue.put(item, timeout=LOOK_S)
            except queue.Full:
                if self._stopping.is_set():
                    return self._lose(len(item.samples))

    def stop(self) -> None:
        """Commit what was handed over, then end; or give up, when the disk has failed for too long."""
        self._give_up_at_s = time.monotonic() + LAST_TRIES_S
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=LAST_TRIES_S)
        self._thread.join(2 * LAST_TRIES_S)
        if self._thread.is_alive():  # in a call that does not return
            self._lose(sum(len(item.samples) for item in list(self._queue.queue) if item is not None))
        if self.lost:
            log.error("outbox: %d selected samples could not be kept; the next start goes on before them", self.lost)

    def _run(self) -> None:
        going = True
        while going:
            group, going = self._gather()
            try:
                self._commit(group)
            except Exception:  # a mistake of ours must not end the thread: nothing would be kept any more
                log.exception("writer: a group could not be written")
                self._lose(sum(len(item.samples) for item in group))

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
            if item.purges:  # what is handed over later is not meant
                break
            deadline = deadline or time.monotonic() + self._commit_s
        return group, True

    def _commit(self, group: list[Handover]) -> None:
        rows = [self._row(sample) for item in group for sample in item.samples]
        state = {key: value for item in group for key, value in item.state.items()}
        if rows or state:
            self._put(rows, state)
        records = b"".join(item.predictions for item in group)
        if records and self._predictions is not None:
            self._append(self._predictions, records)
        purges = [purge for item in group for purge in item.purges]
        if self._purging is not None and (purges or rows):
            self._purging.put(sample.id for item in group for sample in item.samples)
            self._purge(self._purging, purges)

    def _row(self, sample: Sample) -> Put:
        private = self._privacy.apply(sample.data, before=sample.transforms, said=sample.prediction.said)
        said = sample.prediction._replace(said=private.said)
        sample = sample._replace(data=private.data, transforms=private.transforms, prediction=said)
        return Put(*encode_sample(sample, codec=self._codec))

    def _put(self, rows: list[Put], state: dict[str, bytes]) -> None:
        while not self._given_up:
            try:
                self._outbox.put(rows, state=state)
                self._stored()
                return
            except OutboxError as error:
                log.error("outbox: %s: trying again", error)
                time.sleep(LOOK_S if self._stopping.wait(RETRY_S) else 0.0)
                self._given_up = time.monotonic() > self._give_up_at_s
        self._lose(len(rows))

    def _purge(self, purging: Purging, purges: list[Purge]) -> None:
        """Here, so that nothing comes between: all that was handed over before is in the outbox, and nothing later."""
        for purge in purges:
            while not self._given_up:
                try:
                    purging.obey(purge)
                    break
                except (OutboxError, OSError) as error:
                    log.error("purge %d: %s: trying again", purge.id, error)
                    time.sleep(LOOK_S if self._stopping.wait(RETRY_S) else 0.0)
                    self._given_up = time.monotonic() > self._give_up_at_s

    def _append(self, path: Path, records: bytes) -> None:
        try:
            if not self._outbox.has_room():
                raise OSError(errno.ENOSPC, "less of the disk is free than is to be left so")
            if path.exists() and path.stat().st_size + len(records) > PREDICTIONS_BYTES:
                path.replace(path.with_suffix(".before" + path.suffix))
            with open(path, "ab") as file:
                file.write(records)
            self._complained = False
        except OSError as error:  # a log; the samples go on
            if not self._complained:
                log.error("%s: %s: predictions are not written down meanwhile", path, error.strerror)
            self._complained = True

    def _lose(self, samples: int) -> None:
        with self._losing:
            self.lost += samples
