"""How do lines of text become samples?

Bytes come in whatever pieces a port gives them; a line ends at a newline, is read into steps (numbers.py), and those
are cut into windows (window.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from edge_agent.contract.errors import SourceError
from edge_agent.source import Counts, Fit, Start
from edge_agent.source.live import Taken
from edge_agent.source.numbers import Numbers
from edge_agent.source.options import Lines, Window
from edge_agent.source.window import Windows, plan

log = logging.getLogger(__name__)

LINE_MAX_BYTES = 1_000_000  # what is longer is no line: binary, or the wrong baud rate


class Port(Protocol):
    """Where bytes come from."""

    name: str

    def open(self) -> None:
        """SourceError when it cannot be."""
        ...

    def read(self) -> bytes | None:
        """What is there, b"" after IDLE_S of nothing, None at the end. SourceError."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class LineReader:
    """The capture of a port that gives lines."""

    def __init__(
        self,
        port: Port,
        *,
        fit: Fit,
        lines: Lines,
        window: Window,
        counts: Counts,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """ConfigError when the model takes no such windows."""
        self._port = port
        self._lines = lines
        self._cut = plan(window, fit)
        self._counts = counts
        self._monotonic = monotonic

    def samples(self, _start: Start) -> Iterator[Taken | None]:
        """Windows of what comes from now on; a port cannot go back."""
        numbers = Numbers(self._lines, channels=self._cut.channels, dtype=self._cut.fit.dtype)
        windows = Windows(self._cut, self._counts)
        self._port.open()
        try:
            for line, waited_s in self._whole_lines():
                if line is None:
                    yield None
                    continue
                try:
                    steps = numbers.steps(line.decode("utf-8", "replace"))
                except ValueError as error:
                    self._unreadable(str(error))
                    continue
                for window in windows.add(steps, waited_s=waited_s):
                    yield Taken(window)
        finally:
            self._port.close()

    def _whole_lines(self) -> Iterator[tuple[bytes | None, float]]:
        """Each line with the time that the port was waited for before it; None for a wait that goes on."""
        rest, waited_s = b"", 0.0
        while True:
            began_s = self._monotonic()
            piece = self._port.read()
            waited_s += self._monotonic() - began_s
            if piece is None:
                if rest:
                    yield rest, 0.0
                return
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > LINE_MAX_BYTES:
                raise SourceError(f"{self._port.name}: {len(rest)} bytes without a newline: expected lines of text")
            if not piece:
                yield None, 0.0
            for line in lines:
                yield line, waited_s
                waited_s = 0.0

    def _unreadable(self, why: str) -> None:
        self._counts.unreadable += 1
        if self._counts.unreadable == 1:
            log.warning("%s: %s: such lines are counted as unreadable and passed over", self._port.name, why)
