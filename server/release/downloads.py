"""How do models get to devices without taking the whole uplink?

Devices ask for blocks; what is published is sent at the fleet's pace (pace.py), by a thread of its own, so that neither
ingest nor the scheduler waits for it. Who fetches by HTTPS stands in the same line, a piece at a time. What is not
published is refused at once: how long to go on asking is the device's affair, and it gives up.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from edge_agent.contract.wire import BlockHeader, Fetch, down_topic, encode_frame
from server.errors import StoreError
from server.release.blocks import Blocks
from server.release.pace import Pace, Turn

log = logging.getLogger(__name__)

IDLE_S = 60.0  # between looks when nobody asks
REST_MIN_S = 0.002  # fewer looks than blocks, at any rate that a disk can follow


class Publish(Protocol):
    """Hands a message to the broker."""

    def __call__(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Queue it."""


class _Guest(NamedTuple):
    """Who takes bytes by another way."""

    size_bytes: int
    go: Callable[[], None]


class Downloads:
    """Answers to devices that fetch. `ask` and `turn` may be called from any thread."""

    def __init__(
        self,
        blocks: Blocks,
        *,
        fleet: str,
        bytes_per_s: float,
        publish: Publish,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`bytes_per_s`: of all downloads together; 0: no limit."""
        self._fleet, self._publish, self._monotonic = fleet, publish, monotonic
        self._blocks = blocks
        self._pace = Pace(bytes_per_s=bytes_per_s)
        self._changed = threading.Condition()  # also guards the pace and the guests
        self._guests: dict[str, _Guest] = {}
        self._numbers = itertools.count()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="downloads", daemon=True)

    def ask(self, device: str, fetch: Fetch) -> None:
        """A device asks for blocks."""
        if not self._blocks.has(fetch.sha256):
            self._refuse(device, fetch.sha256, "unknown")
            return
        with self._changed:
            self._pace.ask(device, fetch.sha256, fetch.blocks)
            self._changed.notify()

    def turn(self, size_bytes: int, go: Callable[[], None]) -> bool:
        """Somebody is to take so many bytes by another way: `go` is called when they may go, by the thread that sends.

        False when too many wait: he has to come again.
        """
        with self._changed:
            guest = f"/{next(self._numbers)}"  # no device is called that
            if not self._pace.ask(guest, "", [0]):
                return False
            self._guests[guest] = _Guest(size_bytes, go)
            self._changed.notify()
        return True

    def start(self) -> None:
        """Send, from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more; devices ask again."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while not self._stopping:
            try:
                wait_s = self.step(self._monotonic())
            except Exception:  # the supervising loop: one block that cannot be sent must not end all downloads
                log.exception("a block could not be sent")
                continue
            with self._changed:
                if not self._stopping and (wait_s < IDLE_S or not self._pace.waiting):
                    self._changed.wait(wait_s)

    def step(self, now_s: float) -> float:
        """Send what may go now; seconds until there may be more."""
        while True:
            with self._changed:
                self._pace.tell(now_s)
                if rest_s := self._pace.rest_s:
                    return max(rest_s, REST_MIN_S)
                turn = self._pace.next()
            if turn is None or self._stopping:
                return IDLE_S
            sent = self._send(turn)
            with self._changed:
                self._pace.sent(sent)

    def _send(self, turn: Turn) -> int:
        """Bytes that went."""
        if (guest := self._guests.pop(turn.device, None)) is not None:
            guest.go()
            return guest.size_bytes
        try:
            frame = self._blocks.frame(turn.sha256, turn.block)
        except StoreError as error:
            log.error("%s", error)
            self._refuse(turn.device, turn.sha256, "cannot be read")
            return 0
        if frame is None:  # no block of that file
            return 0
        self._publish(down_topic(self._fleet, turn.device, "block"), frame, qos=1, retain=False)
        return len(frame)

    def _refuse(self, device: str, sha256: str, error: str) -> None:
        frame = encode_frame(BlockHeader(sha256=sha256[:64], index=0, total_bytes=0, error=error), b"")
        self._publish(down_topic(self._fleet, device, "block"), frame, qos=1, retain=False)
