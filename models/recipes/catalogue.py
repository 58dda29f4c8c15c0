"""Which recipe makes a net for a kind of input, and what does it learn by?

A recipe is a function from the shape of one raw sample to `Parts` of a network, under its own name in a file of its
name; a TOML file beside it says what training goes by where nobody said otherwise. Anybody's own is named
"package.module:name", and may have a `name.toml` beside its module.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from edge_agent.contract.errors import did_you_mean
from edge_agent.contract.task import TASKS, Task
from models.detector import Detector
from models.errors import DataError
from models.net import Network, Parts, Shape
from models.regressor import Regressor

DIMENSIONS = {
    "cnn": (2, 3),
    "cnn1d": (2,),
    "lite0": (2, 3),
    "minilm": (1,),
    "mlp": (1,),
    "text": (1,),
    "audio": (1, 2),
    "audio8k": (1, 2),
    "fcos": (2, 3),
    "ssdlite": (2, 3),
}
"""How many axes a sample of each recipe has."""
FOR_BOXES = ("fcos", "ssdlite")


def choose(shape: Shape, dtype: str, task: Task = "classification") -> str:
    """The recipe for a raw sample, by its shape; `audio`, `lite0`, `minilm`, `text` and `ssdlite` want to be asked for.

    Two axes mean a grey image when both sides are 8 or longer, and they are bytes or no more than 1 : 2 apart;
    otherwise a series (T, C).

    >>> choose((28, 28), "uint8"), choose((100, 6), "float32"), choose((30,), "float32")
    ('cnn', 'cnn1d', 'mlp')
    """
    if task == "detection":
        return "fcos"
    if len(shape) == 1:
        return "mlp"
    if len(shape) == 3:
        return "cnn"
    if len(shape) == 2:
        image = min(shape) >= 8 and (dtype == "uint8" or max(shape) <= 2 * min(shape))
        return "cnn" if image else "cnn1d"
    raise DataError(f"a sample of shape {shape}: no recipe; expected (D,), (T, C), (H, W) or (H, W, C)")


def build(
    recipe: str, shape: Shape, *, classes: int, seed: int, heads: int = 1, task: Task = "classification"
) -> Network:
    """A fresh network. The same arguments give the same weights.

    Args:
        recipe: a key of `DIMENSIONS`, or "package.module:name" of a function from a shape to `Parts`.
        shape: of one raw sample, without the batch axis.
        classes: number of classes.
        seed: of the initial weights.
        heads: on the one body.
        task: what it is to say.

    Raises:
        DataError: no such recipe, or it does not take this shape, or is not for this task.
    """
    make, _ = _find(recipe)
    of_task = [one for one in DIMENSIONS if (one in FOR_BOXES) == (task == "detection")]
    if recipe in DIMENSIONS and recipe not in of_task:
        raise DataError(f"recipe {recipe!r} is not for {task}; that would be {' or '.join(of_task)}")
    if heads > 1 and task == "detection":
        raise DataError(f"heads = {heads}: a detector has one head")
    if len(shape) not in DIMENSIONS.get(recipe, (len(shape),)):
        fitting = " or ".join(one for one in of_task if len(shape) in DIMENSIONS[one]) or "none"
        raise DataError(f"recipe {recipe!r} takes no sample of shape {shape}; that would be {fitting}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _network(make(shape), shape, classes, heads, task, recipe)


def _network(parts: Parts, shape: Shape, classes: int, heads: int, task: Task, recipe: str) -> Network:
    if bool(parts.levels) != (task == "detection"):
        raise DataError(f"recipe {recipe!r}: its body ends in {'maps' if parts.levels else 'no maps'}, for {task}")
    if task == "detection":
        return Detector(parts, classes, shape)
    return (
        Regressor(parts, classes, heads=heads)
        if task == "regression"
        else Network(parts, classes, heads=heads, task=task)
    )


def defaults(recipe: str, task: Task = "classification") -> dict[str, Any]:
    """What the TOML file beside a recipe says of training; nothing where there is none. DataError when it is broken.

    A table named after a task comes before what it says of all.
    """
    _, file = _find(recipe)
    try:
        found: dict[str, Any] = msgspec.toml.decode(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise DataError(f"{file}: {error}") from error
    own: dict[str, dict[str, Any]] = {name: found.pop(name, {}) for name in TASKS}
    return {**found, **own[task]}


def _find(recipe: str) -> tuple[Callable[[Shape], Parts], Path]:
    """The function, and where its defaults would be."""
    module, _, name = (f"models.recipes.{recipe}:{recipe}" if recipe in DIMENSIONS else recipe).partition(":")
    if not name:
        known = ", ".join(DIMENSIONS)
        raise DataError(
            f"no recipe {recipe!r}{did_you_mean(recipe, DIMENSIONS)}; known: {known}, or package.module:name"
        )
    try:
        home = importlib.import_module(module)
        make: Callable[[Shape], Parts] = getattr(home, name)
    except (ImportError, AttributeError) as error:
        raise DataError(f"recipe {recipe!r}: {error}") from error
    return make, Path(home.__file__ or ".").with_name(f"{name}.toml")
