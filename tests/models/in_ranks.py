"""Trainings that one process and several do alike: a program of the ranks, and what it is to be held against.

    python tests/models/in_ranks.py FOLDER RANK WORLD

Processes are started by hand here, as any launcher would; tests/models/test_launch.py has the real one.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from models.curve import Point
from models.job import Beside
from models.ranks import group
from models.train import Job, Net, Settings, _begun, fit, learned

PLAIN = {"epochs": 2, "batch_size": 18, "learning_rate": 4e-3, "label_smoothing": 0.0}


def _images(n: int, side: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.normal(100, 30, (n, side, side)) + 60 * (np.arange(side) // (side // 3) == y[:, None, None])
    return x.clip(0, 255).astype(np.uint8), y


def _series(n: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, n)
    return (rng.normal(size=(n, *shape)) + y.reshape(-1, *[1] * len(shape))).astype(np.float32), y


# One of each kind: 47 samples in batches of 18 leave 11 in the last, and parts that are not even.
_N = 47
_BESIDE = Beside(
    device=np.repeat(np.arange(6), 8)[:_N],
    order=np.random.default_rng(2).permutation(_N),
    known=np.arange(_N) < 30,
    probability=np.linspace(0.1, 1.0, _N),
)


def cnn() -> Job:
    return _job(*_images(_N, 16), ema=0.9, augment=("shift", "brightness"))


def cnn1d() -> Job:
    return _job(*_series(_N, (20, 3)), augment=("jitter", "scale"), importance_clip=4.0, beside=_BESIDE)


def mlp() -> Job:
    return _job(*_series(_N, (7,)), heads=3)


def text() -> Job:
    y = np.random.default_rng(4).integers(0, 3, _N)
    letters = np.where(y[:, None] == 1, 97, 98 + np.random.default_rng(3).integers(0, 9, (_N, 24)))
    return _job(letters.astype(np.uint8), y, recipe="text", learning_rate=1e-2)


def regression() -> Job:
    x, y = _series(_N, (7,))
    known = np.where(np.arange(_N) % 4, x[:, 1], np.nan)
    return _job(x, np.stack([y * 2.0 + x[:, 0], known], 1).astype(np.float32), task="regression", classes=2, patience=9)


def multilabel() -> Job:
    x, y = _series(_N, (7,))
    return _job(x, np.stack([y == 0, y > 0], 1).astype(np.float32), task="multilabel", classes=2)


def fcos() -> Job:
    x, y = _images(_N, 16)
    boxes = np.full((_N, 2, 6), -1.0, np.float32)
    third = y / 3.0
    boxes[:, 0] = np.stack([y, 0 * third, third, 0 * third + 1, third + 1 / 3, 0 * third + 1], axis=1)
    boxes[::5, 0, 0] = -1.0  # nothing in some
    return _job(x, boxes, task="detection", patience=9, ema=0.9, learning_rate=1e-4)


def champion() -> Job:
    x, y = _images(_N, 16)
    beside = replace(_BESIDE, unlabelled=_images(30, 16, seed=5)[0])
    return _job(x, y, parent=_parent(x, y), distil=1.0, shrink=0.5, replay=0.5, patience=2, pseudo_labels=0.4,
                augment=("shift",), beside=beside)  # fmt: skip


def head() -> Job:
    x, y = _images(_N, 16)
    return _job(x, y, parent=_parent(x, y), part="head")


def pieces() -> Job:
    """Of every weight each rank has a part."""
    return _job(*_images(_N, 16), ema=0.9, pieces=True, patience=9)


def long() -> Job:
    """Six hundred steps, and so three checkpoints."""
    return _job(*_series(101, (7,)), epochs=12, batch_size=2, ema=0.9, augment=("jitter",))


ALIKE = (cnn, cnn1d, mlp, text, regression, multilabel, fcos, champion, head, pieces)
JOBS = {make.__name__: make for make in (*ALIKE, long)}


def _job(x: np.ndarray, y: np.ndarray, *, classes: int = 3, task: Any = "classification", parent: bytes | None = None,
         beside: Beside | None = None, **told: Any) -> Job:  # fmt: skip
    settings = Settings(**{**PLAIN, **told})
    return Job(x=x, y=y, classes=classes, settings=settings, task=task, parent=parent, beside=beside or Beside())


def _parent(x: np.ndarray, y: np.ndarray) -> bytes:
    return fit(x[:30], y[:30], classes=3, settings=Settings(epochs=1, batch_size=16)).weights()


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
        for name, job in JOBS.items():
            points: list[Point] = []
            (folder / f"{name}.{rank}").write_bytes(learn(job(), ranks, points))
            (folder / f"{name}.{rank}.json").write_bytes(msgspec.json.encode(points))


if __name__ == "__main__":
    main()
