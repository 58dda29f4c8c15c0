"""How much of it is Winnow's doing?

Two controls on the same streams: the frozen first model, and models that learned from labels picked at random
(control.py). All are judged as shipped, on int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import Manifest, decode_manifest
from models import evaluate
from server.demo.report import Accuracy
from server.demo.scenario import Stream
from server.store import versions
from server.store.store import Store


class Model(NamedTuple):
    """A version as shipped."""

    version: int
    onnx: bytes
    manifest: Manifest

    @property
    def names(self) -> tuple[str, ...]:
        """Of its classes."""
        return self.manifest.classes


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


def accuracy(correct: NDArray[Any]) -> Accuracy:
    """A share with its interval; of several models' mean, as wide as that of one.

    correct: (N,) whether each sample was right, or the share of the models that were.
    """
    share, total = float(correct.mean()), len(correct)
    low, high = evaluate.wilson_interval(round(share * total), total, confidence=0.95)
    return Accuracy(value=share, interval=(low, high), samples=total)


def mean(correct: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """(N,) how many of several models were right, 0..1."""
    result: NDArray[np.float64] = np.mean(correct, axis=0)
    return result


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
