"""How often may an address be refused before it has to wait?

Pure, but for the clock it is given. Tokens and keys cannot be guessed; what is saved is the work of refusing, and the
log. Who is let in is never counted, so a fleet behind one address renews as it likes.
"""

from __future__ import annotations

from collections.abc import Callable

REFUSALS = 20  # in a window; fewer, and one broken device shuts its neighbours behind the same router out
WINDOW_MS = 60_000
ADDRESSES = 10_000  # remembered; more, and somebody with many addresses fills the memory


class Patience:
    """Counts refusals by address."""

    def __init__(self, *, now_ms: Callable[[], int]) -> None:
        """Everybody begins with all of it."""
        self._now_ms = now_ms
        self._window = 0
        self._refused: dict[str, int] = {}

    def has(self, address: str) -> bool:
        """Whether that address is still listened to.

        >>> patience = Patience(now_ms=lambda: 0)
        >>> for _ in range(REFUSALS):
        ...     patience.lose("10.0.0.7")
        >>> patience.has("10.0.0.7"), patience.has("10.0.0.8")
        (False, True)
        """
        self._turn()
        return self._refused.get(address, 0) < REFUSALS

    def lose(self, address: str) -> None:
        """It was refused."""
        self._turn()
        if address in self._refused or len(self._refused) < ADDRESSES:
            self._refused[address] = self._refused.get(address, 0) + 1

    def _turn(self) -> None:
        window = self._now_ms() // WINDOW_MS
        if window != self._window:
            self._window = window
            self._refused.clear()
