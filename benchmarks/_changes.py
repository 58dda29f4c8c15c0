"""Streams that change: what a model says of them before, and after.

Synthetic ones, whose change is known to the digit, Fashion-MNIST through other lenses and of other things, and
smartwatch recordings of people whom training has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from edge_agent.choose.acquisition import Scorer
from edge_agent.contract.artifact import Golden, InputSpec, Manifest, Reference, Tensor
from models import evaluate
from models.data import Labelled, default_cache, load_fashion, load_watch
from models.errors import DataError
from models.package import package
from models.train import Settings, fit

Rows = tuple[np.ndarray, np.ndarray]  # logits, embedding
Draw = Callable[[np.random.Generator, int], Rows]


class Case(NamedTuple):
    """A model, its stream as usual, and as it is after the change. kind: cases of one kind share model and stream."""

    name: str
    kind: str
    manifest: Manifest
    usual: Draw
    changed: Draw


def synthetic() -> Iterator[Case]:
    """A linear model over a Gaussian embedding."""
    dimensions, classes = 32, 5
    weights = np.random.default_rng(7).normal(size=(dimensions, classes)).astype(np.float32) * 0.5
    direction = np.random.default_rng(8).normal(size=dimensions)
    direction /= np.linalg.norm(direction)
    usual = np.random.default_rng(9).normal(size=(2_000, dimensions)).astype(np.float32)
    scored = Scorer("margin").score(usual @ weights)
    energy = np.log(scored.confidence) - (usual @ weights).max(axis=1)
    reference = Reference(
        embedding_mean=Tensor.of(usual.mean(axis=0)),
        embedding_sd=Tensor.of(usual.std(axis=0)),
        class_centres=Tensor.of(np.stack([usual[scored.label == c].mean(axis=0) for c in range(classes)])),
        class_share=tuple((np.bincount(scored.label, minlength=classes) / len(usual)).tolist()),
        confidence_mean=float(scored.confidence.mean()),
        energy_mean=float(energy.mean()),
        utility_quantiles=(0.0,) * 21,
        samples=len(usual),
    )
    nothing = Tensor.of(np.zeros((1, 1), np.float32))
    manifest = Manifest(
        name="synthetic",
        version=1,
        files={},
        input=InputSpec(name="x", shape=(1,), dtype="float32"),
        classes=tuple("abcde"),
        golden=Golden(inputs=nothing, logits=nothing, tolerance=0.0),
        reference=reference,
    )

    def gaussian(shift: np.ndarray | float, spread: float) -> Draw:
        def draw(rng: np.random.Generator, count: int) -> Rows:
            rows = (rng.normal(size=(count, dimensions)) * spread + shift).astype(np.float32)
            return rows @ weights, rows

        return draw

    changes: dict[str, tuple[np.ndarray | float, float]] = {
        "mean+0.5": (0.5 * direction, 1.0),
        "mean+1": (direction, 1.0),
        "mean+2": (2.0 * direction, 1.0),
        "one_coordinate+1": (np.eye(dimensions)[3], 1.0),
        "sd*1.15": (0.0, 1.15),
        "sd*1.3": (0.0, 1.3),
    }
    for name, change in changes.items():
        yield Case(name, "gaussian", manifest, gaussian(0.0, 1.0), gaussian(*change))


def resampled(onnx: bytes, x: np.ndarray, share: np.ndarray | None = None) -> Draw:
    logits, embedding = evaluate.run_onnx(onnx, x)

    def draw(rng: np.random.Generator, count: int) -> Rows:
        rows = rng.choice(len(logits), count, p=share)
        return logits[rows], embedding[rows]

    return draw


def fashion() -> Iterator[Case]:
    """Images that training has not seen, then through another lens, or of other things."""
    known, unseen = load_fashion(default_cache())
    rng = np.random.default_rng(0)
    made = trained(
        known.take(rng.permutation(len(known.y))[:3000]), classes=10, held=unseen.take(np.arange(4000, 5000))
    )
    x, y = unseen.x[:4000], unseen.y[:4000]
    some = x[y < 8]  # the manifest knows all ten: see the second table
    old = resampled(made.onnx, some)
    changed = {
        "fog_light": fog(some, 0.2, rng),
        "fog": fog(some, 0.5, rng),
        "noise_light": noise(some, 13.0, rng),
        "noise": noise(some, 38.0, rng),
        "contrast*0.8": (some * 0.8 + 0.2 * some.mean()).astype(np.uint8),
        "contrast*0.5": (some * 0.5 + 0.5 * some.mean()).astype(np.uint8),
        "blur": blur(some),
        "rotation_10deg": rotated(some, 10.0),
        "one_pixel_aside": np.roll(some, 1, axis=2),
    }
    for name, images in changed.items():
        yield Case(name, "fashion", made.manifest, old, resampled(made.onnx, images))
    weight = {
        "two_new_classes": np.where(y < 8, 1.0, 1.0),
        "new_classes_5%": np.where(y < 8, 1.0, 0.21),
        "one_class_x5": np.where(y < 8, 1.0 + 4.0 * (y == 1), 0.0),
        "mild_label_shift": np.where(y < 8, np.exp(0.1 * y), 0.0),
    }
    for name, share in weight.items():
        yield Case(name, "fashion", made.manifest, old, resampled(made.onnx, x, share / share.sum()))


def fog(x: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """So much of the way to grey, with a little noise."""
    grey = x * (1.0 - share) + 160.0 * share + rng.normal(scale=4.0, size=x.shape)
    return np.clip(grey, 0, 255).astype(np.uint8)


def noise(x: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    return np.clip(x + rng.normal(scale=scale, size=x.shape), 0, 255).astype(np.uint8)


def blur(x: np.ndarray) -> np.ndarray:
    """By 1-2-1 each way, as by a lens slightly out of focus."""
    for axis in (1, 2):
        x = (np.roll(x, 1, axis) + 2.0 * x + np.roll(x, -1, axis)) / 4.0
    return x.astype(np.uint8)


def rotated(x: np.ndarray, degrees: float) -> np.ndarray:
    """About the middle, to the nearest pixel."""
    side = x.shape[1]
    down, along = np.mgrid[:side, :side] - (side - 1) / 2.0
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    rows = np.rint(cosine * down - sine * along + (side - 1) / 2.0).astype(int)
    columns = np.rint(sine * down + cosine * along + (side - 1) / 2.0).astype(int)
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return np.where(inside, x[:, rows.clip(0, side - 1), columns.clip(0, side - 1)], 0).astype(np.uint8)


def wearer() -> Iterator[Case]:
    """Smartwatch windows of people whom training has seen, then of one whom it has not."""
    try:
        data = load_watch()
    except DataError as error:
        print(f"missing: watch data ({error})")
        return
    people = np.unique(data.device)
    seen = np.flatnonzero(np.isin(data.device, people[:6]))
    third = data.t[seen] % 3
    made = trained(data.take(seen[third == 0]), classes=len(data.names), held=data.take(seen[third == 1]))
    held, new = data.x[seen[third == 2]], data.x[data.device == people[-1]]
    old = resampled(made.onnx, held)
    yield Case("new_wearer", "smartwatch", made.manifest, old, resampled(made.onnx, new))
    yield Case("gain*1.1", "smartwatch", made.manifest, old, resampled(made.onnx, (held * 1.1).astype(np.float32)))


def trained(data: Labelled, *, classes: int, held: Labelled) -> Any:
    net = fit(data.x, data.y, classes=classes, settings=Settings(epochs=6, seed=0))
    return package(net, name="bench", names=data.names, version=1, calibration=data.x[:512], holdout=(held.x, held.y))
