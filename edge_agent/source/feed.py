"""What happens when a sensor is faster than the model?

Between the thread that reads the sensor and the loop there is room for a few samples. When it is full,

    every     the sensor's side waits: nothing is lost here, and the kernel, the broker or the sender keeps the rest
    newest    the oldest that waits makes way, counted as skipped: what is answered is never old
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from edge_agent.source import Counts

ROOM = {"every": 64, "newest": 1}

T = TypeVar("T")


class Feed(Generic[T]):
    """First in, first out; any thread may put, one takes."""

    def __init__(
        self,
        *,
        keep: Literal["every", "newest"],
        room: int = 0,
        counts: Counts,
        on_skip: Callable[[T], None] = lambda _item: None,
    ) -> None:
        """`room`: items that may wait; 0: as ROOM says. `on_skip` is told of each that made way."""
        self._newest = keep == "newest"
        self._room = room or ROOM[keep]
        self._counts = counts
        self._on_skip = on_skip
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._over = False
        self._error: Exception | None = None

    def put(self, item: T, *, wait_s: float | None = None) -> bool:
        """Whether it was taken in; waits for room under `every`, `wait_s` at most. False once it is over."""
        skipped = None
        with self._changed:
            if not self._newest:
                self._changed.wait_for(lambda: self._over or len(self._items) < self._room, wait_s)
            full = len(self._items) >= self._room
            if self._over or (full and not self._newest):
                return False
            if full:
                skipped = self._items.popleft()
                self._counts.skipped += 1
            self._items.append(item)
            self._changed.notify_all()
        if skipped is not None:
            self._on_skip(skipped)
        return True

    def take(self, wait_s: float) -> T | None:
        """The oldest, or None when none comes within `wait_s`. What `end` was given is raised after the last."""
        deadline = time.monotonic() + wait_s
        with self._changed:
            while not self._items and not self._over:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return None
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    @property
    def over(self) -> bool:
        """Whether nothing more comes, and nothing waits."""
        return self._over and not self._items

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken in."""
        return self._over

    def end(self, error: Exception | None = None) -> list[T]:
        """Nothing more is put; what waits can still be taken, and is returned to look at."""
        with self._changed:
            self._over, self._error = True, self._error or error
            self._changed.notify_all()
            return list(self._items)
