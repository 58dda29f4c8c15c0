"""A source that gives a few readings, and then neither a reading nor None, while a file is there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_agent.contract.types import Reading
from edge_agent.source import IDLE_S, Fit, Start


class Stuck:
    def __init__(self, *, path: Path, fit: Fit, rate_per_s: float) -> None:
        self._hold, self._fit = path, fit

    def readings(self, start: Start) -> Iterator[Reading | None]:
        for seq in range(start.seq, start.seq + 5):
            yield Reading(np.zeros(self._fit.shape, self._fit.dtype), seq)
        while True:
            while self._hold.exists():
                time.sleep(0.01)
            time.sleep(IDLE_S)
            yield None
