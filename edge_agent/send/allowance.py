"""How much may the link carry now?

Two token buckets over what really travels, repeats, headers and heartbeats included; what may be *selected* is another
question (choose/budget.py). Bytes are those of MQTT messages: TCP, IP and TLS add some 5 %, pings 4 bytes a keep-alive.

    bytes_per_s     what is sent: at most 1.05 times as much over any 10 s
    bytes_per_day   both ways: at most so much over any 24 h

Nothing is refused, it waits. Birth, events and the farewell go at once, and are paid off before anything else is sent;
so is what comes down, which cannot be refused.

The day's tokens outlive the agent: the file always says fewer than there are, as each part of them is taken off it
before it is spent. A crash loses that part, and what would have been earned while no agent ran; the wall clock has no
say, so it may jump. On a disk without room for a single number nothing can be taken off: what is spent then is given
again at the next start, up to the bucket's depth; there is no start before there is room.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from edge_agent.contract.bucket import Bucket
from edge_agent.contract.wire import BODY_MAX_BYTES, PART_MIN_BYTES

WINDOW_S = 10.0
EXCESS = 1.05  # of bytes_per_s over any WINDOW_S
DEPTH_S = 0.5  # of bytes_per_s that may go at once: just what EXCESS leaves room for at the full rate
HEADER_MAX_BYTES = 1000  # of one part, with topic and framing; usually 450
LEAST_BYTES = 2 * PART_MIN_BYTES  # of a part's body: smaller ones are half header
RESERVED_SHARE = 0.01  # of a day's limit taken off the file at once: more is lost by a crash, less wears a flash card


class Allowance:
    """Any thread may ask and tell. Without limits nothing waits, and bytes are only counted."""

    def __init__(
        self,
        *,
        bytes_per_s: float = 0.0,
        bytes_per_day: float = 0.0,
        saved: bytes = b"",
        save: Callable[[bytes], bool] = lambda _saved: True,
        now_s: float = 0.0,
    ) -> None:
        """0: no such limit. `now_s`: of the monotonic clock that is told to the methods.

        `save` is called with what to give as `saved` at the next start, before what it speaks of is spent. False: there
        was no room for it; it is tried again with each message. What it raises goes through. msgspec.DecodeError when
        `saved` is not of our making.
        """
        self.sent_bytes = 0
        self.received_bytes = 0
        self._lock = threading.Lock()
        self._now_s = now_s
        self._save = save
        self._second = _second_bucket(bytes_per_s) if bytes_per_s else None
        self._day: Bucket | None = None
        self._on_file, self._reserve = 0.0, bytes_per_day * RESERVED_SHARE
        if bytes_per_day:
            tokens = msgspec.json.decode(saved, type=float) if saved else None
            self._day = Bucket.per_day(bytes_per_day, tokens=tokens)
            self._on_file = self._day.tokens if tokens is None else tokens
            if tokens is None:
                self._note(self._day.tokens)

    @property
    def limited(self) -> bool:
        """Whether anything may have to wait."""
        return self._second is not None or self._day is not None

    @property
    def part_bytes(self) -> int:
        """The largest body of one message, so that it fits into both buckets."""
        depths = [bucket.depth for bucket in (self._second, self._day) if bucket is not None]
        return max(LEAST_BYTES, min(BODY_MAX_BYTES, int(min(depths, default=1e9)) - HEADER_MAX_BYTES))

    def day_tokens(self, now_s: float) -> float | None:
        """Bytes left of the day's that may go at once, negative when overdrawn; None without a limit."""
        with self._lock:
            self._earn(now_s)
            return self._day.tokens if self._day is not None else None

    def wait_s(self, size: int, now_s: float, *, urgent: bool = False) -> float:
        """Seconds until a message of `size` bytes may go, 0 for now; the day's limit does not hold up an urgent one."""
        with self._lock:
            self._earn(now_s)
            waits = [self._second.wait(size) if self._second is not None else 0.0]
            waits += [self._day.wait(size)] if self._day is not None and not urgent else []
            return max(waits)

    def pace_s(self, size: int) -> float:
        """Seconds between messages of `size` bytes that take half of a day's limit; 0 without one."""
        return 2.0 * size / self._day.rate if self._day is not None else 0.0

    def sent(self, size: int, now_s: float) -> None:
        """A message is about to go."""
        with self._lock:
            self._earn(now_s)
            self.sent_bytes += size
            if self._second is not None:
                self._second.take(size)
            self._take_of_day(size)

    def received(self, size: int, now_s: float) -> None:
        """A message came."""
        with self._lock:
            self._earn(now_s)
            self.received_bytes += size
            self._take_of_day(size)

    def _earn(self, now_s: float) -> None:
        passed_s, self._now_s = max(0.0, now_s - self._now_s), max(now_s, self._now_s)  # threads may overtake
        for bucket in (self._second, self._day):
            if bucket is not None:
                bucket.earn(passed_s)

    def _take_of_day(self, size: int) -> None:
        if self._day is None:
            return
        self._day.take(size)
        tokens = self._day.tokens
        if not self._on_file <= tokens <= self._on_file + 3 * self._reserve:
            self._note(tokens - self._reserve)

    def _note(self, tokens: float) -> None:
        if self._save(msgspec.json.encode(tokens)):
            self._on_file = tokens


def _second_bucket(bytes_per_s: float) -> Bucket:
    """It holds the smallest messages even of a slow link, which then earns less than `bytes_per_s`, never more."""
    depth = max(DEPTH_S * bytes_per_s, LEAST_BYTES + HEADER_MAX_BYTES)
    return Bucket.within(EXCESS * bytes_per_s * WINDOW_S, window=WINDOW_S, depth=depth)
