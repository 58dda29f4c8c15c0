"""What has the device to tell, while nobody listens?

Events wait in memory: they are news, not data, and their numbers show a gap. Bounded, the oldest is dropped first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from edge_agent.contract.wire import Event

EVENTS_MAX = 256  # lower loses the history of a short outage, higher floods the server after a long one


class EventQueue:
    """`put` and `len` from any thread, the rest from the one that sends."""

    def __init__(self, limit: int = EVENTS_MAX) -> None:
        """Keeps at most `limit` events that were not sent."""
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: deque[Event] = deque()
        self._sent: list[tuple[Event, Callable[[], bool]]] = []
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, event: Event) -> None:
        """Add one; drops and counts the oldest when too many wait."""
        with self._lock:
            self._waiting.append(event)
            self._trim()

    def send(self, publish: Callable[[Event], Callable[[], bool] | None]) -> bool:
        """Send them in order; False when one could not go yet.

        `publish` returns a function that tells whether the broker has it, or None: not now.
        """
        self._sent = [(event, taken) for event, taken in self._sent if not taken()]
        while self._waiting:
            with self._lock:
                event = self._waiting.popleft()
            self._sent.append((event, _not_taken))  # stands if `publish` raises
            taken = publish(event)
            if taken is None:
                self._sent.pop()
                with self._lock:
                    self._waiting.appendleft(event)
                return False
            self._sent[-1] = (event, taken)
        return True

    def restore(self) -> None:
        """Put back, in their order, those that the broker had not taken when the connection ended."""
        with self._lock:
            self._waiting.extendleft(event for event, taken in reversed(self._sent) if not taken())
            self._trim()
        self._sent = []

    def _trim(self) -> None:
        while len(self._waiting) > self._limit:
            self._waiting.popleft()
            self.dropped += 1


def _not_taken() -> bool:
    return False
