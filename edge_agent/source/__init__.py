"""Where do samples come from?

A source is one method, `readings(start)`: an iterator of Reading, or of None when there is nothing for the moment, so
that the agent can do what falls due. It ends when there will be nothing more. It raises SourceError when the sensor
cannot be read; the agent then opens it again, later and later. One whose samples somebody waits for has `answer` too.

    replay, folder, wav                        read at the loop's own pace
    camera, stdin, serial, mqtt, mic, push     sensors that go on by themselves: live.py and feed.py stand between
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from edge_agent.contract.types import Prediction, Reading

IDLE_S = 0.05  # longest silence before a None; longer delays what falls due, shorter wakes the processor for nothing


class Start(NamedTuple):
    """Where to go on: the next sequence number, and the mark of the last reading that was dealt with ("" at first)."""

    seq: int = 0
    mark: str = ""


class Fit(NamedTuple):
    """What the model takes: one sample's shape and dtype."""

    shape: tuple[int, ...]
    dtype: str


class Counts:
    """What became no sample since the agent's start; a source counts up, anybody may look.

    skipped: taken the place of by newer ones. gaps: pauses that began a new window. unreadable: lines, messages,
    frames or requests that held no sample.
    """

    def __init__(self) -> None:
        self.skipped = self.gaps = self.unreadable = 0


class Source(Protocol):
    """The seam. A plug-in is a class of this shape, made with (path=, fit=, rate_per_s=)."""

    def readings(self, start: Start) -> Iterator[Reading | None]:
        """Samples from `start` on."""
        ...


@runtime_checkable
class Answering(Protocol):
    """A source somebody behind which waits for predictions; each of its samples is answered before the next."""

    def answer(self, reading: Reading, said: Prediction | None, version: int, name: str) -> None:
        """What the model of that version says of a reading, and how it calls that class; None: it does not take it."""
        ...


def let_go(readings: Iterator[object]) -> None:
    """End what nobody will read on: its `finally` lets go of the sensor; an iterator without `close` holds none."""
    close = getattr(readings, "close", None)
    if close is not None:
        close()
