"""What is left of files when the power goes?

    record   every creation, write, truncation, flush, renaming and deletion, in its order (recording.py)
    cut      after any of them: what was flushed is there; of all that came since, each sector is old, new or torn,
             whatever order it was written in, and so is each file's length and each name in the folder

What a disk may do is after T. S. Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014, and what SQLite
assumes of one after https://sqlite.org/atomiccommit.html: a flush that returns has happened, and what lies beside a
write stays as it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

SECTOR_BYTES = 512


class Write(NamedTuple):
    """Of bytes into a file."""

    file: int
    offset: int
    data: bytes


class Resize(NamedTuple):
    """Of a file; shorter cuts off, longer fills with zeros."""

    file: int
    size: int


class Flush(NamedTuple):
    """Of a file's bytes and length; of the folder when `file` is 0."""

    file: int


class Name(NamedTuple):
    """From now on `name` means this file; none when it is 0."""

    name: str
    file: int


class Disk:
    """The record of one folder. Files have numbers: a name may come to mean another one."""

    def __init__(self, content: Mapping[str, bytes] = {}) -> None:
        """`content`: of the files that are there, flushed, as after an earlier cut."""
        self.events: list[Write | Resize | Flush | Name] = []
        self._names: dict[str, int] = {}
        self._files = 0
        for name, data in content.items():
            file, _ = self.opened(name)
            self.events += [Write(file, 0, data), Flush(file)]
        self.events.append(Flush(0))

    def opened(self, name: str) -> tuple[int, bool]:
        """The file's number, and whether it is new."""
        new = not self._names.get(name)
        if new:
            self._files += 1
            self._name(name, self._files)
        return self._names[name], new

    def deleted(self, name: str) -> None:
        if self._names.get(name):
            self._name(name, 0)

    def renamed(self, name: str, to: str) -> None:
        self._name(to, self._names[name])
        self._name(name, 0)

    def _name(self, name: str, file: int) -> None:
        self._names[name] = file
        self.events.append(Name(name, file))

    def cut(self, after: int, rng: np.random.Generator) -> dict[str, bytes]:
        """What the folder may hold when the power goes after the first `after` events."""
        files: dict[int, _File] = defaultdict(_File)
        folder: dict[str, list[int]] = {}  # name -> what it meant at the last flush, and since
        for event in self.events[:after]:
            if isinstance(event, Name):
                folder.setdefault(event.name, [0]).append(event.file)
            elif isinstance(event, Flush) and not event.file:
                folder = {name: meant[-1:] for name, meant in folder.items()}
            elif isinstance(event, Flush):
                files[event.file].flush()
            else:
                files[event.file].changes.append(event)
        left = {name: meant[rng.integers(len(meant))] for name, meant in folder.items()}
        return {name: files[file].after_cut(rng) for name, file in left.items() if file}


class _File:
    """The bytes of one file as they were flushed, and what was done to it since."""

    def __init__(self) -> None:
        self.flushed = bytearray()
        self.changes: list[Write | Resize] = []

    def flush(self) -> None:
        for change in self.changes:
            _apply(self.flushed, change)
        self.changes = []

    def after_cut(self, rng: np.random.Generator) -> bytes:
        """Each sector as it was flushed, or as some later write left it, or torn between the two."""
        found, latest = bytearray(self.flushed), bytearray(self.flushed)
        versions: dict[int, list[bytes]] = defaultdict(list)
        lengths = [len(found)]
        for change in self.changes:
            _apply(latest, change)
            lengths.append(len(latest))
            for sector in _touched(change):
                versions[sector].append(bytes(latest[sector : sector + SECTOR_BYTES]))
        _apply(found, Resize(0, max(lengths)))
        for sector, since in versions.items():
            old = bytes(found[sector : sector + SECTOR_BYTES])
            new = (old, *since)[rng.integers(len(since) + 1)].ljust(len(old), b"\0")
            torn = int(rng.integers(1, SECTOR_BYTES)) if rng.random() < 0.25 else SECTOR_BYTES
            found[sector : sector + len(old)] = (new[:torn] + old[torn:])[: len(old)]
        return bytes(found[: lengths[rng.integers(len(lengths))]])


def _apply(content: bytearray, change: Write | Resize) -> None:
    end = change.size if isinstance(change, Resize) else change.offset + len(change.data)
    if end > len(content):
        content.extend(bytes(end - len(content)))
    if isinstance(change, Write):
        content[change.offset : end] = change.data
    else:
        del content[end:]


def _touched(change: Write | Resize) -> range:
    if isinstance(change, Resize):
        return range(0)
    return range(change.offset // SECTOR_BYTES * SECTOR_BYTES, change.offset + len(change.data), SECTOR_BYTES)
