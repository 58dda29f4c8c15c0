"""How do files that appear in a folder become samples?

Images (JPEG, PNG, WebP, BMP) and .npy arrays, in the order in which they came, new ones as they come. An image is
brought to the model's size and channels; an array is taken as it is. A file is read once it has been left alone for one
look, in its turn, and is never moved or deleted. A file whose content is changed later is a new sample.

When a file came is told by its ctime: a copy that keeps its times (`cp -p`, rsync, a camera's card) and a file that is
renamed into place come now, whatever their mtime says. Where it goes on after a restart is told by ctime and name; so
`chmod` on files while the agent is down makes them come once more.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.contract.types import Reading
from edge_agent.source import IDLE_S, Counts, Fit, Start
from edge_agent.source.frame import Frames
from edge_agent.source.image import BROKEN, read_image
from edge_agent.source.options import Frame

log = logging.getLogger(__name__)

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
ARRAYS = frozenset({".npy"})

Place = tuple[int, str]  # (ctime in ns, name)


class Found(NamedTuple):
    """A file, in the order in which files are taken."""

    ctime_ns: int
    name: str
    mtime_ns: int
    size: int

    @property
    def place(self) -> Place:
        """Where it stands in that order."""
        return self.ctime_ns, self.name

    @property
    def content(self) -> tuple[str, int, int]:
        """What stays the same while nobody writes to it."""
        return self.name, self.mtime_ns, self.size


class Folder:
    """Reads the files of one folder (not of those below it)."""

    def __init__(
        self,
        path: Path,
        *,
        fit: Fit,
        frame: Frame | None = None,
        poll_s: float = 0.5,
        counts: Counts | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """SourceError when `path` is not a folder."""
        if not path.is_dir():
            raise SourceError(f"{path}: not a folder: expected one with images or .npy files")
        self._path = path
        self._fit = fit
        self._frame = frame or Frame()
        self._counts = counts or Counts()
        self._poll_s = poll_s
        self._monotonic = monotonic
        self._sleep = sleep

    def readings(self, start: Start) -> Iterator[Reading | None]:
        """Files after `start.mark`, for ever. One that cannot be decoded comes as an empty array, to be counted."""
        seq, done = start.seq, _read_mark(start.mark)
        taken = {file.content for file in self._look() if file.place <= done}
        before: frozenset[Found] = frozenset()
        while True:
            found = self._look()
            taken &= {file.content for file in found}
            for file in sorted(file for file in found if file.content not in taken):
                if file not in before:  # those behind it wait as well, so that the mark passes over nothing
                    break
                done = max(done, file.place)  # a clock that was set back must not let files come twice
                taken.add(file.content)
                yield Reading(self._read(file.name), seq, file.name, _mark(done))
                seq += 1
            before = found
            until = self._monotonic() + self._poll_s
            while (wait := until - self._monotonic()) > 0:
                self._sleep(min(wait, IDLE_S))
                yield None

    def _look(self) -> frozenset[Found]:
        try:
            with os.scandir(self._path) as entries:
                return frozenset(
                    Found(status.st_ctime_ns, entry.name, status.st_mtime_ns, status.st_size)
                    for entry in entries
                    if Path(entry.name).suffix.lower() in IMAGES | ARRAYS and (status := _stat(entry)) is not None
                )
        except OSError as error:
            raise SourceError(f"{self._path}: {error.strerror}") from error

    def _read(self, name: str) -> NDArray[np.generic]:
        path = self._path / name
        try:
            if path.suffix.lower() in ARRAYS:
                array: NDArray[np.generic] = np.load(path, allow_pickle=False)
                return array
            return read_image(path, Frames(self._fit, self._frame))
        except (*BROKEN, ConfigError) as error:  # ConfigError: an image, and the model takes none
            self._counts.unreadable += 1
            log.warning("%s: not readable, skipped: %s", path, error)
            return np.empty(0, self._fit.dtype)


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat() if entry.is_file() else None
    except OSError:  # gone since the listing
        return None


def _mark(place: Place) -> str:
    return f"{place[0]}:{place[1]}"


def _read_mark(mark: str) -> Place:
    ctime_ns, _, name = mark.partition(":")
    return (int(ctime_ns), name) if ctime_ns.isdigit() else (-1, "")
