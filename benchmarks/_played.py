"""A real model on a stream of real samples, played once: what benchmarks of choosing start from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models import evaluate
from models.data import Labelled, default_cache, load_fashion, load_watch
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
    return _play(known.take(some[:train]), known.take(some[train:]), unseen.take(order), seed=seed)


def play_watch(*, train: int, stream: int, seed: int) -> Played:
    """The same of the smartwatch's windows, `train` of them of any person; the rest one person after the other.

    The stream goes round until it has `stream` samples.
    """
    rng = np.random.default_rng(seed)
    known = load_watch()
    order = rng.permutation(len(known.y))
    rest = np.sort(order[train + 500 :])
    laps = np.resize(rest, stream)
    return _play(known.take(order[:train]), known.take(order[train : train + 500]), known.take(laps), seed=seed)


def _play(base: Labelled, held: Labelled, stream: Labelled, *, seed: int) -> Played:
    net = fit(base.x, base.y, classes=len(base.names), settings=Settings(epochs=6, seed=seed))
    calibration = base.x[:512]
    made = package(net, name="bench", names=base.names, version=1, calibration=calibration, holdout=(held.x, held.y))
    logits, embedding = evaluate.run_onnx(made.onnx, stream.x)
    assert embedding is not None
    temperature = made.manifest.temperature
    confidence = evaluate.softmax(logits, temperature).max(1).astype(np.float64)
    return Played(logits, embedding, temperature, logits.argmax(1) == stream.y, confidence)
