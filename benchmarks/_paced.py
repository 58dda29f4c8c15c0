"""A source for `footprint.py`: one sample, then a stream at an even rate; it notes what had been spent by then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_agent.contract.types import Reading
from edge_agent.source import Fit, Start

FLUSHED_S = 0.02  # by then a block has waited for long enough, as footprint.py configures it
SPENT = "first.txt"  # beside the recording: seconds of CPU until the first prediction


class Paced:
    """Rows of an .npy file, round and round."""

    def __init__(self, *, path: Path, fit: Fit, rate_per_s: float) -> None:
        self._path, self._x, self._rate_per_s = path, np.load(path).astype(fit.dtype, copy=False), rate_per_s

    def readings(self, start: Start) -> Iterator[Reading | None]:
        """For ever."""
        yield Reading(self._x[0], start.seq)
        time.sleep(FLUSHED_S)
        yield None  # it has waited for long enough: what was read is inferred on, scored and chosen from
        spent = time.process_time()
        self._path.with_name(SPENT).write_text(f"{spent}")
        begun, seq = time.monotonic(), start.seq
        while True:
            seq += 1
            while (wait := begun + (seq - start.seq) / self._rate_per_s - time.monotonic()) > 0:
                time.sleep(min(wait, 0.05))
                if wait > 0.05:
                    yield None
            yield Reading(self._x[seq % len(self._x)], seq)
