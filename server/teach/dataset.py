"""Which arrays does a snapshot stand for?

Its members, read from the blobs, in order of sample id: the same snapshot gives the same arrays.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import InputSpec
from server.errors import TrainingError
from server.store import snapshots
from server.store.samples import sample_array
from server.store.snapshots import Snapshot
from server.store.store import Store
from server.teach.portfolio import arm_of


@dataclass(frozen=True)
class Part:
    """The members of one split."""

    x: NDArray[Any]  # (N, *shape) raw
    y: NDArray[np.int64]  # (N,) index into the snapshot's classes
    stream: NDArray[np.bool_]  # (N,) from a device, not imported
    probability: NDArray[np.float64]  # (N,) of selection, by the floor alone where held out; 1 for imports
    device: NDArray[np.str_]  # (N,)
    sample: NDArray[np.str_]  # (N,) ids
    received_at_ms: NDArray[np.int64]  # (N,)
    arm: NDArray[np.str_]  # (N,) strategy/acquisition that asked for it; "": not known, or imported


@dataclass(frozen=True)
class Dataset:
    """What to train on, and what to judge by."""

    train: Part
    holdout: Part
    left_out: int  # members of another shape or dtype than the model takes


def load(store: Store, snapshot: Snapshot, *, takes: InputSpec | None) -> Dataset:
    """Read a snapshot. `takes` is the champion's input, else what most members are. TrainingError when empty."""
    with store.database.read() as connection:
        rows = snapshots.members(connection, snapshot.id)
    if not rows:
        raise TrainingError(f"snapshot {snapshot.id[:12]}: nothing is labelled: import data, or connect devices")
    kinds = Counter((tuple(row.shape), row.dtype) for row in rows)
    kind = (takes.shape, takes.dtype) if takes else kinds.most_common(1)[0][0]
    fitting = [row for row in rows if (tuple(row.shape), row.dtype) == kind]
    parts = {split: [row for row in fitting if row.frozen_split == split] for split in ("train", "holdout")}
    for split, members in parts.items():
        if not members:
            seen = ", ".join(f"{count} of {shape} {dtype}" for (shape, dtype), count in kinds.most_common(3))
            raise TrainingError(
                f"snapshot {snapshot.id[:12]}: no {split} sample of {kind[0]} {kind[1]}, but {seen}: take some in with "
                f"`winnow-server data import FILE.npz --split {split} server.toml`"
            )
    train, holdout = (_part(store, parts[split]) for split in ("train", "holdout"))
    return Dataset(train=train, holdout=holdout, left_out=len(rows) - len(fitting))


def _part(store: Store, rows: list[Any]) -> Part:
    return Part(
        x=np.stack([sample_array(store, row) for row in rows]),
        y=np.array([row.class_index for row in rows], dtype=np.int64),
        stream=np.array([row.origin == "device" for row in rows], dtype=np.bool_),
        probability=np.array([row.frozen_probability or 1.0 for row in rows], dtype=np.float64),
        device=np.array([row.device for row in rows], dtype=np.str_),
        sample=np.array([row.id for row in rows], dtype=np.str_),
        received_at_ms=np.array([row.received_at_ms for row in rows], dtype=np.int64),
        arm=np.array([arm_of(row.strategy or "", row.acquisition or "") for row in rows], dtype=np.str_),
    )
