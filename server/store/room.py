"""Is there room on the disk for more?"""

from __future__ import annotations

import shutil
from pathlib import Path

from server.errors import StoreError


def free_bytes(folder: Path) -> int:
    """Of the file system that `folder` is on."""
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error


def check(folder: Path, min_free_bytes: int) -> None:
    """StoreError when less is free."""
    if (free := free_bytes(folder)) < min_free_bytes:
        raise StoreError(
            f"{folder}: {free / 1e6:.0f} MB are free, and [retention] min_free_bytes keeps {min_free_bytes / 1e6:.0f}: "
            "make room"
        )
