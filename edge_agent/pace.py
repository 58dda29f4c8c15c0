"""How fast are readings taken from the source?

At most `max_rate_per_s` of them, evenly; and while the machine is too hot, only for a share of the time (heat.py). Both
by waiting before the next is asked for: nothing that was read is thrown away. A source that waits to be asked (a
folder, a recording) gives everything, later; one that goes on by itself gives what it then has, as it would to a slow
model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from edge_agent.contract.types import Reading

IDLE_S = 0.05  # longest silence, as for sources: what falls due in the loop is not held up
LEAST_REST_S = 0.01  # shorter rests are saved up: a sleep of less is mostly the clock's


class Pace:
    """`share` may be set from another thread."""

    def __init__(
        self,
        *,
        max_rate_per_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """A rate of 0: no limit. `cpu_s`: processor time of the thread that reads."""
        self.max_rate_per_s = max_rate_per_s
        self.share = 1.0  # of the time that reading, inferring and choosing may take, 0 < share <= 1
        self._gap_s = 1.0 / max_rate_per_s if max_rate_per_s else 0.0
        self._monotonic = monotonic
        self._cpu_s = cpu_s
        self._sleep = sleep

    def through(self, readings: Iterator[Reading | None]) -> Iterator[Reading | None]:
        """The readings, each when it may be taken; None in between, so that nobody waits for long."""
        due_s, owed_s = self._monotonic(), 0.0
        while True:
            since_s: float | None = self._cpu_s()
            for reading in readings:
                if reading is None or (self.share >= 1.0 and not self._gap_s):
                    yield reading
                    since_s = None  # what was done at full speed is not made up for
                    continue
                if since_s is not None:
                    owed_s += (self._cpu_s() - since_s) * (1.0 / self.share - 1.0)
                began_s = self._monotonic()
                yield reading
                owed_s += (self._monotonic() - began_s) * (1.0 / self.share - 1.0)
                due_s = began_s + self._gap_s
                break
            else:
                return
            if owed_s >= LEAST_REST_S:
                due_s, owed_s = max(due_s, self._monotonic() + owed_s), 0.0
            while (wait_s := due_s - self._monotonic()) > 0:
                self._sleep(min(wait_s, IDLE_S))
                yield None
