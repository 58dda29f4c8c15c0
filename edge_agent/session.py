"""How does the agent run inside somebody's own loop?

    from edge_agent import Agent

    with Agent.open("agent.toml") as agent:
        prediction = agent.process(x)

The caller's loop takes the place of a source; all else is the agent that `winnow-agent run` runs: selection, outbox,
uplink, trials of new models and their end. Any thread may call; they take turns.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import ExitStack
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import EdgeError, SourceError
from edge_agent.contract.types import Prediction, Reading
from edge_agent.loop import Loop
from edge_agent.model import misfit

END = object()  # never given to the loop


class Session:
    """An agent at work, until `close`."""

    def __init__(self, loop: Loop, running: ExitStack, *, flush_s: float) -> None:
        """`running` is closed at the end. What waits in a block is let go on every `flush_s`, whoever calls or not."""
        self._loop = loop
        self._running = running
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._seq = loop.cursor.seq
        self._next: deque[Reading | object | None] = deque()
        readings = iter(self._next.popleft, END)
        self._steps = loop.steps(readings, threading.Event(), answering=True)  # type: ignore[arg-type]
        self._flush_s = flush_s
        self._flushing = threading.Thread(target=self._flush, name="flush", daemon=True)
        self._flushing.start()

    def process(self, x: NDArray[np.generic], ref: str = "", *, copy: bool = True) -> Prediction:
        """What the model says of a sample, `input_shape` and `input_dtype`; it may be selected, and sent later.

        `ref`: the caller's own name for it. `copy`: False where the caller will never write to `x` again, which spares
        the memory of large ones.
        A sample with NaN gets a confidence of NaN. SourceError says both shapes of one that does not fit; EdgeError
        after `close`. The call after a full block waits for its scores and choices, some 10 us a sample of the block,
        a few ms for 256; `[model] block` makes that shorter, and oftener.
        """
        with self._lock:
            model = self._loop.model
            if x.shape != model.shape or x.dtype != model.dtype:
                raise self._misfit(x)
            answered = self._go_on(Reading(x.copy() if copy else x, self._seq, ref))
            self._seq += 1
            if answered is None:
                raise EdgeError("process: this agent was closed, or failed before: open it again")
            if (said := answered[1]) is None:  # another model took over in this very call
                raise self._misfit(x)
            return said

    def close(self) -> None:
        """Keep what is in hand, and end. What was selected and not sent waits on disk for the next time."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            self._next.append(END)
            for _ in self._steps:
                pass
        self._flushing.join()
        self._running.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, of the version that runs now."""
        return self._loop.model.manifest.outcomes

    @property
    def version(self) -> int:
        """Of the model that runs now."""
        return self._loop.model.version

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self._loop.model.shape

    @property
    def input_dtype(self) -> str:
        """Of one sample."""
        return str(self._loop.model.dtype)

    def _go_on(self, given: Reading | None) -> tuple[Reading | None, Prediction | None] | None:
        """What the loop says of it; None when the loop has ended, which then takes nothing more."""
        self._next.append(given)
        answered = next(self._steps, None)
        if answered is None:
            self._next.clear()
        return answered

    def _misfit(self, x: NDArray[np.generic]) -> SourceError:
        return SourceError(f"process: {misfit(self._loop.model.manifest, x)}".replace("the source", "the caller"))

    def _flush(self) -> None:
        while not self._closed.wait(self._flush_s):
            with self._lock:
                if not self._closed.is_set() and self._go_on(None) is None:
                    return
