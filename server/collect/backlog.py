"""What has come and is not taken in yet?

One thread brings it, another takes it, in the order that turns.py decides.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

from server.collect.turns import Offer, Turns

T = TypeVar("T")

GROUP_WORK = 4 << 20  # of one group: more, and all wait for the large samples of one; less is more commits


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

    def gather(self, most: int, *, patience_s: float) -> list[T]:
        """At most so many, in turn, of what is here; empty when none comes in `patience_s`.

        It does not wait for more: while one group is on its way to the disk, the next one gathers by itself, the
        larger the longer that takes. To wait as well makes all wait for a device that never stops sending.
        """
        with self._changed:
            self._wait(patience_s, lambda: self._turns.due_s(time.monotonic()) <= 0.0)
            if self._turns.due_s(time.monotonic()) > 0.0:
                return []
            batch: list[T] = []
            left = self._turns.waiting - GROUP_WORK
            while len(batch) < most and self._turns.waiting > left:
                if (item := self._turns.take(time.monotonic())) is None:
                    break
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

    def _wait(self, longest_s: float, enough: Callable[[], bool]) -> None:
        until_s = time.monotonic() + longest_s
        while not self.stopped and not enough() and (left_s := until_s - time.monotonic()) > 0.0:
            due_s = self._turns.due_s(time.monotonic())  # a device at its limit may go on then
            self._changed.wait(min(left_s, due_s) if due_s > 0.0 else left_s)
