"""How are all devices of a simulation told what to do?

Some processes, each with a part of them (crowd.py). They end with us, however that happens: their pipes do.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import NamedTuple

from server.errors import ServerError
from server.simulate import crowd
from server.simulate.tally import Tally, together
from server.simulate.verbs import Look, Spec, Verb

ANSWER_S = 60.0  # longest that a process may be busy
END_S = 5.0
UNDER_WAY = 64  # connections in the making, of all processes: mosquitto's listen queue holds 100


class Seen(NamedTuple):
    """One look at all devices."""

    tally: Tally
    to_give: int  # samples that are still to be selected


class Fleet:
    """The processes; ended on the way out."""

    def __init__(self, spec: Callable[[int, int], Spec], *, devices: int, processes: int) -> None:
        """`spec(first, count)` says what a process plays."""
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        for number in range(processes):
            first = devices * number // processes
            here, there = context.Pipe()
            made = spec(first, devices * (number + 1) // processes - first)
            made = made._replace(under_way=max(1, UNDER_WAY // processes))
            process = context.Process(target=crowd.play, args=(made, there), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def __enter__(self) -> Fleet:
        """Use it in a `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(END_S)
            if process.is_alive():
                process.kill()

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes if process.pid is not None]

    def tell(self, verb: Verb) -> None:
        """Have all do something."""
        for pipe in self._pipes:
            try:
                pipe.send(verb)
            except OSError as error:
                raise ServerError(f"a process that plays devices has died: {error}") from error

    def look(self) -> Seen:
        """How all are doing; waits are told once."""
        self.tell(Look())
        tallies, to_give = [], 0
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            if not pipe.poll(ANSWER_S):
                raise ServerError(f"process {process.pid}, which plays devices, does not answer for {ANSWER_S:.0f} s")
            try:
                tally, gifts = pipe.recv()
            except (EOFError, OSError) as error:
                raise ServerError("a process that plays devices has died: see what it said above") from error
            tallies.append(tally)
            to_give += gifts
        return Seen(together(tallies), to_give)
