"""What has come and is not taken in yet?

One thread brings it, another takes it, in the order that turns.py decides.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

from server.collect.turns import Offer, Turns

T = TypeVar("T")


class Backlog(Generic[T]):
    """Turns between threads."""

    def __init__(self, turns: Turns[T]) -> None:
        self._turns = turns
        self._changed = threading.Condition()
        self._throttled: Counter[str] = Counter()
        self.stopped = False

    def put(self, device: str, item: T, size: int) -> None:
        """Wait for room; what is over the device's share is left, and counted."""
        with self._changed:
            while not self.stopped:
                if self._offer(device, item, size) != "full":
                    return
                self._changed.wait()

    def put_or_leave(self, device: str, item: T, size: int) -> bool:
        """Whether there was room; what is left is counted."""
        with self._changed:
            answer = self._offer(device, item, size)
            self._throttled[device] += answer == "full"
            return answer == "taken"

    def put_back(self, device: str, item: T) -> None:
        """Put in what was counted before, room or not."""
        with self._changed:
            self._turns.put(device, item, 0)
            self._changed.notify_all()

    def gather(self, most: int, *, patience_s: float, within_s: float, lull_s: float) -> list[T]:
        """At most so many, in turn, of what has come `within_s` of the first; empty when none comes in `patience_s`.

        It ends early when nothing came for `lull_s`: a device sends a window and waits for its receipts.
        """
        with self._changed:
            self._wait(patience_s, lambda: self._turns.due_s(time.monotonic()) <= 0.0)
            if self._turns.due_s(time.monotonic()) > 0.0:
                return []
            until_s, came = time.monotonic() + within_s, 0
            while came < len(self._turns) < most:
                came = len(self._turns)
                self._wait(min(lull_s, until_s - time.monotonic()), functools.partial(self._more_than, came))
            batch: list[T] = []
            while len(batch) < most and (item := self._turns.take(time.monotonic())) is not None:
                batch.append(item)
            self._changed.notify_all()  # there is room
            return batch

    def throttled(self) -> dict[str, int]:
        """Device -> messages that were left since this was last asked."""
        with self._changed:
            counts, self._throttled = +self._throttled, Counter()
        return dict(counts)

    def stop(self) -> None:
        """Nobody waits any more, on either side."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def _offer(self, device: str, item: T, size: int) -> Offer:
        answer = self._turns.offer(device, item, size)
        if answer == "taken":
            self._changed.notify_all()
        elif answer == "share":
            self._throttled[device] += 1
        return answer

    def _more_than(self, came: int) -> bool:
        return len(self._turns) > came

    def _wait(self, longest_s: float, enough: Callable[[], bool]) -> None:
        until_s = time.monotonic() + longest_s
        while not self.stopped and not enough() and (left_s := until_s - time.monotonic()) > 0.0:
            due_s = self._turns.due_s(time.monotonic())  # a device at its limit may go on then
            self._changed.wait(min(left_s, due_s) if due_s > 0.0 else left_s)
