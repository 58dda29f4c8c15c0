"""Is there room on the disks for more?"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from server.errors import StoreError


def free_bytes(folder: Path) -> int:
    """Of the file system that `folder` is on."""
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error


def check(folders: Iterable[Path], min_free_bytes: int) -> None:
    """StoreError when less is free of a file system that one of them is on."""
    for folder in folders:
        if (free := free_bytes(folder)) < min_free_bytes:
            kept = f"[retention] min_free_bytes keeps {min_free_bytes / 1e6:.0f}"
            raise StoreError(f"{folder}: {free / 1e6:.0f} MB are free, and {kept}: make room")
