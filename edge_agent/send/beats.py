"""When is the next heartbeat?

As often as configured; seldom while the link is spared; and never so often that heartbeats take more than half of
the bytes of a day. How long the next may take is told in the heartbeat itself, so that nobody is taken for dead.
"""

from __future__ import annotations

from edge_agent.contract.wire import Held
from edge_agent.send.allowance import Allowance
from edge_agent.send.lull import spares_link

LULL_S = 300.0  # between heartbeats while the link is spared, at least


class Beats:
    """Of one uplink; seconds are of its monotonic clock."""

    def __init__(self, every_s: float, allowance: Allowance) -> None:
        """`every_s`: as configured."""
        self._every_s, self._allowance = every_s, allowance
        self._bytes = 0  # of the last one, or about
        self._due_s = 0.0

    def every_s(self, held: Held) -> float:
        """Longest time between two, now."""
        return max(self._every_s, LULL_S if spares_link(held) else 0.0, self._allowance.pace_s(self._bytes))

    def expect(self, size: int) -> None:
        """About so large is the first one: it tells how long the next may take, before its own size is known."""
        self._bytes = self._bytes or size

    def start(self, now_s: float) -> None:
        """A new connection, or news: one is due."""
        self._due_s = now_s

    def is_due(self, now_s: float) -> bool:
        """Whether nothing may go before it."""
        return now_s >= self._due_s

    def wait_s(self, now_s: float, held: Held) -> float:
        """Seconds until it is due and there is room for it; 0: say it now."""
        self._due_s = min(self._due_s, now_s + self.every_s(held))  # a lull may have ended
        return max(self._due_s - now_s, 0.0) or self._allowance.wait_s(self._bytes, now_s)

    def said(self, size: int, now_s: float, held: Held) -> None:
        """One of `size` bytes went."""
        self._bytes = size
        self._due_s = now_s + self.every_s(held)
