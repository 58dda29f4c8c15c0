"""May a new model be trusted?

Twice it is asked. Before it runs, `run_check` tests it in a process of its own, whose memory and time are capped, so
that a model that kills its process kills nothing else. While it runs live, `Probation` (pure) judges what it does.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Sequence

import msgspec

from edge_agent.contract import errors
from edge_agent.contract.errors import ArtifactError, EdgeError, IncompatibleError, StaleError

log = logging.getLogger(__name__)

EXIT_REFUSED = 3  # of the checker: it says why in a line of JSON on stdout
POLL_S = 0.1
NICENESS = 10  # the stream goes first
SLACK_MS = 1.0  # below it the scheduler decides who is slower; too high, and a small model may grow tenfold unnoticed


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
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
    except ProcessLookupError:
        log.debug("the check ended before it was capped")


def _wait(child: subprocess.Popen[bytes], timeout_s: float, stop: threading.Event | None) -> tuple[bytes, bytes]:
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


class GoOn(msgspec.Struct, frozen=True):
    """Not known yet."""


class Commit(msgspec.Struct, frozen=True):
    """It did well: from now on this is the model."""


class Revert(msgspec.Struct, frozen=True):
    """Back to the one before."""

    reason: str


Verdict = GoOn | Commit | Revert


class Probation(msgspec.Struct, frozen=True, kw_only=True):
    """The rule by which a model that runs live is committed or reverted.

    It is judged when it has seen `min_samples` and `min_s` have passed. Earlier than that it is reverted as soon as
    its invalid samples are too many even if every other sample up to `min_samples` were fine. Latency is judged at the
    end only: the first samples warm the caches up.

    >>> rule = Probation(
    ...     min_samples=200, min_s=5.0, max_invalid_share=0.01, max_latency_ratio=3.0, reference_p95_ms=4.0
    ... )
    >>> rule.judge(samples=3, invalid=3, elapsed_s=0.1, latency_p95_ms=4.0)
    Revert(reason='3 of 3 samples gave no finite result, at most 1 % may')
    >>> rule.judge(samples=200, invalid=2, elapsed_s=5.0, latency_p95_ms=9.0)
    Commit()
    """

    min_samples: int
    min_s: float
    max_invalid_share: float
    max_latency_ratio: float
    reference_p95_ms: float | None  # of the model before; None when there was none

    def judge(self, *, samples: int, invalid: int, elapsed_s: float, latency_p95_ms: float) -> Verdict:
        """What to do, given what the model did since it took over. `samples` includes the `invalid` ones."""
        if invalid > self.max_invalid_share * max(samples, self.min_samples):
            share = f"{100 * self.max_invalid_share:g} %"
            return Revert(f"{invalid} of {samples} samples gave no finite result, at most {share} may")
        if samples < self.min_samples or elapsed_s < self.min_s:
            return GoOn()
        if self.reference_p95_ms is not None:
            limit_ms = self.max_latency_ratio * self.reference_p95_ms + SLACK_MS
            if not latency_p95_ms <= limit_ms:
                return Revert(f"95 % of the samples took up to {latency_p95_ms:.3g} ms, at most {limit_ms:.3g} may")
        return Commit()
