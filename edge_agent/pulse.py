"""Is the agent still at work?

Whoever has the stream in hand says so whenever it has gone on, and how long it may be silent: the loop at the end of a
block and in every pause of the source, the loader before it waits for a model, the stream before it waits for a source
that failed. A source that is silent says None twenty times a second, so silence is no standstill; one that neither
gives a reading nor None is stuck, and so is a model or a plug-in that does not return.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STUCK_S = 60.0  # longest time between two, where nobody says: shorter takes a slow camera's start for a standstill
LOADING_S = 1800.0  # to check and load a model: building an engine for a GPU takes minutes


class Pulse:
    """When the next beat is due. Any thread may ask."""

    def __init__(self, stuck_s: float = STUCK_S, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """The first is due as if one had just come. `stuck_s`: longest time between two."""
        self._stuck_s = stuck_s
        self._monotonic = monotonic
        self._due_s = 0.0
        self.beat()

    def beat(self, longer_s: float = 0.0) -> None:
        """It has gone on. `longer_s`: so much longer than usual until it does so again."""
        self._due_s = self._monotonic() + self._stuck_s + longer_s

    def overdue_s(self) -> float:
        """Seconds since the beat that did not come; negative while there is time for it."""
        return self._monotonic() - self._due_s
