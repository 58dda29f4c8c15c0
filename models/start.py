"""With what weights does a training begin?

With fresh ones, or with the parent's: grown by the new classes, and shrunk if that is wanted. A net that goes on from
where it was tends to generalise worse than one that starts anew; shrinking all weights and adding a little of a fresh
start keeps what was learned and mends that (Ash & Adams, NeurIPS 2020).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_agent.contract.task import Task
from models.errors import DataError
from models.net import Network, Shape
from models.recipes.catalogue import build, choose

PERTURB = (
    0.1  # of a fresh net's weights, added to a shrunk one: with none, units that died stay dead; much is a new start
)


def recipe_for(shape: Shape, dtype: str, wanted: str, parent: str, task: Task = "classification") -> str:
    """The one wanted, else the parent's, else by the shape of a sample. DataError when it is not the parent's."""
    if parent and wanted not in ("", parent):
        raise DataError(f"recipe {wanted!r}, but the parent is a {parent!r}: train without the parent")
    return wanted or parent or choose(shape, dtype, task)


def fresh(
    recipe: str, x: NDArray[Any], y: NDArray[Any], classes: int, *, heads: int, seed: int, task: Task = "classification"
) -> Network:
    """A new net, its constants measured on raw samples x: (N, *shape) and their truth."""
    module = build(recipe, tuple(x.shape[1:]), classes=classes, heads=heads, seed=seed, task=task)
    module.prepare.measure(torch.as_tensor(np.require(x, requirements=["C", "W"])))
    module.measure(torch.as_tensor(np.require(y, requirements=["C", "W"])))
    return module


def grow(module: Network, y: NDArray[Any], classes: int, *, heads: int, seed: int) -> None:
    """Add classes and heads; DataError when there were more classes. y: what measures new targets of numbers."""
    if classes < module.classes:
        raise DataError(f"{classes} classes, but the parent knows {module.classes}: classes are only ever added")
    if (classes, heads) != (module.classes, module.heads):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            was = module.classes
            module.grow(classes, heads=heads)
            module.measure(torch.as_tensor(np.require(y, requirements=["C", "W"])), first=was)


def shrink(module: Network, recipe: str, shape: Shape, *, keep: float, seed: int) -> None:
    """Every weight times `keep`, plus a little of a fresh net's; constants and running figures stay."""
    if keep == 1.0:
        return
    other = build(recipe, shape, classes=module.classes, heads=module.heads, seed=seed, task=module.task)
    with torch.no_grad():
        for own, new in zip(module.parameters(), other.parameters(), strict=True):
            own.mul_(keep).add_(new, alpha=PERTURB)
