"""A small fleet with a champion, and candidates taught from its labels: honest ones, and ones that went wrong.

Images of clothes at a quarter of their pixels, so that a training takes a second. The champion was made from imports
alone; devices see the same kinds of clothes, each a little darker or lighter than the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models import data
from models.package import Packaged, package
from models.train import Net, Settings, fit
from server.config import Gates
from server.teach.champions import Champion, Known
from server.teach.dataset import Dataset, Part
from server.teach.judging import Judged, judge_candidate

DEVICES = 20
EPOCHS = 4


@dataclass(frozen=True)
class Fleet:
    """What is labelled, and the model that runs."""

    names: tuple[str, ...]
    data: Dataset
    champion: Champion


def images(labelled: data.Labelled) -> np.ndarray:
    """(N, 14, 14) uint8: the mean of four pixels."""
    x = labelled.x.reshape(len(labelled.x), 14, 2, 14, 2).mean(axis=(2, 4))
    return x.astype(np.uint8)


def fleet(*, imports: int = 1000, labels: int = 1500, held: int = 600, audit: int = 900, seed: int = 0) -> Fleet:
    """DataError when Fashion-MNIST is not there."""
    train, test = data.load_fashion(data.default_cache())
    rng = np.random.default_rng(seed)
    mine, theirs = rng.permutation(len(train.y))[: imports + labels], rng.permutation(len(test.y))[: held + audit]
    parts = [
        _part(train.take(mine), np.arange(len(mine)) >= imports, "train", rng),
        _part(test.take(theirs), np.arange(len(theirs)) >= held, "holdout", rng),
    ]
    known = Dataset(*parts, left_out=0)
    base = ~known.train.stream
    net = fit(known.train.x[base], known.train.y[base], classes=10, settings=Settings(epochs=EPOCHS, seed=seed))
    made = packed(net, train.names, known, base)
    return Fleet(train.names, known, Champion(1, made.manifest, made.onnx, net.weights()))


def _part(labelled: data.Labelled, stream: np.ndarray, split: str, rng: np.random.Generator) -> Part:
    n = len(labelled.y)
    number = rng.integers(DEVICES, size=n)
    light = np.where(stream, 0.7 + 0.6 * number / DEVICES, 1.0)
    x = np.clip(images(labelled) * light[:, None, None], 0, 255).astype(np.uint8)
    return Part(
        x=x,
        y=labelled.y,
        stream=stream,
        probability=np.where(stream, 0.01, 1.0),
        device=np.where(stream, np.char.add("cam-", number.astype(np.str_)), "import"),
        sample=np.array([f"{split}-{k}" for k in range(n)]),
        received_at_ms=np.arange(n),
        arm=np.full(n, ""),
    )


def packed(net: Net, names: tuple[str, ...], known: Dataset, rows: np.ndarray, *, champion: Champion | None = None):
    """As a round packages it."""
    return package(
        net,
        name="clothes",
        names=names,
        version=2 if champion else 1,
        calibration=known.train.x[rows][:256],
        holdout=(known.holdout.x, known.holdout.y),
    )


def candidate(world: Fleet, *, seed: int = 1, teach: Callable[[Part], np.ndarray] | None = None) -> Packaged:
    """Trained on from the champion on all that is labelled; `teach` says what labels it is told instead."""
    part = world.data.train
    y = part.y if teach is None else teach(part)
    settings = Settings(epochs=EPOCHS, seed=seed)
    net = fit(part.x, y, classes=len(world.names), settings=settings, parent=world.champion.weights)
    return packed(net, world.names, world.data, np.ones(len(y), np.bool_), champion=world.champion)


def judged(world: Fleet, made: Packaged, *, rules: Gates | None = None, data: Dataset | None = None) -> Judged:
    """By the rules of a new server."""
    return judge_candidate(
        data or world.data, world.names, made, world.champion, int8=True, rules=rules or Gates(), known=Known()
    )
