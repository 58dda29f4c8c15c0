"""How does a body that was taught by others tell somebody's own classes?

Its weights stay as they are; a linear head is fitted to its embeddings, which are computed once (a linear probe: Alain
and Bengio 2016). A few samples of each class do, there is nothing to tune, and it takes a minute of a CPU. Training in
rounds goes on from it, by the recipe of the same name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.bring import Brought, Given, Precision, ship
from models.errors import DataError
from models.export import to_onnx
from models.net import Network
from models.package import About
from models.precision import Limits
from models.recipes.catalogue import build
from models.taps import Found, Taps
from models.train import Net, threads

HELD = 5  # one of so many judges
CALIBRATION = 256  # samples; ranges settle with a few hundred
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of squared weights, on embeddings of sd 1: by what is kept back
STEPS = 200  # of L-BFGS; it stops by itself where the loss does
AT_ONCE = 32  # samples through the body


class Body(NamedTuple):
    """A recipe with weights of its own. side: of images that are given it, where nobody says another."""

    side: int
    licence: str


BODIES = {"lite0": Body(224, "Apache-2.0"), "minilm": Body(0, "Apache-2.0")}
"""Those that come ready, by their recipes."""


class Made(NamedTuple):
    """The artifact, and the weights to train on from."""

    brought: Brought
    weights: bytes


def make(
    recipe: str,
    about: About,
    x: NDArray[Any],
    y: NDArray[np.int64],
    *,
    precision: Precision = "auto",
    limits: Limits | None = None,
) -> Made:
    """A ready body under a head for these classes.

    Args:
        recipe: one of `BODIES`.
        about: what nobody can measure.
        x: (N, *shape) raw samples.
        y: (N,) index into the names; every class occurs three times at least. One sample of five of each class judges,
            the others teach and calibrate.
        precision: as of `models.bring.bring`.
        limits: likewise.

    Raises:
        DataError: the recipe does not take the samples, or its packages are not installed.
        IncompatibleError: it cannot be quantised and has to be.
    """
    held, shape = _held(y), tuple(x.shape[1:])
    module = build(recipe, shape, classes=len(about.names), seed=0)
    net = Net(module.eval(), recipe, shape, str(x.dtype), len(about.names))
    teach(net.module, x[~held], y[~held])
    note = f"the body of {recipe!r} as it came, under a linear head taught by {int((~held).sum())} samples"
    about = replace(about, licence=about.licence or BODIES[recipe].licence, notes=(*about.notes, note))
    some = np.random.default_rng(0).permutation(np.flatnonzero(~held))[:CALIBRATION]
    found = Found(Taps(about.logits, about.embedding), "as they are exported")
    given = Given(x[some], x[held], y[held])
    return Made(ship(to_onnx(net), about, given, found, precision=precision, limits=limits), net.weights())


def teach(module: Network, x: NDArray[Any], y: NDArray[np.int64]) -> None:
    """Set the head by raw samples x: (N, *shape) of classes y: (N,); the same samples give the same head."""
    with threads(1):
        _teach(module, _embedded(module, x).double(), y)


def _teach(module: Network, seen: Tensor, y: NDArray[np.int64]) -> None:
    """The same of embeddings (N, D) float64."""
    # One scale for all units: of each its own, and a unit that hardly moves would get a weight that makes int8's
    # rounding of it louder than the others (.28 of accuracy left where float had 1.00).
    mean = seen.mean(dim=0)
    sd = (seen - mean).square().mean().sqrt().clamp(min=1e-6)
    z, truth = (seen - mean) / sd, torch.from_numpy(y)
    back = torch.from_numpy(_held(y))
    left = [_fit(z[~back], truth[~back], module.classes, penalty) for penalty in PENALTIES]
    losses = [float(nn.functional.cross_entropy(z[back] @ w.T + b, truth[back])) for w, b in left]
    weight, bias = _fit(z, truth, module.classes, PENALTIES[int(np.argmin(losses))])
    head = cast(nn.Linear, module.head)
    with torch.no_grad():
        head.weight.copy_(weight / sd)
        head.bias.copy_(bias - weight @ (mean / sd))


def _held(y: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) the fifth of each class that is kept apart, spread over its order; one at least."""
    held = np.zeros(len(y), np.bool_)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        if len(rows) < 3:
            raise DataError(f"class {label} has {len(rows)} samples, expected 3: to teach, choose and judge by")
        held[rows[HELD // 2 :: HELD] if len(rows) > HELD // 2 else rows[-1:]] = True
    return held


def _embedded(module: Network, x: NDArray[Any]) -> Tensor:
    """(N, D) float32."""
    parts = np.array_split(x, -(-len(x) // AT_ONCE))
    with torch.inference_mode():
        return torch.cat([module(torch.from_numpy(np.ascontiguousarray(part)))[1] for part in parts]).clone()


def _fit(z: Tensor, y: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and bias (C,) of a logistic regression, by L-BFGS."""
    weight = torch.zeros(classes, z.shape[1], dtype=z.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=z.dtype, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        total = nn.functional.cross_entropy(z @ weight.T + bias, y) + penalty * weight.square().sum() / 2.0
        total.backward()  # type: ignore[no-untyped-call]
        return total

    solver.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
