"""Who works on a data folder?

One server (or training by hand) at a time. The kernel lets go of the lock however its holder ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import ServerError, StoreError

_NAME = "server.lock"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder, made if need be; ServerError when another process does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error
    try:
        if not _take(handle):
            raise ServerError(f"{folder}: another winnow-server works here: stop it first")
        yield
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether somebody works on it now."""
    try:
        handle = os.open(folder / _NAME, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error
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
