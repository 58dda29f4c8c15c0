"""A real model on a stream of real images, played once: what benchmarks of choosing start from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models import evaluate
from models.data import default_cache, load_fashion
from models.package import package
from models.train import Settings, fit


class Played(NamedTuple):
    """What the model said of every sample of the stream, in order."""

    logits: np.ndarray  # (N, C) float32
    embedding: np.ndarray  # (N, D) float32
    temperature: float
    right: np.ndarray  # (N,) bool
    confidence: np.ndarray  # (N,) float64, after temperature


def play(*, train: int, stream: int, seed: int) -> Played:
    """Train the small CNN on `train` images of Fashion-MNIST, quantise it, run it over `stream` test images."""
    rng = np.random.default_rng(seed)
    known, unseen = load_fashion(default_cache())
    some, order = rng.permutation(len(known.y))[: train + 1000], rng.permutation(len(unseen.y))[:stream]
    base, held = known.take(some[:train]), known.take(some[train:])
    net = fit(base.x, base.y, classes=10, settings=Settings(epochs=6, seed=seed))
    made = package(net, name="bench", names=known.names, version=1, calibration=base.x[:512], holdout=(held.x, held.y))
    x, y = unseen.x[order], unseen.y[order]
    logits, embedding = evaluate.run_onnx(made.onnx, x)
    assert embedding is not None
    probabilities = evaluate.softmax(logits, made.manifest.temperature)
    return Played(
        logits, embedding, made.manifest.temperature, logits.argmax(1) == y, probabilities.max(1).astype(np.float64)
    )
