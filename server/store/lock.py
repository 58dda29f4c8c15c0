"""Who works on a data folder?

    server.lock   run: alone; web, schedule, train: as many as there are, but never beside a run
    ingest.lock   whoever only takes in, beside either

A command that nobody may disturb holds both alone. The kernel lets go of a lock however its holder ends. Which of
several acts is another question: leadership.py.
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

_SERVER, _INGEST = "server.lock", "ingest.lock"
_PATIENCE_S = 0.3  # whoever only looks holds it for a moment
_AGAIN_S = 0.02


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Nobody else works on the folder, made if need be; ServerError when somebody does."""
    with _held(folder, _SERVER, fcntl.LOCK_EX), _held(folder, _INGEST, fcntl.LOCK_EX):
        yield


@contextmanager
def one_server(folder: Path) -> Iterator[None]:
    """One server of all parts; ServerError when another does, or processes of one part each do."""
    with _held(folder, _SERVER, fcntl.LOCK_EX):
        yield


@contextmanager
def one_of_several(folder: Path) -> Iterator[None]:
    """A process of one part, beside others; ServerError when a server of all parts works there."""
    with _held(folder, _SERVER, fcntl.LOCK_SH):
        yield


@contextmanager
def taking_in(folder: Path) -> Iterator[None]:
    """A process that only takes in; ServerError when a command works there that nobody may disturb."""
    with _held(folder, _INGEST, fcntl.LOCK_SH):
        yield


def held(folder: Path) -> Literal["", "alone", "shared"]:
    """How servers hold it now; empty: none works there."""
    return _how(folder / _SERVER)


@contextmanager
def _held(folder: Path, name: str, how: int) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error
    try:
        until_s = time.monotonic() + _PATIENCE_S
        while not _take(handle, how):
            if time.monotonic() >= until_s:
                raise ServerError(f"{folder}: {_why(folder, name)}")
            time.sleep(_AGAIN_S)
        yield
    finally:
        os.close(handle)


def _how(path: Path) -> Literal["", "alone", "shared"]:
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StoreError(f"{path.parent}: {error.strerror}") from error
    try:
        if not _take(handle, fcntl.LOCK_SH):
            return "alone"
        return "" if _take(handle, fcntl.LOCK_EX) else "shared"
    finally:
        os.close(handle)


def _why(folder: Path, name: str) -> str:
    if _how(folder / name) != "shared":
        return "another winnow-server works here: stop it first"
    if name == _INGEST:
        return "winnow-server ingest works here: stop it first"
    return "winnow-server works here as several processes (web, schedule, train): stop all of them first"


def _take(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
