"""What waits to be scored?

Samples that the running model was run on, in the order of the stream. What it said of them stands in its ring, in the
same rows.
"""

from __future__ import annotations

import time

from edge_agent.contract.types import Reading
from edge_agent.model import Model


class Batch:
    """One block while it fills. began_s: of each sample, when it came; took_s: of each run, by perf_counter."""

    __slots__ = ("began_s", "model", "readings", "took_s")

    def __init__(self, model: Model) -> None:
        """`model`: the one whose ring it fills."""
        self.model = model
        self.readings: list[Reading] = []
        self.began_s: list[float] = []
        self.took_s: list[float] = []

    def infer_rest(self) -> None:
        """On those that were waiting for company."""
        model, count = self.model, len(self.readings)
        if model.together == 1:
            return
        self.took_s[:] = [seconds / model.together for seconds in self.took_s]
        for row in range(count - count % model.together, count):
            began = time.perf_counter()
            model.infer(row)
            self.took_s.append(time.perf_counter() - began)

    def has_waited(self, seconds: float) -> bool:
        """Whether the first of it came longer ago than that."""
        return bool(self.began_s) and time.perf_counter() - self.began_s[0] > seconds

    def clear(self) -> None:
        """It is done with; the next samples go into the same rows."""
        self.readings.clear()
        self.began_s.clear()
        self.took_s.clear()
