"""What has come and is not taken in yet?

One thread brings it, another takes it, in the order that turns.py decides: a group while nothing else is on its way to
the disk, and one more meanwhile where it is full, so that it can be checked while the one before is written.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from server.collect.turns import Offer, Turns

T = TypeVar("T")

GROUP_WORK = 16 << 20  # of one group: more, and all wait for the large samples of one; less is more commits
LINGER_S = 1.0
"""How long that for which nobody waits may wait for company. A commit costs as much as some twenty heartbeats: shorter,
and 10,000 devices at rest take more of a processor; longer, and pages and rollouts are told late how devices are."""


class Put(NamedTuple, Generic[T]):
    """What is brought: of whom, of how many bytes, and how long it may wait for company."""

    device: str
    item: T
    size: int
    linger_s: float = 0.0


class Backlog(Generic[T]):
    """Turns between threads."""

    def __init__(self, turns: Turns[T]) -> None:
        self._turns = turns
        self._changed = threading.Condition()
        self._throttled: Counter[str] = Counter()
        self._go_s = math.inf  # when the next group is to be taken; of the monotonic clock
        self._news = False  # of which nobody was told
        self._under_way = 0  # groups that were taken and are not done
        self.stopped = False

    def put(self, device: str, item: T, size: int, *, linger_s: float = 0.0) -> None:
        """Wait for room; what is over the device's share is left, and counted. It may wait so long for company."""
        self.put_all([Put(device, item, size, linger_s)])

    def put_all(self, brought: Sequence[Put[T]]) -> None:
        """The same of several, in their order; who takes them is woken once."""
        with self._changed:
            for one in brought:
                while not self.stopped and self._offer(one) == "full":
                    self._wake()
                    self._changed.wait()
            self._wake()

    def put_or_leave(self, device: str, item: T, size: int) -> bool:
        """Whether there was room; what is left is counted."""
        with self._changed:
            answer = self._offer(Put(device, item, size))
            self._wake()
            self._throttled[device] += answer == "full"
            return answer == "taken"

    def put_back(self, device: str, item: T) -> None:
        """Put in what was counted before, room or not."""
        with self._changed:
            self._turns.put(device, item, 0)
            self._go_s = 0.0
            self._changed.notify_all()

    def gather(self, most: int, *, patience_s: float) -> list[T]:
        """At most so many, in turn, of what is here; empty when none comes in `patience_s`. Say `done` of each group.

        It does not wait for more, but for where all that is here may linger: while one group is on its way to the disk,
        the next one gathers by itself, the larger the longer that takes. To wait as well makes all wait for a device
        that never stops sending. Only what is full already is taken sooner: it could not become larger.
        """
        with self._changed:
            self._wait(patience_s, most)
            if self._ready_s(most) > 0.0:
                return []
            batch: list[T] = []
            left = self._turns.waiting - GROUP_WORK
            while len(batch) < most and self._turns.waiting > left:
                if (item := self._turns.take(time.monotonic())) is None:
                    break
                batch.append(item)
            self._under_way += 1
            self._go_s = 0.0 if len(self._turns) else math.inf
            self._changed.notify_all()  # there is room
            return batch

    def done(self) -> None:
        """A group that was gathered is."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

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

    def _offer(self, one: Put[T]) -> Offer:
        answer = self._turns.offer(one.device, one.item, one.size)
        if answer == "taken":
            go_s = time.monotonic() + one.linger_s
            if not one.linger_s or go_s < self._go_s:  # else nobody is woken for it: it goes with others
                self._go_s = min(self._go_s, go_s)
                self._news = True
        elif answer == "share":
            self._throttled[one.device] += 1
        return answer

    def _wake(self) -> None:
        if self._news:
            self._changed.notify_all()
            self._news = False

    def _ready_s(self, most: int) -> float:
        """Seconds until a group may be taken; infinite while nothing is here."""
        now_s = time.monotonic()
        full = len(self._turns) >= most or self._turns.waiting >= GROUP_WORK
        if self._under_way >= (2 if full else 1):
            return math.inf  # `done` says when
        lingers_s = 0.0 if full else self._go_s - now_s
        return max(0.0, lingers_s, self._turns.due_s(now_s))  # a device at its limit may go on then

    def _wait(self, longest_s: float, most: int) -> None:
        until_s = time.monotonic() + longest_s
        while not self.stopped and (ready_s := self._ready_s(most)) > 0.0:
            if (left_s := until_s - time.monotonic()) <= 0.0:
                return
            self._changed.wait(min(left_s, ready_s))
