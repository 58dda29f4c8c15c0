"""How does what devices say get into the store while everything goes on?

    broker -> network thread -> queue (bounded) -> worker thread -> store -> receipts

The network thread only puts into the queue, and waits when it is full: the broker then holds back, and in the end the
devices' outboxes do. The worker takes groups, so that many samples share one flush of the disk. Nothing is receipted
before it is on disk; what is lost on the way is sent again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from edge_agent.contract.wire import Fetch, down_topic, encode
from server.collect.gateway import BrokerAddress, Gateway
from server.collect.inbound import Message
from server.collect.ingest import Ingest, Taken
from server.errors import StoreError

TICK_S = 0.2  # how long a stop may go unnoticed
SWEEP_S = 1.0
LULL_S = 0.003  # a group ends when nothing came for so long: shorter splits a window, longer makes its sender wait
RETRY_MIN_S = 0.1
RETRY_MAX_S = 10.0

_log = logging.getLogger(__name__)


def _nothing(*_args: object) -> None:
    return None


class Collector:
    """Listens to the fleet. The callbacks are called from the worker thread, after the commit."""

    def __init__(
        self,
        ingest: Ingest,
        address: BrokerAddress,
        *,
        fleet: str,
        now_ms: Callable[[], int],
        commit_rows: int,
        commit_ms: float,
        on_birth: Callable[[str], None] = _nothing,
        on_fetch: Callable[[str, Fetch], None] = _nothing,
        on_samples: Callable[[int], None] = _nothing,
    ) -> None:
        """`now_ms` is the wall clock; at most `commit_rows` messages, or `commit_ms` of them, go to one commit."""
        self._ingest = ingest
        self._fleet = fleet
        self._now_ms = now_ms
        self._commit_rows = commit_rows
        self._commit_s = commit_ms / 1000
        self._on_birth = on_birth
        self._on_fetch = on_fetch
        self._on_samples = on_samples
        self._queue: queue.Queue[Message] = queue.Queue(maxsize=commit_rows)
        self._stopping = threading.Event()
        self._gateway = Gateway(address, fleet=fleet, now_ms=now_ms, deliver=self._deliver)
        self._worker = threading.Thread(target=self._work, name="collect", daemon=True)

    def start(self) -> None:
        """Listen, from now on."""
        self._worker.start()
        self._gateway.start()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until devices can be heard; False when that did not come within the time."""
        return self._gateway.ready.wait(timeout_s)

    def stop(self) -> None:
        """Finish the group at hand, say goodbye. What is still in the queue was not receipted, and comes again."""
        self._stopping.set()
        if self._worker.is_alive():
            self._worker.join()
        self._gateway.stop()

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Send something to a device; may be called from any thread."""
        self._gateway.publish(topic, payload, qos=qos, retain=retain)

    def _deliver(self, topic: str, payload: bytes) -> None:
        message = Message(topic, payload, self._now_ms())
        while not self._stopping.is_set():
            try:
                self._queue.put(message, timeout=TICK_S)
                return
            except queue.Full:
                continue

    def _work(self) -> None:
        swept = time.monotonic()
        while not self._stopping.is_set():
            if batch := self._gather():
                self._take(batch)
            if time.monotonic() - swept >= SWEEP_S:
                _call(self._sweep)
                swept = time.monotonic()

    def _gather(self) -> list[Message]:
        """A group: what comes within the commit time of its first message, until nothing comes for a moment.

        A device sends a window and waits for its receipts: to wait on after the last of it would help nobody.
        """
        batch: list[Message] = []
        try:
            batch.append(self._queue.get(timeout=TICK_S))
            deadline = time.monotonic() + self._commit_s
            while len(batch) < self._commit_rows:
                left_s = min(LULL_S, deadline - time.monotonic())
                batch.append(self._queue.get(timeout=left_s) if left_s > 0 else self._queue.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _take(self, batch: list[Message]) -> None:
        """Take a group; one message that the rules cannot cope with does not take the others with it."""
        try:
            taken = self._take_patiently(batch)
        except Exception:  # noqa: BLE001 - the supervising loop: a mistake of ours must not end the collecting
            if len(batch) > 1:
                for message in batch:
                    self._take([message])
            else:
                _log.exception("%s: a message could not be taken, and is left", batch[0].topic)
            return
        if taken is not None:
            self._tell(taken)

    def _take_patiently(self, batch: list[Message]) -> Taken | None:
        """Try until the store can; None when we are told to stop before."""
        delay_s = RETRY_MIN_S
        while True:
            try:
                taken = self._ingest.take(batch)
            except StoreError as error:
                if delay_s == RETRY_MIN_S:
                    _log.error("nothing can be stored, devices keep what they have: %s", error)
                if self._stopping.wait(delay_s):
                    return None
                delay_s = min(2 * delay_s, RETRY_MAX_S)
            else:
                if delay_s > RETRY_MIN_S:
                    _log.warning("storing again")
                return taken

    def _tell(self, taken: Taken) -> None:
        for device, receipt in taken.receipts:
            self.publish(down_topic(self._fleet, device, "receipt"), encode(receipt))
        for device in taken.births:
            _call(self._on_birth, device)
        for device, fetch in taken.fetches:
            _call(self._on_fetch, device, fetch)
        if taken.samples_new:
            _call(self._on_samples, taken.samples_new)

    def _sweep(self) -> None:
        try:
            for device in self._ingest.sweep(self._now_ms()):
                _log.warning("device %s has fallen silent", device)
        except StoreError as error:
            _log.debug("sweep: %s", error)  # said where samples are taken


def _call(callback: Callable[..., None], *args: Any) -> None:
    try:
        callback(*args)
    except Exception:  # noqa: BLE001 - the supervising loop: whatever else fails, collecting goes on
        _log.exception("in %s", callback)
