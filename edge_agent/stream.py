"""How does a stream go on when its source fails, and when it ends?

A source that fails is opened again, later and later, where the loop has got to: nothing is read twice. One that ends
ends the agent, or leaves it waiting for orders. One behind which somebody waits gets an answer to every sample.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator

from edge_agent.config import Source
from edge_agent.contract.errors import SourceError, WinnowError
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import SourceState
from edge_agent.intake import Intake
from edge_agent.loop import Loop
from edge_agent.pace import Pace
from edge_agent.source import IDLE_S, Answering, Counts, Fit, Start, let_go
from edge_agent.source import Source as Opened
from edge_agent.source.kinds import open_source

log = logging.getLogger(__name__)

RETRY_S = (1.0, 60.0)  # first and longest wait before a source that failed is opened again


class Stream:
    """One source over an agent's run. `state` may be asked from any thread."""

    def __init__(self, source: Source, *, report: Callable[[str], None], pace: Pace | None = None) -> None:
        """`report` is told of failures. `pace`: how fast readings are taken; None: as they come."""
        self._source = source
        self._pace = pace or Pace()
        self._report = report
        self._counts = Counts()
        self._restarts = 0
        self._failing = ""

    def state(self) -> SourceState:
        """How it does."""
        counts = self._counts
        return SourceState(
            kind=self._source.kind,
            skipped=counts.skipped,
            gaps=counts.gaps,
            unreadable=counts.unreadable,
            restarts=self._restarts,
            failing=self._failing,
        )

    @property
    def answers(self) -> bool:
        """Whether somebody waits for each prediction, as far as that is known before it is opened."""
        return self._source.kind == "push"

    def play(self, loop: Loop, stopping: threading.Event) -> bool:
        """Run the loop until `stopping` or the end of the source; whether it ended by itself."""
        first_s, longest_s = RETRY_S
        wait_s, intake = first_s, Intake(loop)
        while not stopping.is_set():
            begun_s = time.monotonic()
            try:
                self._run(loop, intake, stopping)
            except SourceError as error:
                intake.run(iter(()), stopping)  # what is in hand was read, and is not read again
                wait_s = first_s if time.monotonic() - begun_s > longest_s else wait_s
                self._failing = str(error)
                self._report(f"source: {error}: again in {wait_s:.0f} s")
                loop.pulse.beat(wait_s)
                stopping.wait(wait_s)
                wait_s = min(2 * wait_s, longest_s)
                self._restarts += 1
            else:
                return not stopping.is_set()
        return False

    def _run(self, loop: Loop, intake: Intake, stopping: threading.Event) -> None:
        fit = Fit(loop.model.shape, str(loop.model.dtype))
        opened = open_source(self._source, fit=fit, counts=self._counts)
        readings = self._readings(loop, opened, stopping)
        try:
            if isinstance(opened, Answering):
                self._answer(loop, opened, self._pace.through(readings), stopping)
            else:
                intake.run(self._pace.through(readings), stopping)
        finally:
            readings.close()  # its threads end with it

    def _answer(
        self, loop: Loop, opened: Answering, readings: Iterator[Reading | None], stopping: threading.Event
    ) -> None:
        from edge_agent.answers import Answers  # where somebody waits for them

        answers = Answers(loop)
        try:
            for reading in readings:
                if reading is None:
                    answers.idle()
                else:
                    about = answers.model.manifest
                    said = answers.of(reading.data, reading.seq, reading.ref, reading.mark)
                    if said is None:
                        loop.refuse(reading, first=False)
                    opened.answer(reading, said, about.version, about.outcomes[said.label] if said else "")
                if stopping.is_set():
                    break
        finally:
            answers.close()

    def _readings(self, loop: Loop, opened: Opened, stopping: threading.Event) -> Generator[Reading | None, None, None]:
        """The source's readings; when it ends and the agent is to stay, silence."""
        readings = opened.readings(Start(loop.cursor.seq, loop.cursor.mark))
        try:
            yield from _guarded(self._source.kind, self._noticed(readings))
        finally:
            let_go(readings)
        if not self._source.stop_at_end:
            self._note_end()
            while True:
                stopping.wait(IDLE_S)
                yield None

    def _note_end(self) -> None:
        """A recording has an end; a program that wrote into ours and has ended is a sensor that died."""
        if self._source.kind == "stdin":
            self._failing = "the program that wrote into it has ended; whoever starts both has to start them again"
            self._report(f"source: stdin: {self._failing}")
        else:
            log.info("the source has ended; waiting for a stop")

    def _noticed(self, readings: Iterator[Reading | None]) -> Iterator[Reading | None]:
        """With the first sample, a source that failed is well again."""
        for reading in readings:
            if reading is not None and self._failing:
                log.info("source: there are samples again")
                self._failing = ""
            yield reading
            if reading is not None:
                break
        yield from readings


def _guarded(kind: str, readings: Iterator[Reading | None]) -> Iterator[Reading | None]:
    """What a plug-in raises, as a SourceError: it is opened again."""
    try:
        yield from readings
    except WinnowError:
        raise
    except Exception as error:
        raise SourceError(f"{kind}: {type(error).__name__}: {error}") from error
