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

from edge_agent.contract.errors import WinnowError
from models import evaluate, trainer
from models.trainer import Champion, Task, Trained

CLASSES, NEW_CLASSES = 3, 4
SAMPLES = 160  # few, so that the check is quick
BETTER_THAN_CHANCE = 1.5  # times: whoever cannot tell brightness from darkness has learned nothing


def check_trainer(
    name: str, folder: Path, *, shape: tuple[int, ...], dtype: str = "float32", told: dict[str, Any] | None = None
) -> None:
    """Let a trainer learn brightness, go on with one class more, and do it again.

    Args:
        name: "package.module:name".
        folder: for what it keeps meanwhile; empty.
        shape: of a sample that it takes.
        dtype: of it, "uint8" or "float32".
        told: what `[teach]` would say.
    """
    first = _task(folder / "1", shape, dtype, CLASSES, told or {})
    x, y = first.x.copy(), first.y.copy()
    one = _run(name, first)
    _expect(np.array_equal(first.x, x) and np.array_equal(first.y, y), "it writes into the samples that it is given")
    _expect(_run(name, first).onnx == one.onnx, "the same task gives another model when it is run again")
    _check_model(one, first)
    champion = Champion(names=first.names, onnx=one.onnx, weights=one.weights)
    _check_model(_run(name, _task(folder / "2", shape, dtype, NEW_CLASSES, told or {}, champion)), first)


def _run(name: str, task: Task) -> Trained:
    try:
        return trainer.run(name, task)
    except WinnowError as error:
        raise AssertionError(str(error)) from error


def _task(
    folder: Path,
    shape: tuple[int, ...],
    dtype: str,
    classes: int,
    told: dict[str, Any],
    champion: Champion | None = None,
) -> Task:
    y = np.arange(SAMPLES) % classes
    return Task(
        x=_samples(y, shape, dtype),
        y=y,
        names=tuple(f"level {k}" for k in range(classes)),
        device=np.array([f"device-{k % 6}" for k in range(SAMPLES)]),
        order=np.arange(SAMPLES),
        known=np.arange(SAMPLES) < (SAMPLES // 2 if champion else 0),
        probability=np.linspace(0.05, 1.0, SAMPLES),
        unlabelled=_samples(np.arange(32) % classes, shape, dtype),
        champion=champion,
        told=told,
        folder=folder,
        progress=lambda _share, _text: None,
    )


def _samples(y: NDArray[np.int64], shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Whose brightness tells their class."""
    level = 25.0 + 50.0 * y
    noise = np.random.default_rng(0).normal(0.0, 12.0, (len(y), *shape))
    made: NDArray[Any] = np.clip(level.reshape(-1, *[1] * len(shape)) + noise, 0, 255).astype(dtype)
    return made


def _check_model(trained: Trained, task: Task) -> None:
    run = partial(evaluate.run_onnx, trained.onnx, logits=trained.logits, embedding=trained.embedding or trained.logits)
    logits, embedding = run(task.x)
    one, _ = run(task.x[:8], batch=1)
    _expect(logits.ndim == 2 and logits.shape[1] >= len(task.names), f"logits are {logits.shape}, expected (N, C)")
    _expect(embedding.ndim == 2, f"the embedding is {embedding.shape}, expected (N, D)")
    _expect(bool(np.isfinite(logits).all() and np.isfinite(embedding).all()), "it says NaN or inf of finite samples")
    _expect(np.allclose(one, logits[:8], atol=1e-3), "a sample alone has other logits than among others")
    right = evaluate.accuracy(logits, task.y)
    _expect(right > BETTER_THAN_CHANCE / len(task.names), f"{right:.0%} right of what it was taught: it does not learn")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
