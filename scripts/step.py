"""What is a step of the set-up, and what happens when it fails?

A step is a function that returns one line on what is there now. One that cannot go on raises StepFailed, whose text
says what to do; nothing after it runs. These scripts need nothing but Python 3.8: the right Python is what they look
for.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Callable, Sequence  # noqa: UP035 - these scripts also run on Python 3.8

ROOT = Path(__file__).resolve().parent.parent


class StepFailed(Exception):  # noqa: N818 - it reads as what happened
    """A step cannot go on; the text says why and what to do."""


def take(name: str, step: Callable[[], str]) -> str:
    """Run one step and print the line that it returns, with its seconds."""
    began = time.monotonic()
    try:
        said = step()
    except StepFailed as error:
        raise SystemExit(f"setup: step {name} failed: {error}") from error
    print(f"setup: {name:<10} {said} ({time.monotonic() - began:.1f} s)", flush=True)
    return said


def note(name: str, text: str) -> None:
    """Say what a long step is about to do."""
    print(f"setup: {name:<10} {text} ...", flush=True)


def ask(command: Sequence[str | Path]) -> tuple[int, str]:
    """Run a quiet command; its exit code (127: cannot be started) and all that it printed, in English."""
    env = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, check=False)
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode(errors="replace")


def demand(command: Sequence[str | Path], advice: str, cwd: Path = ROOT) -> None:
    """Run a command whose output the user sees; StepFailed with `advice` when it fails."""
    try:
        code = subprocess.run(command, cwd=cwd, check=False).returncode
    except OSError as error:
        raise StepFailed(f"{error}. {advice}") from error
    if code:
        raise StepFailed(f"`{' '.join(map(str, command))}` ended with {code}. {advice}")


def cache_dir() -> Path:
    """Where Winnow keeps what it downloaded, for every clone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow"
