"""Real data for the tasks that ask for more than a class, with their truth.

regression   442 people with diabetes: how far it has come a year later, and their body mass index, by eight other
             measurements (scikit-learn's `load_diabetes`; Efron et al. 2004)
multilabel   700 handwritten digits, 8x8: is it even, is it five or more, does it have a loop?
detection    scenes that are made: up to two real pictures of Fashion-MNIST, at half their size, on a noisy canvas
             of 32x32. Their boxes are where the pictures are not black.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edge_agent.contract import score
from edge_agent.contract.task import Task, plain, truth_of
from models import data
from models.errors import DataError

GOODS = {1: "trousers", 5: "sandal", 8: "bag"}
SIDE, MOST = 32, 2
LOOPS = (0, 6, 8, 9)


@dataclass(frozen=True)
class World:
    """N samples with their truths, shuffled."""

    task: Task
    names: tuple[str, ...]
    x: np.ndarray
    truths: list[dict[str, Any]] | list[int]  # as the store has them; of a class its number
    told: dict[str, Any]  # of training: what is quick here

    @property
    def y(self) -> np.ndarray:
        if self.task == "classification":
            return np.array(self.truths, np.int64)
        return score.truths([truth_of(one) for one in self.truths], self.task, len(self.names))


def world(task: Task) -> World:
    made = {"regression": _diabetes, "multilabel": _digits, "detection": _goods}[task]()
    order = np.random.default_rng(3).permutation(len(made.x))
    return World(made.task, made.names, made.x[order], [made.truths[i] for i in order], made.told)


def _diabetes() -> World:
    found = pytest.importorskip("sklearn.datasets").load_diabetes(scaled=False)
    bmi = found.feature_names.index("bmi")
    x = np.delete(found.data, bmi, axis=1).astype(np.float32)
    rows = zip(found.target, found.data[:, bmi], strict=True)
    truths = [plain(truth_of({"values": [[0, float(a)], [1, float(b)]]})) for a, b in rows]
    return World("regression", ("progression", "bmi"), x, truths, {"epochs": 30, "batch_size": 32})


def _digits() -> World:
    found = pytest.importorskip("sklearn.datasets").load_digits()
    found.target, found.images = found.target[:700], found.images[:700]
    facts = np.stack([found.target % 2 == 0, found.target >= 5, np.isin(found.target, LOOPS)], axis=1)
    truths = [{"applies": [[int(k)] for k in np.flatnonzero(row)]} for row in facts]
    x = (found.images * 15.0).astype(np.uint8)
    return World("multilabel", ("even", "large", "loop"), x, truths, {"epochs": 3, "batch_size": 32})


def _goods(count: int = 420) -> World:
    try:
        train, _ = data.load_fashion(data.default_cache())
    except DataError as error:
        pytest.skip(str(error))
    rows = np.flatnonzero(np.isin(train.y, list(GOODS)))[: MOST * count]
    pictures, kind = train.x[rows].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)), train.y[rows]
    rng = np.random.default_rng(0)
    x = rng.normal(30.0, 8.0, (count, SIDE, SIDE))
    truths = []
    for number in range(count):
        boxes = []
        for k in range(rng.integers(0, MOST + 1)):
            picture = pictures[MOST * number + k]
            top, left = rng.integers(SIDE - 13), k * SIDE // 2 + rng.integers(SIDE // 2 - 13)
            seen = picture > 30.0
            canvas = x[number, top : top + 14, left : left + 14]
            canvas[:] = np.where(seen, picture, canvas)
            down, across = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
            low, high = (left + across[0], top + down[0]), (left + across[-1] + 1, top + down[-1] + 1)
            label = sorted(GOODS).index(int(kind[MOST * number + k]))
            boxes.append([label, *(float(v) / SIDE for v in (*low, *high))])
        truths.append({"boxes": boxes})
    names = tuple(GOODS[k] for k in sorted(GOODS))
    return World("detection", names, np.clip(x, 0, 255).astype(np.uint8), truths, {"epochs": 9, "batch_size": 32})
