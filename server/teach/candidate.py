"""How does a snapshot become a candidate?

    training samples + champion -> trainer -> float ONNX -> int8, calibrated, described

The trainer is the one that comes with us or anybody's own (models/trainer.py). What lets a killed training go on is
kept in a folder named after all that determines it: a new run over the same labels finds it, any other begins anew.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import InputSpec
from server import config
from server.errors import StoreError
from server.store import snapshots, versions
from server.store.samples import sample_arrays
from server.store.snapshots import Snapshot
from server.store.store import Store
from server.teach import elsewhere
from server.teach.champions import Champion
from server.teach.dataset import Dataset, Part
from server.teach.progress import Progress, Say

if TYPE_CHECKING:
    from models.package import Packaged
    from models.trainer import Task, Trained

log = logging.getLogger(__name__)

CALIBRATION_SAMPLES = 512  # ranges settle with a few hundred; more only take time
HOW = (
    "recipe", "heads", "epochs", "batch_size", "learning_rate", "threads", "seed", "part", "shrink", "distil", "ema",
    "augment", "replay", "patience", "importance_clip", "pseudo_labels", "precision", "compile", "pieces",
)  # fmt: skip
"""Keys of [teach] that a trainer is told; the others say when to train, by whom, and what becomes of it."""


class Candidate(NamedTuple):
    """What is to be judged, and what its trainer left to go on from."""

    packaged: Packaged
    weights: bytes
    went_on_from: int  # the version whose weights it began with; 0: from scratch


def make(
    store: Store,
    snapshot: Snapshot,
    data: Dataset,
    champion: Champion | None,
    *,
    teach: config.Teach,
    min_int8_agreement: float,
    folder: Path,
    say: Say,
    progress: Progress,
) -> Candidate:
    """Train on what is there to train on, and package the outcome.

    Args:
        store: for what the champion knew, and for members without a label.
        snapshot: that `data` was read from.
        data: its arrays.
        champion: to go on from; None: from scratch.
        teach: how.
        min_int8_agreement: with float, that keeping the champion's codes must not fall below.
        folder: for checkpoints.
        say: told what is done.
        progress: told how far the training is.

    Raises:
        DataError: the trainer does not take the samples, or cannot be found.
        ArtifactError: the outcome cannot be shipped.
    """
    from models import trainer

    # The rows of the head are the champion's classes: they must be the first of ours, in the same order.
    grows = champion is not None and champion.manifest.classes == snapshot.classes[: len(champion.manifest.classes)]
    goes_on = champion is not None and champion.weights and grows and champion.manifest.task == data.task
    base = champion if goes_on else None
    say(f"going on from version {base.number}" if base else "from scratch")
    digest = _digest(snapshot, base, teach)
    _forget_others(folder, digest)
    task = _task(store, snapshot, data, base, teach, folder / digest, progress)
    try:
        trained = trainer.run(teach.trainer, task)
    finally:
        progress.close()
    say("quantising" if teach.int8 else "describing")
    packaged = _packaged(trained, snapshot, data, champion, teach, min_int8_agreement)
    return Candidate(packaged, trained.weights, base.number if base and not trained.from_scratch else 0)


def told(teach: config.Teach) -> dict[str, Any]:
    """What [teach] says of training; keys that it leaves to the recipe are missing."""
    said = {key: getattr(teach, key) for key in HOW}
    return {key: value for key, value in said.items() if value is not None}


def _task(
    store: Store,
    snapshot: Snapshot,
    data: Dataset,
    base: Champion | None,
    teach: config.Teach,
    folder: Path,
    to: Progress,
) -> Task:
    from models import trainer
    from models.launch import Launch

    part = data.train
    known = _known(store, part, base)
    takes = base.manifest.input if base else InputSpec(name="", shape=part.x.shape[1:], dtype=str(part.x.dtype))
    return trainer.Task(
        x=part.x,
        y=part.y,
        names=tuple(snapshot.classes),
        task=data.task,
        device=part.device,
        order=_order(part.sample),
        known=known,
        probability=part.probability,
        unlabelled=_unlabelled(store, snapshot, takes) if teach.pseudo_labels else None,
        champion=trainer.Champion(names=base.manifest.classes, onnx=base.onnx, weights=base.weights) if base else None,
        told=told(teach),
        folder=folder,
        progress=to,
        rows=elsewhere.rows(store, part.sample.tolist()) if teach.nodes > 1 else None,
        launch=Launch(kind=teach.launch, processes=teach.processes, nodes=teach.nodes, rendezvous=teach.rendezvous),
    )


def _known(store: Store, part: Part, base: Champion | None) -> NDArray[np.bool_]:
    """(N,) which samples the champion learned from."""
    with store.database.read() as connection:
        version = versions.get(connection, base.number) if base else None
        ids = snapshots.sample_ids(connection, version.snapshot_id) if version else set()
    known: NDArray[np.bool_] = np.isin(part.sample, sorted(ids))
    return known


def _order(ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """(N,) places by boot and sequence, the last two parts of a sample's id."""
    parts = np.array([name.rsplit(".", 2)[1:] for name in ids.tolist()], np.int64).reshape(-1, 2)
    order = np.empty(len(parts), np.int64)
    order[np.lexsort((parts[:, 1], parts[:, 0]))] = np.arange(len(parts))
    return order


def _unlabelled(store: Store, snapshot: Snapshot, takes: InputSpec) -> NDArray[Any]:
    """(M, *shape) of the snapshot's members without a label, as they are read by the same snapshot at any time."""
    with store.database.read() as connection:
        rows: list[Any] = list(snapshots.unlabelled(connection, snapshot.id))
    wanted = [row for row in rows if (tuple(row.shape), row.dtype) == (takes.shape, takes.dtype)]
    arrays = list(_sound(store, wanted))
    return np.stack(arrays) if arrays else np.zeros((0, *takes.shape), takes.dtype)


def _sound(store: Store, rows: list[Any]) -> Iterator[NDArray[Any]]:
    """Samples that can be read and are finite."""
    for row, array in sample_arrays(store, rows):
        if isinstance(array, StoreError):
            log.warning("training: %s is left out: %s", row.id, array)
        elif array.dtype.kind != "f" or np.isfinite(array).all():
            yield array


def _packaged(
    trained: Trained,
    snapshot: Snapshot,
    data: Dataset,
    champion: Champion | None,
    teach: config.Teach,
    min_int8_agreement: float,
) -> Packaged:
    from models.package import About, ParentFile, describe

    some = np.random.default_rng(teach.seed).permutation(len(data.train.x))[:CALIBRATION_SAMPLES]
    about = About(
        name=champion.manifest.name if champion else "model",
        names=tuple(snapshot.classes),
        version=champion.number + 1 if champion else 1,  # of the draft; the registry gives the real one
        parent=champion.number if champion else 0,
        snapshot=snapshot.id,
        unit=champion.manifest.input.unit if champion else "",
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        logits=trained.logits,
        embedding=trained.embedding,
        task=data.task,
        answer=trained.answer,
    )
    keeps = champion is not None and "cpu-int8" in champion.manifest.files
    return describe(
        trained.onnx,
        about,
        calibration=data.train.x[some],
        showable=~data.train.stream[some],  # what one device saw is not for all the others, if there is anything else
        holdout=(data.holdout.x, data.holdout.y),
        int8=teach.int8,
        parent_file=ParentFile(champion.onnx, min_int8_agreement) if champion and keeps else None,
    )


def _digest(snapshot: Snapshot, base: Champion | None, teach: config.Teach) -> str:
    said = [snapshot.id, hashlib.sha256(base.weights).hexdigest() if base else "", teach.trainer, told(teach)]
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:16]


def _forget_others(folder: Path, digest: str) -> None:
    """Checkpoints of trainings that nobody will go on with."""
    for other in folder.glob("*"):
        if other.name != digest:
            shutil.rmtree(other, ignore_errors=True)
