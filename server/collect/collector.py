"""How does what devices say get into the store while everything goes on?

    broker -> network thread -> backlog (bounded) -> checker thread -> writer thread -> store -> receipts
                                   |<------------- prover <--------------| images

The network thread only puts into the backlog, and waits when it is full: the broker then holds back, and in the end the
devices' outboxes do. Nobody waits for a device that fills its share alone: what it sends beyond is left, counted, and
comes again. The writer takes in groups what came meanwhile, the devices by turns, so that many samples share one flush
of the disk; while it writes, a group that is full already is checked. Images go by way of the prover. Nothing is
receipted before it is on disk; what is lost on the way is sent again.

Several processes may each have a collector: division.py says which messages are whose.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from edge_agent.contract.errors import MessageError
from edge_agent.contract.wire import UP, Fetch, Up, down_topic, encode, parse_topic
from server.collect.backlog import LINGER_S, Backlog, Put
from server.collect.division import WHOLE, Division
from server.collect.gateway import BrokerAddress, Gateway, Voice
from server.collect.inbound import Bad, Message, Upload
from server.collect.ingest import Ingest, Item, Taken
from server.collect.prover import Prover
from server.collect.reader import Published
from server.collect.turns import NO_LIMIT, Limit, Turns
from server.errors import StoreError

BACKLOG_BYTES = 128 * 1024 * 1024
DEVICE_SHARE = 0.25
TICK_S = 0.2  # how long a stop may go unnoticed
SWEEP_S = 1.0
NAMED = 10  # devices to a line of the log
RETRY_MIN_S = 0.1
RETRY_MAX_S = 10.0

_log = logging.getLogger(__name__)


def nothing(*_args: object) -> None:
    """For a callback that nobody needs."""


class Collector:
    """Listens to the fleet. The callbacks are called from the writer thread, after the commit."""

    def __init__(
        self,
        ingest: Ingest,
        address: BrokerAddress,
        *,
        fleet: str,
        now_ms: Callable[[], int],
        commit_rows: int,
        backlog_bytes: int = BACKLOG_BYTES,
        device_share: float = DEVICE_SHARE,
        limit: Limit = NO_LIMIT,
        division: Division = WHOLE,
        kinds: Collection[Up] = UP,
        voice: Voice = "server",
        sweeps: bool = True,
        on_fetch: Callable[[str, Fetch], None] = nothing,
        on_samples: Callable[[int], None] = nothing,
    ) -> None:
        """Nothing happens yet.

        Args:
            ingest: takes the groups.
            address: of the broker.
            fleet: whose devices are listened to.
            now_ms: the wall clock.
            commit_rows: messages to one commit at most.
            backlog_bytes: of messages that may wait to be taken, and as many again of images.
            device_share: of them that one device may have, 0..1.
            limit: of what one device may have taken in a second.
            division: which messages are ours, where several collect.
            kinds: of messages that are listened to.
            voice: what is said of the server being there (gateway.py).
            sweeps: whether to look who fell silent and which parts never became whole; one of several does.
            on_fetch: told of a device that asks for blocks.
            on_samples: told how many samples are new.
        """
        self._ingest = ingest
        self._fleet = fleet
        self._now_ms = now_ms
        self._commit_rows = commit_rows
        self._takes = division.takes
        self._sweeps = sweeps
        self._on_fetch = on_fetch
        self._on_samples = on_samples
        self._backlog: Backlog[Item] = Backlog(Turns(room=backlog_bytes, device_share=device_share, limit=limit))
        self._prover = Prover(Backlog(Turns(room=backlog_bytes, device_share=device_share)), done=self._proven)
        self._left: Counter[str] = Counter()  # device -> messages left for want of room, not in the store yet
        self._stopping = threading.Event()
        filters = division.filters(fleet, kinds)
        self._gateway = Gateway(
            address, fleet=fleet, filters=filters, voice=voice, now_ms=now_ms, deliver=self._deliver
        )
        self._checked: queue.SimpleQueue[Sequence[Item]] = queue.SimpleQueue()  # one at most: see Backlog.gather
        self._checker = threading.Thread(target=self._check, name="check", daemon=True)
        self._writer = threading.Thread(target=self._write, name="collect", daemon=True)

    def start(self) -> None:
        """Listen, from now on."""
        self._checker.start()
        self._writer.start()
        self._prover.start()
        self._gateway.start()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until devices can be heard; False when that did not come within the time."""
        return self._gateway.ready.wait(timeout_s)

    def stop(self) -> None:
        """Finish the group at hand, say goodbye. What is still in the backlog was not receipted, and comes again."""
        self._stopping.set()
        self._backlog.stop()
        self._prover.stop()
        for thread in (self._checker, self._writer):
            if thread.is_alive():
                thread.join()
        self._gateway.stop()

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Send something to a device; may be called from any thread."""
        self._gateway.publish(topic, payload, qos=qos, retain=retain)

    def _deliver(self, found: Sequence[Published]) -> bool:
        now_ms, mine = self._now_ms(), list[Put[Item]]()
        for topic, payload in found:
            try:
                _, device, _, kind = parse_topic(topic)
            except MessageError:
                device = kind = ""  # all that nobody sent wait in one line
            if self._takes(device):
                linger_s = LINGER_S if kind == "heartbeat" else 0.0  # nobody waits for an answer to one
                mine.append(Put(device, Message(topic, payload, now_ms), len(payload), linger_s))
        self._backlog.put_all(mine)
        return all(one.linger_s for one in mine)

    def _proven(self, found: Upload | Bad) -> None:
        self._backlog.put_back(found.device, found)

    def _check(self) -> None:
        while not self._stopping.is_set():
            if batch := self._backlog.gather(self._commit_rows, patience_s=TICK_S):
                _call(self._hear, batch)  # where that fails, the writer finds out of which message it is
                self._checked.put(batch)

    def _hear(self, batch: list[Item]) -> None:
        batch[:] = self._ingest.check(batch)

    def _write(self) -> None:
        swept = time.monotonic()
        while not self._stopping.is_set():
            batch: Sequence[Item] = ()
            with contextlib.suppress(queue.Empty):
                batch = self._checked.get(timeout=TICK_S)
            if batch:
                self._take(batch)
                self._backlog.done()
            if time.monotonic() - swept >= SWEEP_S:
                _call(self._sweep)
                swept = time.monotonic()

    def _take(self, batch: Sequence[Item]) -> None:
        """Take a group; one message that the rules cannot cope with is set aside, and takes no others with it."""
        try:
            taken = self._take_patiently(batch)
        except Exception as error:  # noqa: BLE001 - the supervising loop: a mistake of ours must not end the collecting
            if len(batch) > 1:
                for message in batch:
                    self._take([message])
            else:
                _log.exception("%s: a message could not be taken, and is left", _message(batch[0]).topic)
                if not isinstance(batch[0], Bad):
                    self._take([_set_aside(batch[0], error)])
            return
        if taken is not None:
            _call(self._tell, taken)

    def _take_patiently(self, batch: Sequence[Item]) -> Taken | None:
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
        receipts = ((down_topic(self._fleet, device, "receipt"), encode(receipt)) for device, receipt in taken.receipts)
        self._gateway.publish_all(receipts)
        for device, fetch in taken.fetches:
            _call(self._on_fetch, device, fetch)
        for picture in taken.pictures:
            self._prover.put(picture)
        if taken.samples_new:
            _call(self._on_samples, taken.samples_new)

    def _sweep(self) -> None:
        self._left += Counter(self._backlog.throttled()) + Counter(self._prover.throttled())
        try:
            if self._sweeps and (silent := self._ingest.sweep(self._now_ms())):
                more = " ..." if len(silent) > NAMED else ""  # a server that was away finds all of them at once
                _log.warning("%d fell silent: %s%s", len(silent), ", ".join(silent[:NAMED]), more)
            self._ingest.count_throttled(self._left)
            self._left.clear()
        except StoreError as error:
            _log.debug("sweep: %s", error)  # said where samples are taken


def _message(item: Item) -> Message:
    return item if isinstance(item, Message) else item.message


def _set_aside(item: Item, error: Exception) -> Bad:
    """Counted, and kept to be looked at, but not refused: the mistake may be ours, and the sample comes again."""
    message = _message(item)
    try:
        device = parse_topic(message.topic).device
    except MessageError:
        device = ""
    return Bad(message, device, f"could not be taken: {type(error).__name__}: {error}")


def _call(callback: Callable[..., None], *args: Any) -> None:
    try:
        callback(*args)
    except Exception:  # noqa: BLE001 - the supervising loop: whatever else fails, collecting goes on
        _log.exception("in %s", callback)
