"""Who works on a data folder?

    alone     one server that is all parts in one, or a command that nobody may disturb
    shared    processes of one part each, as many as there are (docs/processes.md)

Never both. The kernel lets go of a lock however its holder ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from server.errors import ServerError, StoreError

_NAME = "server.lock"
_PATIENCE_S = 0.3  # whoever only looks holds it for a moment
_AGAIN_S = 0.02


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder, made if need be; ServerError when other processes do."""
    with _held(folder, fcntl.LOCK_EX):
        yield


@contextmanager
def one_of_several(folder: Path) -> Iterator[None]:
    """Hold the folder, made if need be, beside others that do; ServerError when one holds it alone."""
    with _held(folder, fcntl.LOCK_SH):
        yield


def held(folder: Path) -> Literal["", "alone", "shared"]:
    """How it is held now; empty: nobody works there."""
    try:
        handle = os.open(folder / _NAME, os.O_RDWR)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error
    try:
        if not _take(handle, fcntl.LOCK_SH):
            return "alone"
        return "" if _take(handle, fcntl.LOCK_EX) else "shared"
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether somebody works on it now."""
    return held(folder) != ""


@contextmanager
def _held(folder: Path, how: int) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error
    try:
        until_s = time.monotonic() + _PATIENCE_S
        while not _take(handle, how):
            if time.monotonic() >= until_s:
                raise ServerError(f"{folder}: {_why(folder)}")
            time.sleep(_AGAIN_S)
        yield
    finally:
        os.close(handle)


def _why(folder: Path) -> str:
    if held(folder) == "shared":
        return (
            "winnow-server works here as several processes (web, schedule, train, ingest): stop them first; "
            "beside them go others of one part each"
        )
    return "another winnow-server works here: stop it first"


def _take(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
