"""What is one training given, whoever does it?

All that its outcome follows from. For ranks it lies in a folder: the samples as one file that every process of a node
maps, so that they are in memory once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.task import Task
from models.checkpoint import digest_of
from models.settings import Settings

SAMPLES, _TOLD, _PARENT, _BEGUN = "x.npy", "told.json", "parent.pt", "begun.pt"


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What may be known of the samples beside their classes; only some settings ask for it."""

    device: NDArray[Any] | None = None  # (N,) where each came from: for `patience`
    order: NDArray[Any] | None = None  # (N,) numbers by which they came there: for `patience`
    known: NDArray[np.bool_] | None = None  # (N,) which the parent learned from: for `replay`
    probability: NDArray[np.float64] | None = None  # (N,) of selection, in (0, 1]: for `importance_clip`
    unlabelled: NDArray[Any] | None = None  # (M, *shape) raw: for `pseudo_labels`


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """How another machine reads samples by itself."""

    reader: str  # "package.module:name" of a function (told, start, stop) -> x (stop - start, *shape)
    told: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """Samples, and how to learn from them."""

    x: NDArray[Any]  # (N, *shape) raw
    y: NDArray[Any]  # (N,) int, or the truth of another task
    classes: int
    settings: Settings
    task: Task
    parent: bytes | None  # weights of the net to go on from
    beside: Beside
    rows: Rows | None = None  # for other machines; None: the first sends them

    def digest(self) -> str:
        """Of all that the outcome depends on."""
        beside = (getattr(self.beside, one.name) for one in fields(Beside))
        task = self.task.encode()
        return digest_of(self.settings, self.x, self.y, self.classes, task, self.parent, *beside)

    def write(self, folder: Path, *, begun: bytes, digest: str) -> None:
        """For `read`. begun: weights of the net as it is before the first step; digest: "" for no checkpoints."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / SAMPLES, self.x)
        np.save(folder / "y.npy", self.y)
        for one in fields(Beside):
            if (array := getattr(self.beside, one.name)) is not None:
                np.save(folder / f"{one.name}.npy", array)
        if self.parent is not None:
            (folder / _PARENT).write_bytes(self.parent)
        (folder / _BEGUN).write_bytes(begun)
        told = Told(classes=self.classes, settings=self.settings, task=self.task, digest=digest, rows=self.rows)
        (folder / _TOLD).write_bytes(msgspec.json.encode(told))


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What of a job is no array."""

    classes: int
    settings: Settings
    task: Task
    digest: str
    rows: Rows | None


def told_of(folder: Path) -> Told:
    """What of a job that was written is no array."""
    return msgspec.json.decode((folder / _TOLD).read_bytes(), type=Told)


def read(folder: Path) -> tuple[Job, bytes, str]:
    """A job that was written, with `begun` and `digest`; samples stay on the disk, and are read as they are used."""
    told = told_of(folder)
    beside = {one.name: _array(folder / f"{one.name}.npy") for one in fields(Beside)}
    parent = folder / _PARENT
    job = Job(
        # Copy on write: torch takes no array that cannot be written to, and nobody writes.
        x=np.load(folder / SAMPLES, mmap_mode="c"),
        y=np.load(folder / "y.npy"),
        classes=told.classes,
        settings=told.settings,
        task=told.task,
        parent=parent.read_bytes() if parent.exists() else None,
        beside=Beside(**beside),
    )
    return job, (folder / _BEGUN).read_bytes(), told.digest


def _array(file: Path) -> NDArray[Any] | None:
    return np.load(file, mmap_mode="c") if file.exists() else None
