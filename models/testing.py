"""Does a trainer or a recipe of your own keep the contract of its seam?

For the tests of those who write one (docs/training.md): each check returns when it holds, and raises AssertionError
that says what was expected and what it did.

    from models.testing import check_trainer
    def test_mine(tmp_path): check_trainer("mine:train", tmp_path, shape=(28, 28), dtype="uint8")
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract import score
from edge_agent.contract.artifact import Answer
from edge_agent.contract.errors import WinnowError
from edge_agent.contract.task import Task as Kind
from models import evaluate, trainer
from models.curve import Point, checked
from models.kinds.kind import kind_of, outputs_of
from models.trainer import Champion, Task, Trained

CLASSES, NEW_CLASSES = 3, 4
SAMPLES = 160  # few, so that the check is quick
BETTER_THAN_CHANCE = 1.5  # times: whoever cannot tell brightness from darkness has learned nothing


def check_trainer(
    name: str,
    folder: Path,
    *,
    shape: tuple[int, ...],
    dtype: str = "float32",
    told: dict[str, Any] | None = None,
    task: Kind = "classification",
) -> None:
    """Let a trainer learn brightness (of a detector: where it is bright), go on with one class more, and do it again.

    Args:
        name: "package.module:name".
        folder: for what it keeps meanwhile; empty.
        shape: of a sample that it takes.
        dtype: of it, "uint8" or "float32".
        told: what `[teach]` would say.
        task: that it is to learn.
    """
    first = _task(folder / "1", shape, dtype, task, told or {})
    x, y = first.x.copy(), first.y.copy()
    one = _run(name, first)
    same = np.array_equal(first.x, x) and np.array_equal(first.y, y, equal_nan=task == "regression")
    _expect(same, "it writes into the samples that it is given")
    _expect(_run(name, first).onnx == one.onnx, "the same task gives another model when it is run again")
    _check_model(one, first)
    champion = Champion(names=first.names, onnx=one.onnx, weights=one.weights)
    _check_model(_run(name, _task(folder / "2", shape, dtype, task, told or {}, champion)), first, grown=1)


def _run(name: str, task: Task) -> Trained:
    try:
        return trainer.run(name, task)
    except WinnowError as error:
        raise AssertionError(str(error)) from error


def _task(
    folder: Path,
    shape: tuple[int, ...],
    dtype: str,
    task: Kind,
    told: dict[str, Any],
    champion: Champion | None = None,
) -> Task:
    classes = NEW_CLASSES if champion else CLASSES
    level = np.arange(SAMPLES) % classes
    x, y = _scenes(level, shape, dtype) if task == "detection" else (_samples(level, shape, dtype), _truth(level, task))
    return Task(
        x=x,
        y=y,
        names=tuple(f"level {k}" for k in range(classes)),
        task=task,
        device=np.array([f"device-{k % 6}" for k in range(SAMPLES)]),
        order=np.arange(SAMPLES),
        known=np.arange(SAMPLES) < (SAMPLES // 2 if champion else 0),
        probability=np.linspace(0.05, 1.0, SAMPLES),
        unlabelled=_samples(np.arange(32) % classes, shape, dtype),
        champion=champion,
        told=told,
        folder=folder,
        progress=_listen,
    )


def _listen(_share: float, _text: str, point: Point | None = None, /) -> None:
    if point is not None:
        checked(point)


def _samples(y: NDArray[np.int64], shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Whose brightness tells their class."""
    level = 25.0 + 50.0 * y
    noise = np.random.default_rng(0).normal(0.0, 12.0, (len(y), *shape))
    made: NDArray[Any] = np.clip(level.reshape(-1, *[1] * len(shape)) + noise, 0, 255).astype(dtype)
    return made


def _truth(level: NDArray[np.int64], task: Kind) -> NDArray[Any]:
    """The level itself; that it is at least so high; so many times ten, twenty ..."""
    if task == "classification":
        return level
    steps = np.arange(level.max() + 1)
    several = level[:, None] >= steps
    return (several if task == "multilabel" else 10.0 * level[:, None] * (1 + steps)).astype(np.float32)


def _scenes(level: NDArray[np.int64], shape: tuple[int, ...], dtype: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Dark images with one square, whose brightness tells its class; every fifth has none."""
    rng = np.random.default_rng(0)
    x = rng.normal(20.0, 4.0, (len(level), *shape))
    boxes = []
    for image, k in zip(x, level, strict=True):
        if rng.random() < 0.2:
            boxes.append(np.zeros((0, 6)))
            continue
        side = int(min(shape[:2]) * rng.uniform(0.25, 0.5))
        top, left = rng.integers(shape[0] - side + 1), rng.integers(shape[1] - side + 1)
        image[top : top + side, left : left + side] += 50.0 * (k + 1)
        corners = left / shape[1], top / shape[0], (left + side) / shape[1], (top + side) / shape[0]
        boxes.append(np.array([[k, *corners, 1.0]]))
    return np.clip(x, 0, 255).astype(dtype), score.stacked(boxes)


def _check_model(trained: Trained, task: Task, *, grown: int = 0) -> None:
    names = [*task.names, *(f"new {k}" for k in range(grown))]
    kind, session = kind_of(task.task, names, trained.answer), evaluate.open_session(trained.onnx)
    answer = trained.answer or Answer()
    found = outputs_of(
        session, task.x, logits=trained.logits, embedding=trained.embedding or trained.logits, answer=answer
    )
    one = evaluate.run_outputs(session, task.x[:8], [trained.logits], batch=1)[0]
    try:
        kind.check(found)
    except WinnowError as error:
        raise AssertionError(str(error)) from error
    _expect(found.embedding.ndim == 2, f"the embedding is {found.embedding.shape}, expected (N, D)")
    sound = bool(found.sound.all() and np.isfinite(found.embedding).all())
    _expect(sound, "it says NaN or inf of finite samples")
    same = np.allclose(one, found.logits[:8], atol=1e-3, rtol=1e-4)
    _expect(same, "a sample alone has other logits than among others")
    truth = task.y
    if grown and task.task in ("multilabel", "regression"):  # of what was not known then nothing is asked
        filler = np.zeros if task.task == "multilabel" else partial(np.full, fill_value=np.nan)
        truth = np.concatenate([truth, filler((len(truth), grown)).astype(np.float32)], axis=1)
    right = float(kind.score(found, truth).mean())
    least = BETTER_THAN_CHANCE / len(task.names)
    _expect(right > least, f"{right:.0%} right of what it was taught: it does not learn")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
