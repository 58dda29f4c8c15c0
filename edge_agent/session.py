"""How does the agent run inside somebody's own loop?

    from edge_agent import Agent

    with Agent.open("agent.toml") as agent:
        prediction = agent.process(x)

The caller's loop takes the place of a source; all else is the agent that `winnow-agent run` runs: selection, outbox,
uplink, trials of new models and their end. Any thread may call; they take turns.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edge_agent.answers import Answers
from edge_agent.contract.errors import EdgeError, SourceError
from edge_agent.contract.types import Prediction
from edge_agent.loop import Loop
from edge_agent.model import misfit


class Session:
    """An agent at work, until `close`."""

    def __init__(self, loop: Loop, running: ExitStack) -> None:
        """`running` is closed at the end."""
        self._answers = Answers(loop)
        self._running = running
        self._lock = threading.Lock()
        self._seq = loop.cursor.seq
        self._closed = False

    def process(self, x: NDArray[np.generic], ref: str = "") -> Prediction:
        """What the model says of a sample, `input_shape` and `input_dtype`; it may be selected, and sent later.

        `ref`: the caller's own name for it. `x` is copied.
        A sample with NaN gets a confidence of NaN. SourceError says both shapes of one that does not fit; EdgeError
        after `close`, and after a failure, which is raised once. A block that is full is scored and chosen from
        beside the calls; a call waits only where that takes longer than the next block does to fill.
        """
        with self._lock:
            if self._closed:
                raise EdgeError("process: this agent was closed: open it again")
            said = self._answers.of(x, self._seq, ref)
            if said is None:
                text = misfit(self._answers.model.manifest, x).replace("the source", "the caller")
                raise SourceError(f"process: {text}")
            self._seq += 1
            return said

    def close(self) -> None:
        """Keep what is in hand, and end. What was selected and not sent waits on disk for the next time."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with self._running:
            self._answers.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, of the version that runs now."""
        return self._answers.model.manifest.outcomes

    @property
    def version(self) -> int:
        """Of the model that runs now."""
        return self._answers.model.version

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self._answers.model.shape

    @property
    def input_dtype(self) -> str:
        """Of one sample."""
        return str(self._answers.model.dtype)
