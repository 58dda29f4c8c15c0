"""Trainings that one process and several do alike: a program of the ranks, and what it is to be held against.

    python tests/models/in_ranks.py FOLDER RANK WORLD

Processes are started by hand here, as any launcher would; tests/models/test_launch.py has the real one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from models.curve import Point
from models.job import Beside
from models.ranks import group
from models.train import Job, Net, Settings, _begun, learned

PLAIN = {"epochs": 3, "batch_size": 18, "learning_rate": 4e-3, "label_smoothing": 0.0}


def _images(n: int, side: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.normal(100, 30, (n, side, side)) + 60 * (np.arange(side) // (side // 3) == y[:, None, None])
    return x.clip(0, 255).astype(np.uint8), y


def _series(n: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, n)
    return (rng.normal(size=(n, *shape)) + y.reshape(-1, *[1] * len(shape))).astype(np.float32), y


def jobs() -> Iterator[tuple[str, Job]]:
    """One of each kind: 100 samples in batches of 18 leave 10 in the last, and parts that are not even."""
    images, classes = _images(101, 16)
    series, of_series = _series(101, (20, 3))
    table, of_table = _series(101, (7,))
    order = np.random.default_rng(2).permutation(101)
    beside = Beside(device=np.repeat(np.arange(6), 17)[:101], order=order, known=np.arange(101) < 60,
                    probability=np.linspace(0.1, 1.0, 101), unlabelled=_images(30, 16, seed=5)[0])  # fmt: skip
    numbers = np.stack([of_table * 2.0 + table[:, 0], np.where(order % 4, table[:, 1], np.nan)], 1).astype(np.float32)
    several = np.stack([classes == 0, classes > 0], 1).astype(np.float32)
    letters = np.where(classes[:, None] == 1, 97, 98 + np.random.default_rng(3).integers(0, 9, (101, 24))).astype(
        np.uint8
    )
    yield "cnn", _job(images, classes, ema=0.9, augment=("shift", "brightness"))
    yield "cnn1d", _job(series, of_series, augment=("jitter", "scale"), importance_clip=4.0, beside=beside)
    yield "mlp", _job(table, of_table, heads=3, precision="fp32")
    yield "text", _job(letters, classes, recipe="text", learning_rate=1e-2)
    yield "regression", _job(table, numbers, task="regression", classes=2, patience=9)
    yield "multilabel", _job(images, several, task="multilabel", classes=2)
    yield "fcos", _job(images, _boxes(classes), task="detection", patience=9, ema=0.9)
    yield "champion", _job(images, classes, parent=_parent(images, classes), distil=1.0, shrink=0.5, replay=0.5,
                           patience=2, pseudo_labels=0.4, augment=("shift",), beside=beside)  # fmt: skip
    yield "head", _job(images, classes, parent=_parent(images, classes), part="head")
    yield "pieces", _job(images, classes, ema=0.9, pieces=True, patience=9)


def _job(x: np.ndarray, y: np.ndarray, *, classes: int = 3, task: Any = "classification", parent: bytes | None = None,
         beside: Beside | None = None, **told: Any) -> Job:  # fmt: skip
    settings = Settings(**{**PLAIN, **told})
    return Job(x=x, y=y, classes=classes, settings=settings, task=task, parent=parent, beside=beside or Beside())


def _boxes(classes: np.ndarray) -> np.ndarray:
    made = np.full((len(classes), 2, 6), -1.0, np.float32)
    third = classes / 3.0
    made[:, 0] = np.stack([classes, 0 * third, third, 0 * third + 1, third + 1 / 3, 0 * third + 1], axis=1)
    made[::5, 0, 0] = -1.0  # nothing in some
    return made


def _parent(x: np.ndarray, y: np.ndarray) -> bytes:
    from models.train import fit

    return fit(x[:60], y[:60], classes=3, settings=Settings(epochs=1, batch_size=16)).weights()


def learn(job: Job, ranks: Any, points: list[Point]) -> bytes:
    """The weights; `points` come to have the curve."""
    before = None if job.parent is None else Net.load(job.parent)
    listen = lambda _share, _text, point=None: points.append(point)  # noqa: E731
    return learned(job, _begun(job, before), before, ranks, checkpoint=None, progress=listen).weights()


def main() -> None:
    folder, rank, world = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    os.environ |= {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = (folder / "port").read_text()
    torch.set_num_threads(1)
    with group() as ranks:
        for name, job in jobs():
            points: list[Point] = []
            (folder / f"{name}.{rank}").write_bytes(learn(job, ranks, points))
            (folder / f"{name}.{rank}.json").write_bytes(msgspec.json.encode(points))


if __name__ == "__main__":
    main()
