"""May a new model be loaded at all?

`run_check` tests it in a process of its own, whose memory and time are capped, so that a model that kills its process
kills nothing else. What becomes of it afterwards is judged by probation.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.contract import errors
from edge_agent.contract.errors import ArtifactError, EdgeError, IncompatibleError, StaleError

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger(__name__)

EXIT_REFUSED = 3  # of the checker: it says why in a line of JSON on stdout
POLL_S = 0.1
NICENESS = 10  # the stream goes first


class CheckStoppedError(EdgeError):
    """The agent stops before the check has ended: nothing is known of the artifact."""


class Refusal(msgspec.Struct, frozen=True):
    """What the checker says on stdout."""

    error: str
    message: str


def run_check(argv: Sequence[str], *, timeout_s: float, memory_bytes: int, stop: threading.Event | None = None) -> None:
    """Run the checker program; return when it ends with 0.

    Args:
        argv: the program and its arguments.
        timeout_s: of wall clock, and of processor time.
        memory_bytes: of its address space; 0: no limit.
        stop: ends the wait; the program is killed.

    Raises:
        ArtifactError, StaleError: of the class that the checker names, when it refuses (exit 3).
        IncompatibleError: when it is killed, runs out of time or ends in any other way.
        CheckStoppedError: when `stop` is set.
        OSError: when the program cannot be started.
    """
    import subprocess  # where there is something to check

    with subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            _cap(child.pid, timeout_s, memory_bytes)
            said, complained = _wait(child, timeout_s, stop)
        finally:
            _kill(child)
    if child.returncode != 0:
        raise _refusal(child.returncode, said, complained)


def _cap(pid: int, timeout_s: float, memory_bytes: int) -> None:
    # From outside: code between fork and exec may deadlock in a program with threads. The child is still starting.
    seconds = int(timeout_s) + 1
    try:
        resource.prlimit(pid, resource.RLIMIT_CPU, (seconds, seconds))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))  # or a model that crashes it fills the disk
        if memory_bytes:
            resource.prlimit(pid, resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        niceness = os.getpriority(os.PRIO_PROCESS, pid)  # the agent's own: only root could go below it
        os.setpriority(os.PRIO_PROCESS, pid, max(niceness, NICENESS))
        with contextlib.suppress(OSError):  # not offered everywhere
            Path(f"/proc/{pid}/oom_score_adj").write_text("1000")  # when memory runs out it goes, not the agent
    except ProcessLookupError:
        log.debug("the check ended before it was capped")


def _wait(child: subprocess.Popen[bytes], timeout_s: float, stop: threading.Event | None) -> tuple[bytes, bytes]:
    import subprocess

    until_s = time.monotonic() + timeout_s
    while True:
        try:
            return child.communicate(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            if stop is not None and stop.is_set():
                raise CheckStoppedError("the agent stopped during the check of a model") from None
            if time.monotonic() > until_s:
                raise IncompatibleError(f"the check did not end within {timeout_s:g} s") from None


def _kill(child: subprocess.Popen[bytes]) -> None:
    """With its own children, which hold its pipes. Not once it was reaped: the number may be another's by then."""
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)


def _refusal(status: int, said: bytes, complained: bytes) -> ArtifactError | StaleError:
    if status == EXIT_REFUSED:
        try:
            refusal = msgspec.json.decode(_last_line(said, chars=None), type=Refusal)
        except (msgspec.DecodeError, ValueError):
            return IncompatibleError(f"the check ended with {status}: {_last_line(said)}")
        kind = getattr(errors, refusal.error, None)
        if isinstance(kind, type) and issubclass(kind, (ArtifactError, StaleError)):
            return kind(refusal.message)
        return IncompatibleError(f"{refusal.error}: {refusal.message}")
    ended = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
    return IncompatibleError(f"the check {ended}: {_last_line(complained) or 'it said nothing'}")


def _last_line(output: bytes, *, chars: int | None = 300) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1][:chars] if lines else ""
