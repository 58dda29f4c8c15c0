"""What is looked after once a second?

Steps, one after the other. One that fails holds up neither the others nor the next look, and is tried again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

TICK_S = 1.0

Step = Callable[[int], object]
"""Something to look after; told the wall clock, ms since 1970."""


class Tick:
    """Runs the steps, and says once what goes wrong."""

    def __init__(self, steps: Sequence[Step], *, now_ms: Callable[[], int]) -> None:
        """Nothing is looked at yet."""
        self._steps, self._now_ms = steps, now_ms
        self._complaints: set[str] = set()  # of the last look

    def until(self, stopped: threading.Event) -> None:
        """Look once a second, until `stopped`."""
        while not stopped.wait(TICK_S):
            self.look()

    def look(self) -> None:
        """One look."""
        complaints = set()
        for step in self._steps:
            try:
                step(self._now_ms())
            except Exception as error:  # the supervising loop: all else must go on
                complaint = f"{type(error).__name__}: {error}"
                complaints.add(complaint)
                if complaint not in self._complaints:
                    log.exception("a step of the scheduler failed, and is tried again")
        self._complaints = complaints
