"""Does the agent work at a pace that the machine can bear?

Looks at the machine every few seconds, lets the rule of heat.py decide, sets the pace and says so: an event when it
slows down and when it is back at full speed, and every heartbeat meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_agent.contract.wire import PaceState
from edge_agent.heat import Backoff
from edge_agent.pace import Pace
from edge_agent.send.health import ROOT, heat

LOOK_S = 5.0


class Thermostat:
    """`tend` is called by housekeeping; `state` by whoever says how the agent is."""

    def __init__(self, pace: Pace, *, hot_c: float, report: Callable[[str], None], root: Path = ROOT) -> None:
        """`hot_c`: limit of every zone; 0: as its trip points say. `root`: where /sys is."""
        self._pace = pace
        self._hot_c = hot_c
        self._report = report
        self._root = root
        self._backoff = Backoff()
        self._next_s = float("-inf")
        self._why = ""

    def tend(self, now_s: float) -> None:
        """A look, when one is due."""
        if now_s < self._next_s:
            return
        self._next_s = now_s + LOOK_S
        seen, before = heat(self._root, hot_c=self._hot_c), self._backoff.share
        share = self._pace.share = self._backoff.look(seen, now_s)
        if share < before:
            self._why = seen.text
            self._report(f"heat: {seen.text}: working {share:.1%} of the time from now on")
        elif before < share == 1.0:
            self._why = ""
            self._report(f"heat: back at full speed: {seen.text or 'no zone is hot'}")

    @property
    def state(self) -> PaceState:
        """What is in force."""
        return PaceState(max_rate_per_s=self._pace.max_rate_per_s, share=self._pace.share, why=self._why)
