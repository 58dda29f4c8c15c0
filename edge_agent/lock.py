"""Who works on a data folder?

One agent at a time. The kernel lets go of the lock however its holder ends, so it also tells whether an agent runs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.contract.errors import ConfigError, EdgeError

LOCK = "agent.lock"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder, made if need be. ConfigError when it cannot be written, EdgeError when another has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"[device] data_dir {folder}: {error.strerror}: expected a folder to write to") from error
    try:
        if not _take(handle):
            raise EdgeError(f"{folder}: another winnow-agent works here: stop it, or choose another [device] data_dir")
        yield
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether an agent works on it now."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # none ever did, or it is not ours to know
        return False
    try:
        return not _take(handle)
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
