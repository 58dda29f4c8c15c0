"""Whose message is next?

Pure: deficit round robin (Shreedhar and Varghese, "Efficient fair queuing using deficit round robin", 1995). Each
device has a line of its own, and is served by turns so much work a round, whatever the others have waiting: one that
sends a hundred times as much waits behind itself. Within a line the order stays.

    offer -> "taken"   it waits
             "share"   the device has its share of the room: what it sent is left, without a receipt, and comes again
             "full"    there is no room, and that is not this device's doing: hold back whoever brings it

Room and turns are counted in work: bytes, and a fixed part for each message, as a small one costs a row as well.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

T = TypeVar("T")

MESSAGE_WORK = 4096  # of any message, on top of its bytes: about what a row costs. Lower, and tiny messages get more
ROUND_WORK = (
    32 * 1024
)  # a turn: a handful of small samples. More, and others wait longer; less, and large ones take rounds
BURST_S = 10.0  # of a limited rate that may be saved up: a reconnect brings what waited
_BUCKETS_MAX = 4096  # beyond it, those of devices that have nothing waiting and nothing to make up for are forgotten

UNLIMITED = 1e15  # a second; finite, so that it can be counted with

Offer = Literal["taken", "share", "full"]


class Limit(NamedTuple):
    """What one device may have taken in a second."""

    messages_per_s: float = UNLIMITED
    bytes_per_s: float = UNLIMITED


NO_LIMIT = Limit()


@dataclass
class _Line(Generic[T]):
    items: deque[tuple[T, int]] = field(default_factory=deque)
    waiting: int = 0  # work
    credit: int = ROUND_WORK


@dataclass
class _Bucket:
    messages: float
    bytes: float
    at_s: float


class Turns(Generic[T]):
    """What waits, by device."""

    def __init__(self, *, room: int, device_share: float, limit: Limit = NO_LIMIT) -> None:
        """At most about `room` of work waits, at most `device_share` (0..1) of it of one device."""
        self._room = room
        self._share = device_share * room
        self._limit = limit
        self._limited = limit != NO_LIMIT
        self._lines: dict[str, _Line[T]] = {}
        self._order: deque[str] = deque()
        self._waiting = 0  # work
        self._count = 0
        self._buckets: dict[str, _Bucket] = {}

    def __len__(self) -> int:
        """Items that wait."""
        return self._count

    @property
    def waiting(self) -> int:
        """Work that waits."""
        return self._waiting

    def offer(self, device: str, item: T, size: int) -> Offer:
        """Put an item of `size` bytes into the device's line, if there is room."""
        work = size + MESSAGE_WORK
        line = self._lines.get(device)
        if line is not None:
            if line.waiting + work > self._share:
                return "share" if self._share < self._room else "full"
            if self._waiting + work > self._room:
                return "share" if line.waiting * len(self._lines) > self._waiting else "full"
        elif self._waiting and self._waiting + work > self._room:
            return "full"
        self.put(device, item, size)
        return "taken"

    def put(self, device: str, item: T, size: int) -> None:
        """Put it in whether or not there is room."""
        line = self._lines.get(device)
        if line is None:
            line = self._lines[device] = _Line()
            self._order.append(device)
        work = size + MESSAGE_WORK
        line.items.append((item, work))
        line.waiting += work
        self._waiting += work
        self._count += 1

    def take(self, now_s: float) -> T | None:
        """The next; None when nothing waits, or nothing that may go yet. `now_s`: any clock that only grows."""
        while True:
            held = 0
            for _ in range(len(self._order)):
                line = self._lines[self._order[0]]
                work = line.items[0][1]
                if not self._may_go(self._order[0], now_s):
                    held += 1
                elif line.credit >= work:
                    return self._pop(self._order[0], line)
                else:
                    line.credit += ROUND_WORK
                self._order.rotate(-1)
            if held == len(self._order):
                return None

    def due_s(self, now_s: float) -> float:
        """Seconds until `take` gives one; infinite while nothing waits."""
        if not self._limited:
            return 0.0 if self._order else math.inf
        return min((self._held_s(device, now_s) for device in self._order), default=math.inf)

    def _pop(self, device: str, line: _Line[T]) -> T:
        item, work = line.items.popleft()
        line.credit -= work
        line.waiting -= work
        self._waiting -= work
        self._count -= 1
        if not line.items:  # its credit goes with it: nobody saves up turns while it has nothing to say
            del self._lines[device]
            self._order.popleft()
        if self._limited:
            bucket = self._buckets[device]
            bucket.messages -= 1
            bucket.bytes -= work - MESSAGE_WORK
        return item

    # --- limits of one device: token buckets that may go below 0 by one message ---

    def _may_go(self, device: str, now_s: float) -> bool:
        return not self._limited or self._held_s(device, now_s) <= 0.0

    def _held_s(self, device: str, now_s: float) -> float:
        if not self._limited:
            return 0.0
        bucket, limit = self._filled(device, now_s), self._limit
        return max(0.0, -bucket.messages / limit.messages_per_s, -bucket.bytes / limit.bytes_per_s)

    def _filled(self, device: str, now_s: float) -> _Bucket:
        limit = self._limit
        most = _Bucket(BURST_S * limit.messages_per_s, BURST_S * limit.bytes_per_s, now_s)
        bucket = self._buckets.get(device)
        if bucket is None:
            if len(self._buckets) >= _BUCKETS_MAX:
                self._buckets = {
                    name: held
                    for name, held in self._buckets.items()
                    if name in self._lines or min(held.messages, held.bytes) < 0.0
                }
            self._buckets[device] = most
            return most
        past_s = now_s - bucket.at_s
        bucket.messages = min(most.messages, bucket.messages + past_s * limit.messages_per_s)
        bucket.bytes = min(most.bytes, bucket.bytes + past_s * limit.bytes_per_s)
        bucket.at_s = now_s
        return bucket
