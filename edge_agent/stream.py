"""How does a stream go on when its source fails, and when it ends?

A source that fails is opened again, later and later, where the loop has got to: nothing is read twice. One that ends
ends the agent, or leaves it waiting for orders.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_agent.config import Source
from edge_agent.contract.errors import SourceError, WinnowError
from edge_agent.contract.types import Reading
from edge_agent.loop import Loop
from edge_agent.pace import Pace
from edge_agent.source import IDLE_S, Fit, Start, open_source

log = logging.getLogger(__name__)

RETRY_S = (1.0, 60.0)  # first and longest wait before a source that failed is opened again


def play(
    loop: Loop, source: Source, stopping: threading.Event, *, report: Callable[[str], None], pace: Pace | None = None
) -> bool:
    """Run the loop until `stopping` or the end of the source; whether it ended by itself. Failures are reported."""
    pace = pace or Pace()
    first_s, longest_s = RETRY_S
    wait_s = first_s
    while not stopping.is_set():
        begun_s = time.monotonic()
        try:
            loop.run(pace.through(_readings(loop, source, stopping)), stopping)
        except SourceError as error:
            loop.run(iter(()), stopping)  # what is in hand was read, and is not read again
            wait_s = first_s if time.monotonic() - begun_s > longest_s else wait_s
            report(f"source: {error}: again in {wait_s:.0f} s")
            loop.pulse.beat(wait_s)
            stopping.wait(wait_s)
            wait_s = min(2 * wait_s, longest_s)
        else:
            return not stopping.is_set()
    return False


def _readings(loop: Loop, source: Source, stopping: threading.Event) -> Iterator[Reading | None]:
    """The source's readings; when it ends and the agent is to stay, silence."""
    opened = open_source(
        source.kind,
        path=Path(source.path),
        fit=Fit(loop.model.shape, str(loop.model.dtype)),
        rate_per_s=source.rate_per_s,
        poll_s=source.poll_s,
    )
    yield from _guarded(source.kind, opened.readings(Start(loop.cursor.seq, loop.cursor.mark)))
    if not source.stop_at_end:
        log.info("the source has ended; waiting for a stop")
        while True:
            stopping.wait(IDLE_S)
            yield None


def _guarded(kind: str, readings: Iterator[Reading | None]) -> Iterator[Reading | None]:
    """What a plug-in raises, as a SourceError: it is opened again."""
    try:
        yield from readings
    except WinnowError:
        raise
    except Exception as error:
        raise SourceError(f"{kind}: {type(error).__name__}: {error}") from error
