"""What is looked after once a second?

Steps, one after the other. One that fails holds up neither the others nor the next look, and is tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from server.errors import StoreError

log = logging.getLogger(__name__)

TICK_S = 1.0

Step = Callable[[int], object]
"""Something to look after; told the wall clock, ms since 1970."""


def always() -> bool:
    """Nobody else may begin."""
    return True


class Tick:
    """Runs the steps, and says once what goes wrong."""

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        now_ms: Callable[[], int],
        acts: Callable[[], bool] = always,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is looked at yet. `acts`: whether this process may; once not, no step begins."""
        self._steps, self._now_ms, self._acts, self._monotonic = steps, now_ms, acts, monotonic
        self._complaints: set[str] = set()  # of the last look
        self.looked_s = monotonic()
        """When the last step ended, by `monotonic`."""

    def until(self, stopped: threading.Event) -> None:
        """Look once a second, until `stopped`, or as long as this process may."""
        while self._acts() and not stopped.wait(TICK_S):
            self.look()

    def look(self) -> None:
        """One look."""
        complaints: set[str] = set()
        for step in self._steps:
            if not self._acts():
                return
            try:
                step(self._now_ms())
            except Exception as error:  # the supervising loop: all else must go on
                complaint = f"{type(error).__name__}: {error}"
                if complaint not in self._complaints | complaints:
                    where = not isinstance(error, StoreError)  # it is nobody's mistake, and says all
                    log.error("a step of the scheduler failed, and is tried again: %s", error, exc_info=where)
                complaints.add(complaint)
            self.looked_s = self._monotonic()
        self._complaints = complaints
        self.looked_s = self._monotonic()
