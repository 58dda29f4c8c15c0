"""Which arrays does a snapshot stand for?

Its members, read from the blobs, in order of sample id: the same snapshot gives the same arrays.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract import score
from edge_agent.contract.artifact import InputSpec
from edge_agent.contract.task import Task, truth_of
from server.errors import StoreError, TrainingError
from server.store import snapshots
from server.store.samples import sample_arrays
from server.store.snapshots import Snapshot
from server.store.store import Store
from server.teach.portfolio import arm_of

log = logging.getLogger(__name__)

FEW_DAMAGED = 3  # of a split: never too many, whatever its size


@dataclass(frozen=True)
class Part:
    """The members of one split."""

    x: NDArray[Any]  # (N, *shape) raw
    y: NDArray[Any]  # (N,) int64 index into the snapshot's classes; of another task its truth (contract/score.py)
    stream: NDArray[np.bool_]  # (N,) from a device, not imported
    probability: NDArray[np.float64]  # (N,) of selection, by the floor alone where held out; 1 for imports
    device: NDArray[np.str_]  # (N,)
    sample: NDArray[np.str_]  # (N,) ids
    received_at_ms: NDArray[np.int64]  # (N,)
    arm: NDArray[np.str_]  # (N,) strategy/acquisition that asked for it; "": not known, or imported

    def of(self, rows: NDArray[Any]) -> Part:
        """Some of them."""
        return Part(*(getattr(self, one.name)[rows] for one in fields(self)))


@dataclass(frozen=True)
class Dataset:
    """What to train on, and what to judge by."""

    train: Part
    holdout: Part
    left_out: int  # members of another shape, dtype or task than the model is for
    task: Task = "classification"
    damaged: tuple[str, ...] = ()  # ids of members whose bytes are not what they were, or gone: left out


@dataclass(frozen=True)
class Members:
    """Rows of a snapshot that a model can learn from or be judged by, in order of sample id."""

    train: list[Any]
    holdout: list[Any]
    classes: int
    left_out: int  # members of another shape, dtype or task
    task: Task


def load(
    store: Store,
    snapshot: Snapshot,
    *,
    takes: InputSpec | None,
    max_damaged_share: float = 0.05,
    task: Task | None = None,
) -> Dataset:
    """Read a snapshot. `takes` and `task` are the champion's, else what most members are.

    Raises:
        TrainingError: a split is empty, or more than max_damaged_share of it (and FEW_DAMAGED) is damaged.
        StoreError: the blobs cannot be read.
    """
    found = members(store, snapshot, takes=takes, task=task)
    damaged: list[str] = []
    train, holdout = (
        _sound(store, rows, split, max_damaged_share, damaged, (found.task, found.classes))
        for split, rows in (("train", found.train), ("holdout", found.holdout))
    )
    return Dataset(train=train, holdout=holdout, left_out=found.left_out, task=found.task, damaged=tuple(damaged))


def _sound(
    store: Store, rows: list[Any], split: str, max_damaged_share: float, damaged: list[str], of: tuple[Task, int]
) -> Part:
    """A split, without what cannot be read, whose ids are added to `damaged`."""
    x, sound = read(store, rows)
    lost = [row.id for row, is_sound in zip(rows, sound, strict=True) if not is_sound]
    if not sound.any() or len(lost) > max(FEW_DAMAGED, max_damaged_share * len(rows)):
        raise TrainingError(
            f"{len(lost)} of {len(rows)} {split} samples are damaged, as {lost[-1]}: restore the blobs from a backup, "
            "or raise [snapshot] max_damaged_share"
        )
    damaged += lost
    kept = [row for row, is_sound in zip(rows, sound, strict=True) if is_sound]
    return _part(kept, x[sound] if lost else x, *of)


def members(store: Store, snapshot: Snapshot, *, takes: InputSpec | None, task: Task | None = None) -> Members:
    """What `load` reads, without the bodies: the same on every node that shares the catalogue.

    TrainingError when a split is empty.
    """
    with store.database.read() as connection:
        rows = snapshots.members(connection, snapshot.id)
    if not rows:
        raise TrainingError(f"snapshot {snapshot.id[:12]}: nothing is labelled: import data, or connect devices")
    task = task or Counter(_task_of(row) for row in rows).most_common(1)[0][0]
    total, rows = len(rows), [row for row in rows if _task_of(row) == task]
    if not rows:
        raise TrainingError(f"snapshot {snapshot.id[:12]}: none of its {total} labels is of {task}, as the champion is")
    kinds = Counter((tuple(row.shape), row.dtype) for row in rows)
    kind = (takes.shape, takes.dtype) if takes else kinds.most_common(1)[0][0]
    fitting = [row for row in rows if (tuple(row.shape), row.dtype) == kind]
    parts = {split: [row for row in fitting if row.frozen_split == split] for split in ("train", "holdout")}
    for split, some in parts.items():
        if not some:
            seen = ", ".join(f"{count} of {shape} {dtype}" for (shape, dtype), count in kinds.most_common(3))
            raise TrainingError(
                f"snapshot {snapshot.id[:12]}: no {split} sample of {kind[0]} {kind[1]}, but {seen}: take some in with "
                f"`winnow-server data import FILE.npz --split {split} server.toml`"
            )
    return Members(**parts, classes=len(snapshot.classes), left_out=total - len(fitting), task=task)


def shard(count: int, part: int, parts: int) -> slice:
    """Which rows one of so many readers reads: they differ by one at most, and every row is read by one.

    >>> [shard(7, part, 3) for part in range(3)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """
    return slice(count * part // parts, count * (part + 1) // parts)


def read(store: Store, rows: list[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The bodies of rows of one kind, all of `members` or a `shard` of them, straight from the blobs.

    Returns:
        x (N, *shape), zeros in the place of what is damaged or gone, and (N,) whether each is sound: rows keep their
        places, so that those who read a shard each need not tell each other what they found.

    StoreError when the blobs cannot be read.
    """
    sound = np.zeros(len(rows), np.bool_)
    x = np.zeros((len(rows), *rows[0].shape), rows[0].dtype) if rows else np.zeros(0)
    for place, (row, array) in enumerate(sample_arrays(store, rows)):
        if isinstance(array, StoreError):
            log.warning("%s: left out: %s", row.id, array)
        else:
            x[place], sound[place] = array, True
    return x, sound


def _task_of(row: Any) -> Task:
    """Of its label."""
    return "classification" if row.truth is None else truth_of(row.truth).task


def _part(rows: list[Any], x: NDArray[Any], task: Task, classes: int) -> Part:
    one_class = task == "classification"
    return Part(
        x=x,
        y=np.array([row.class_index for row in rows], dtype=np.int64)
        if one_class
        else score.truths([truth_of(row.truth) for row in rows], task, classes),
        stream=np.array([row.origin == "device" for row in rows], dtype=np.bool_),
        probability=np.array([row.frozen_probability or 1.0 for row in rows], dtype=np.float64),
        device=np.array([row.device for row in rows], dtype=np.str_),
        sample=np.array([row.id for row in rows], dtype=np.str_),
        received_at_ms=np.array([row.received_at_ms for row in rows], dtype=np.int64),
        arm=np.array([arm_of(row.strategy or "", row.acquisition or "") for row in rows], dtype=np.str_),
    )
