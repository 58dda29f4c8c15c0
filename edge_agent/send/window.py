"""Which samples are on their way, and when is one sent again?

A sample is in the window from its first sending until a receipt for it comes, or the outbox no longer has it. One that
gets no receipt is sent again, each time later. Only the uplink's own thread touches a window.

How many may be on their way adapts: one more for each receipt, until a sample is lost; then half as many, and from
there on one more for each whole window of receipts (slow start and congestion avoidance, V. Jacobson, SIGCOMM 1988).
So a lone device fills a fast link, whatever the server's commits take, and a thousand do not drown the broker, whose
queue drops what it cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec


def retry_wait_s(attempt: int, *, first_s: float, max_s: float, uniform: Callable[[], float]) -> float:
    """Seconds to wait after failure number `attempt` (0, 1, ..): at random between `first_s` and a doubling limit.

    `uniform` draws from [0, 1).

    Full jitter over the part above `first_s`, so that a fleet that lost its broker in one moment does not come back in
    one. The floor keeps a sample from being sent again before its receipt can have come. After M. Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    >>> uniform = iter((0.637, 0.270, 0.041)).__next__
    >>> [round(retry_wait_s(n, first_s=2.0, max_s=300.0, uniform=uniform), 1) for n in (0, 3, 20)]
    [3.3, 10.1, 14.2]
    """
    limit_s = min(max_s, first_s * 2.0 ** min(attempt + 1, 64))
    return first_s + uniform() * max(0.0, limit_s - first_s)


FIRST = 32  # samples at first; fewer takes a fast link longer to fill, more floods a broker to which a fleet returns
LEAST = 4  # however many are lost


class _Sending(msgspec.Struct):
    body_bytes: int
    attempts: int
    sent_s: float
    due_s: float
    taken: Callable[[], bool]  # whether the broker has it


class Window:
    """Bounded in samples and in bytes; in the order in which samples were first sent."""

    def __init__(
        self, size: int, *, max_bytes: int, first_s: float, max_s: float, uniform: Callable[[], float]
    ) -> None:
        """At most `size` samples, FIRST at first, and no further one once `max_bytes` of bodies are on their way.

        `first_s`, `max_s` and `uniform` as in `retry_wait_s`.
        """
        self._most = size
        self._size = float(min(size, FIRST))
        self._calm = math.inf  # below this size it doubles with each window, above it grows by one
        self._shrunk_s = -math.inf
        self._max_bytes = max_bytes
        self._first_s = first_s
        self._max_s = max_s
        self._uniform = uniform
        self._sending: dict[str, _Sending] = {}
        self._bytes = 0

    @property
    def size(self) -> int:
        """Samples that may be on their way now."""
        return int(self._size)

    def __len__(self) -> int:
        """Samples on their way."""
        return len(self._sending)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._sending

    def has_room(self) -> bool:
        """Whether one more sample may be sent. A single sample may be larger than the limit in bytes."""
        return len(self._sending) < int(self._size) and self._bytes < self._max_bytes

    def sent(self, id_: str, body_bytes: int, *, now_s: float, taken: Callable[[], bool]) -> None:
        """A sample was sent, for the first time or again; `taken` tells whether the broker has it by now."""
        before = self._sending.get(id_)
        attempts = before.attempts + 1 if before else 0
        wait_s = retry_wait_s(attempts, first_s=self._first_s, max_s=self._max_s, uniform=self._uniform)
        self._sending[id_] = _Sending(body_bytes, attempts, now_s, now_s + wait_s, taken)
        self._bytes += 0 if before else body_bytes

    def receipted(self, ids: Iterable[str]) -> None:
        """The server has answered for these; unknown ids are ignored."""
        for id_ in ids:
            sending = self._sending.get(id_)
            if sending is not None and sending.attempts == 0:
                self._size = min(self._most, self._size + (1.0 if self._size < self._calm else 1.0 / self._size))
            self.forget([id_])

    def forget(self, ids: Iterable[str]) -> None:
        """No longer in the outbox; unknown ids are ignored."""
        for id_ in ids:
            gone = self._sending.pop(id_, None)
            self._bytes -= gone.body_bytes if gone else 0

    def due(self, now_s: float) -> list[str]:
        """Ids to send again now.

        One that the broker has not even taken is still in the queue of this connection: sending it again would only
        make a slow link slower, so it waits on.
        """
        for sending in self._sending.values():
            if sending.due_s <= now_s and not sending.taken():
                sending.due_s = now_s + self._first_s
        lost = {id_: sending for id_, sending in self._sending.items() if sending.due_s <= now_s}
        if any(sending.attempts >= 0 and sending.sent_s > self._shrunk_s for sending in lost.values()):
            self._size = self._calm = max(float(min(self._most, LEAST)), self._size / 2)
            self._shrunk_s = now_s
        return list(lost)

    def all_due(self) -> None:
        """Make every sample due at once: a new connection, or a server that is back, knows nothing of them."""
        for sending in self._sending.values():
            sending.attempts, sending.due_s, sending.taken = -1, -math.inf, _taken

    def next_due_s(self) -> float:
        """When `due` may next return something; infinity when the window is empty."""
        return min((sending.due_s for sending in self._sending.values()), default=math.inf)


def _taken() -> bool:
    return True
