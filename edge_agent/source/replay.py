"""How does a recording play as if it happened now?

An .npz with `x` (N, ...): row i is sample i, at a given rate or as fast as it is taken. The reference of a row is
`<file stem>:<row>`. It goes on where it was left, so a restart repeats nothing.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edge_agent.contract.errors import SourceError
from edge_agent.contract.types import Reading
from edge_agent.source import IDLE_S, Start


class Replay:
    """Plays the array `x` of an .npz."""

    def __init__(
        self,
        path: Path,
        *,
        rate_per_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Load the recording; SourceError when there is none. A rate of 0 plays as fast as it is taken."""
        self._stem = path.stem
        self._rate_per_s = rate_per_s
        self._monotonic = monotonic
        self._sleep = sleep
        try:
            with np.load(path, allow_pickle=False) as archive:
                self._x = archive["x"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path}: {error}: expected an .npz with an array x (N, ...)") from error
        if self._x.ndim < 2:
            raise SourceError(f"{path}: x has shape {self._x.shape}, expected (N, ...): one sample a row")

    def __len__(self) -> int:
        """Samples in the recording."""
        return len(self._x)

    def readings(self, start: Start) -> Iterator[Reading | None]:
        """Rows from `start.seq` on; when the taker is late, it catches up without a gap."""
        rows = range(start.seq, len(self._x))
        for row in paced(rows, rate_per_s=self._rate_per_s, monotonic=self._monotonic, sleep=self._sleep):
            yield None if row is None else Reading(self._x[row], row, f"{self._stem}:{row}")


def paced(
    rows: range, *, rate_per_s: float, monotonic: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[int | None]:
    """Rows when they are due, at a rate from now on; None while one waits for the next. 0: at once."""
    begun = monotonic()
    for number, row in enumerate(rows):
        if rate_per_s:
            due = begun + number / rate_per_s
            while (wait := due - monotonic()) > 0:
                sleep(min(wait, IDLE_S))
                if wait > IDLE_S:
                    yield None
        yield row
