"""How is a program started that must not outlive us?

The kernel passes our death on (Linux, PR_SET_PDEATHSIG), so that not even a kill -9 leaves an orphan. That signal comes
when the *thread* that started the child ends: start it from a thread that lives as long as the child does. Elsewhere
than on Linux only an orderly end takes the child along.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO

# Runs in the child before its program does: ask for our death to be passed on, and look whether it happened already.
_TRAMPOLINE = """
import ctypes, os, resource, sys
parent, number, many, *command = sys.argv[1:]
if many:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(number), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)
os.execv(command[0], command)
"""


def spawn(
    argv: Sequence[str],
    *,
    output: IO[bytes] | int,
    errors: IO[bytes] | int = subprocess.STDOUT,
    environment: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    many_files: bool = False,
) -> subprocess.Popen[bytes]:
    """Start `argv` (an absolute path first) in a session of its own: Ctrl-C is ours to handle.

    Args:
        argv: the program and its arguments.
        output: where its stdout goes: a file, or subprocess.PIPE.
        errors: where its stderr goes; with its stdout by default.
        environment: added to ours.
        death_signal: what it gets when we die.
        many_files: it may open as many as we may allow it; by default a system allows a thousand.
    """
    said = [str(os.getpid()), str(int(death_signal)), "many" if many_files else ""]
    command = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, *said, *argv]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        env=None if environment is None else {**os.environ, **environment},
        start_new_session=True,
    )


def end(children: Sequence[subprocess.Popen[bytes]], *, within_s: float) -> None:
    """Ask all to end, wait so long for all of them, and kill those that did not."""
    deadline = time.monotonic() + within_s
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
