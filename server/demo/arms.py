"""How much of it is Winnow's doing?

Two controls on the same streams: the frozen first model, and a model retrained as often, in the same way, from as many
labels, picked at random from the same stretch of the streams. All are judged as shipped, on int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Manifest, decode_manifest
from models import evaluate, train
from models.data import Labelled, finite_rows
from models.package import Packaged, package
from models.trainer import settings_of
from server.config import Teach
from server.demo.report import Accuracy
from server.demo.scenario import Scenario, Stream
from server.demo.stage import Advance
from server.errors import TrainingError
from server.store import versions
from server.store.store import Store
from server.teach.candidate import CALIBRATION_SAMPLES, told


class Model(NamedTuple):
    """A version as shipped."""

    version: int
    onnx: bytes
    manifest: Manifest

    @property
    def names(self) -> tuple[str, ...]:
        """Of its classes."""
        return self.manifest.classes


class Picked(NamedTuple):
    """What one round of the server had to learn from: labels, and how far each stream had come."""

    version: int
    labels: int
    trained: int  # of them; the others were held out
    until: list[int]  # row per stream


def shipped(store: Store) -> list[Model]:
    """Every published version, oldest first."""
    with store.database.read() as connection:
        published = versions.every(connection)
    found = []
    for one in published:
        manifest = decode_manifest(store.blobs.get(one.manifest_sha256))
        found.append(Model(one.number, store.blobs.get(manifest.variant("cpu-int8").sha256), manifest))
    return found


def right(model: Model, x: NDArray[Any], y: NDArray[np.int64], names: tuple[str, ...]) -> NDArray[np.bool_]:
    """(N,) whether the model names the true class; one that it does not know it cannot name."""
    logits, _ = evaluate.run_onnx(model.onnx, x)
    place = {name: index for index, name in enumerate(names)}
    named = np.array([place.get(name, -1) for name in model.names], np.int64)
    result: NDArray[np.bool_] = named[logits.argmax(axis=1)] == y
    return result


def accuracy(correct: NDArray[np.bool_]) -> Accuracy:
    """A share with its interval."""
    count, total = int(correct.sum()), len(correct)
    low, high = evaluate.wilson_interval(count, total, confidence=0.95)
    return Accuracy(value=count / total, interval=(low, high), samples=total)


def at_random(
    store: Store,
    scenario: Scenario,
    picks: Sequence[Picked],
    teach: Teach,
    rng: np.random.Generator,
    *,
    advance: Advance,
) -> list[Model]:
    """The control: retrained for every version that the server published from the fleet's labels, with as many labels.

    It starts from the same first model, keeps what it has picked, holds as many of it out, and trains with the same
    settings.
    """
    with store.database.read() as connection:
        first = versions.get(connection, 1)
    if first is None or not first.weights_sha256:
        raise TrainingError("the first model has no weights to go on from")
    weights = store.blobs.get(first.weights_sha256)
    order = [rng.permutation(np.flatnonzero(finite_rows(stream.x))) for stream in scenario.streams]
    models = []
    for done, pick in enumerate(picks):
        advance(done / len(picks))
        labelled = _draw(scenario, order, pick, rng)
        weights, packaged = _retrain(labelled, scenario, weights, teach)
        models.append(Model(pick.version, packaged.onnx, packaged.manifest))
    return models


def _draw(scenario: Scenario, order: list[NDArray[np.int64]], pick: Picked, rng: np.random.Generator) -> Labelled:
    """Base and as many random samples of the streams so far; earlier draws stay drawn, by the fixed order."""
    seen = [rows[rows < until] for rows, until in zip(order, pick.until, strict=True)]
    pairs = [(index, int(row)) for index, rows in enumerate(seen) for row in rows]
    # A place in each stream's fixed order, as a share of what was seen of it: every stream gives in proportion.
    rank = np.concatenate([(np.arange(len(rows)) + rng.random()) / max(1, len(rows)) for rows in seen])
    kept = [pairs[index] for index in np.argsort(rank, kind="stable")[: pick.trained]]
    x = np.stack([scenario.streams[index].x[row] for index, row in kept])
    y = np.array([scenario.streams[index].y[row] for index, row in kept], np.int64)
    return Labelled(np.concatenate([scenario.base.x, x]), np.concatenate([scenario.base.y, y]), scenario.names)


def _retrain(data: Labelled, scenario: Scenario, weights: bytes, teach: Teach) -> tuple[bytes, Packaged]:
    settings = settings_of(told(teach), data.x.shape[1:], str(data.x.dtype))
    net = train.fit(data.x, data.y, classes=len(data.names), settings=settings, parent=weights)
    some = np.random.default_rng(teach.seed).permutation(len(data.x))[:CALIBRATION_SAMPLES]
    holdout = (scenario.holdout.x, scenario.holdout.y)
    packaged = package(
        net, name="random", names=data.names, version=1, calibration=data.x[some], holdout=holdout, int8=teach.int8
    )
    return net.weights(), packaged


def as_executed(
    streams: Sequence[Stream],
    executed: Sequence[NDArray[np.int64]],
    models: Sequence[Model],
    names: tuple[str, ...],
) -> list[NDArray[np.bool_]]:
    """Per stream, who was right when each sample is judged by the model in force at that moment.

    executed: per stream (N,) the version that the device ran; `models` holds what stands for each, and a version
    without a stand-in is judged by the newest one before it.
    """
    found = []
    for stream, version in zip(streams, executed, strict=True):
        correct = np.zeros(len(stream.y), np.bool_)
        for index, model in enumerate(models):
            later = models[index + 1].version if index + 1 < len(models) else np.inf
            rows = (version >= model.version) & (version < later)
            if rows.any():
                correct[rows] = right(model, stream.x[rows], stream.y[rows], names)
        found.append(correct)
    return found
