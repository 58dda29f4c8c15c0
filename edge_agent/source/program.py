"""How does what another program writes become a source?

It runs as a child of the agent's, so that one that hangs or crashes can be ended and started again. What it writes
comes through a pipe; what it says beside is kept, for its last words.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from edge_agent.source import IDLE_S

READ_BYTES = 1 << 16  # as much as a pipe holds
STOP_S = 2.0  # longest wait for its end once it was asked to
SAID_BYTES = 2000  # of what it says


class Program:
    """A running child. Whoever starts it closes it."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, told: bytes | None = None) -> None:
        """`told`: written to its stdin, which is closed when it is to end; None: it is sent SIGTERM."""
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if told is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=env,
            start_new_session=True,  # Ctrl-C is for the agent, which ends it
        )
        self._said = b""
        if told is not None and self._process.stdin is not None:
            self._process.stdin.write(told)

    @property
    def said(self) -> list[str]:
        """The last lines of what it said on stderr."""
        return self._said.decode("utf-8", "replace").strip().splitlines()

    def pieces(self) -> Iterator[tuple[bytes, bytes]]:
        """(what it wrote, what it said) until it writes no more; both empty after IDLE_S without either.

        What was written before something is said stands in the pipe by then, and comes with it or before.
        """
        out, says = (pipe.fileno() for pipe in (self._process.stdout, self._process.stderr) if pipe is not None)
        open_pipes = [out, says]
        while True:
            ready = select.select(open_pipes, [], [], IDLE_S)[0]
            found = {pipe: os.read(pipe, READ_BYTES) for pipe in ready}
            said = found.get(says, b"")
            self._said = (self._said + said)[-SAID_BYTES:]
            if says in found and not said:
                open_pipes.remove(says)
            if found.get(out) == b"":
                return
            yield found.get(out, b""), said

    def killed_by(self) -> str:
        """The signal that ended it, to be asked when it writes no more; empty: none did."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        status = self._process.returncode or 0
        return signal.Signals(-status).name if status < 0 else ""

    def close(self) -> None:
        """End it: asked to, then killed."""
        process = self._process
        if process.stdin is None:
            process.terminate()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
