"""How does a sensor that goes on by itself become a source?

A thread of its own reads it, whatever the loop is doing, and puts what it gave into a feed; the loop takes from there.
The thread ends with the readings, and what it raises is raised among them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.types import Reading
from edge_agent.source import IDLE_S, Counts, Start, let_go
from edge_agent.source.feed import Feed

JOIN_S = 2.0  # longest wait for the thread: one that hangs in a driver is left behind


class Taken(NamedTuple):
    """One sample of a sensor. data: of the model's shape and dtype, not written to again. ref: as in Reading."""

    data: NDArray[np.generic]
    ref: str = ""


class Capture(Protocol):
    """What a kind of sensor has to give."""

    def samples(self, start: Start) -> Iterator[Taken | None]:
        """Open the sensor and read it until it has no more; None at least every IDLE_S or so. SourceError.

        Runs in a thread, and is closed there.
        """
        ...


class Live:
    """The source of a capture."""

    def __init__(
        self, capture: Capture, *, keep: Literal["every", "newest"], room: int = 0, counts: Counts | None = None
    ) -> None:
        self._capture = capture
        self._keep: Literal["every", "newest"] = keep
        self._room = room
        self._counts = counts or Counts()

    def readings(self, start: Start) -> Iterator[Reading | None]:
        """What the sensor gives from now on, counted on from `start.seq`."""
        feed: Feed[Taken] = Feed(keep=self._keep, room=self._room, counts=self._counts)
        thread = threading.Thread(target=_run, args=(self._capture, start, feed), name="source", daemon=True)
        thread.start()
        seq = start.seq
        try:
            while not feed.over:
                taken = feed.take(IDLE_S)
                if taken is None:
                    yield None
                else:
                    yield Reading(taken.data, seq, taken.ref)
                    seq += 1
            feed.take(0.0)  # raises what ended it
        finally:
            feed.end()
            thread.join(JOIN_S)


def _run(capture: Capture, start: Start, feed: Feed[Taken]) -> None:
    samples = capture.samples(start)
    try:
        for taken in samples:
            if feed.closed or (taken is not None and not feed.put(taken)):
                break
    except Exception as error:  # noqa: BLE001 - of sensors, their libraries and plug-ins: raised in the loop's thread
        feed.end(error)
    finally:
        let_go(samples)
        feed.end()
