"""How does a network learn, from scratch or from its parent?

One plain loop with the whole set in one tensor. It reads no clock and no global random state: the same call gives the
same weights on the same machine and number of threads (on a GPU, nearly the same).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_agent.contract.errors import ArtifactError
from models.data import require_finite
from models.errors import DataError
from models.net import Network, Shape, build, choose_recipe

WEIGHT_DECAY = 0.01
LABEL_SMOOTHING = 0.05  # without it a small set ends in logits so large that margins tie; much more flattens them
GENTLE_SHARE = 0.25  # of the learning rate, for plain descent: Adam moves every weight by a step, wherever it was going
Part = Literal["whole", "gently", "head"]
"""What learns: all of it; all of it, but no weight far; the head alone. The less, the fewer bytes differ."""
Progress = Callable[[float, str], None]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `fit` may be told; the defaults suit a few thousand samples."""

    recipe: str = ""  # empty: the parent's, else by the shape of a sample
    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 4e-3  # highest of the one-cycle schedule
    threads: int = 1
    seed: int = 0
    label_smoothing: float = LABEL_SMOOTHING  # 0: plain cross-entropy
    part: Part = "whole"  # that learns, of a net that goes on from a parent


@dataclass(frozen=True)
class Net:
    """A trained network and what it takes to build it again."""

    module: Network
    recipe: str
    shape: Shape  # of one raw sample
    dtype: str
    classes: int

    def weights(self) -> bytes:
        """Everything needed to go on training, for `load`."""
        buffer = io.BytesIO()
        state = {name: tensor.cpu() for name, tensor in self.module.state_dict().items()}
        plain = {"recipe": self.recipe, "shape": self.shape, "dtype": self.dtype, "classes": self.classes}
        torch.save({**plain, "state": state}, buffer)
        return buffer.getvalue()

    @classmethod
    def load(cls, data: bytes) -> Net:
        """Read what `weights` wrote; ArtifactError when it is something else.

        Nothing in it is executed; a recipe of "package.module:name" is imported from what is installed here.
        """
        try:
            plain = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
            state = plain.pop("state")
            module = build(plain["recipe"], plain["shape"], classes=plain["classes"], seed=0)
            module.load_state_dict(state)
            return cls(module=module.eval(), **plain)
        except (
            DataError,
            RuntimeError,
            pickle.UnpicklingError,
            EOFError,
            KeyError,
            TypeError,
            AttributeError,
            ValueError,
        ) as error:
            raise ArtifactError(f"weights of {len(data)} bytes: {error}; expected those of Net.weights()") from error


def fit(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    classes: int,
    settings: Settings,
    parent: bytes | None = None,
    progress: Progress | None = None,
) -> Net:
    """Train from scratch, or on from a parent; new classes grow its head.

    Args:
        x: (N, *shape) uint8 or float32, raw and finite.
        y: (N,) int, 0..classes-1.
        classes: C; at least as many as the parent has.
        settings: how.
        parent: `Net.weights()` of the net to go on from.
        progress: called after each epoch with the share done, 0..1, and a line for people.

    Raises:
        DataError: x or y do not fit each other, or the parent.
        ArtifactError: the parent's bytes are no weights.
    """
    _check(x, y, classes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _threads(settings.threads):
        net = _fresh(x, classes, settings) if parent is None else _grown(Net.load(parent), x, classes, settings)
        # Channels last is 15 % faster than NCHW on a CPU; torch's types do not know the argument.
        module = net.module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        data, truth = torch.tensor(x, device=device), torch.tensor(y.astype(np.int64), device=device)
        _learn(module, data, truth, settings, progress, part=settings.part if parent is not None else "whole")
        module.cpu().eval()
    return net


def _check(x: NDArray[Any], y: NDArray[Any], classes: int) -> None:
    if x.dtype not in (np.dtype(np.uint8), np.dtype(np.float32)) or x.ndim < 2:
        raise DataError(f"x is {x.dtype} {x.shape}, expected uint8 or float32 of shape (N, ...)")
    if y.shape != (len(x),) or y.dtype.kind not in "iu" or len(x) < 2:
        raise DataError(f"y is {y.dtype} {y.shape}, expected whole numbers of shape ({len(x)},), at least 2")
    if classes < 2 or y.min() < 0 or y.max() >= classes:
        raise DataError(f"y holds {y.min()}..{y.max()}, expected 0..{classes - 1} (two classes or more)")
    require_finite(x, "x")


def _fresh(x: NDArray[Any], classes: int, settings: Settings) -> Net:
    shape, dtype = tuple(x.shape[1:]), str(x.dtype)
    recipe = settings.recipe or choose_recipe(shape, dtype)
    module = build(recipe, shape, classes=classes, seed=settings.seed)
    module.prepare.measure(torch.tensor(x))
    return Net(module, recipe, shape, dtype, classes)


def _grown(parent: Net, x: NDArray[Any], classes: int, settings: Settings) -> Net:
    if (tuple(x.shape[1:]), str(x.dtype)) != (parent.shape, parent.dtype):
        raise DataError(f"samples are {x.shape[1:]} {x.dtype}, the parent takes {parent.shape} {parent.dtype}")
    if settings.recipe not in ("", parent.recipe):
        raise DataError(f"recipe {settings.recipe!r}, but the parent is a {parent.recipe!r}: train without the parent")
    if classes < parent.classes:
        raise DataError(f"{classes} classes, but the parent knows {parent.classes}: classes are only ever added")
    if classes > parent.classes:
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            parent.module.grow(classes)
    return Net(parent.module, parent.recipe, parent.shape, parent.dtype, classes)


def _learn(module: Network, x: Tensor, y: Tensor, settings: Settings, progress: Progress | None, *, part: Part) -> None:
    """AdamW with one cycle of the learning rate (Smith & Topin 2017), label smoothing (Szegedy et al. 2016)."""
    generator = torch.Generator().manual_seed(settings.seed)
    shares = _shares(y.cpu())
    optimiser, rate = _optimiser(module, settings.learning_rate, part)
    steps = settings.epochs * len(_batches(shares, settings.batch_size, torch.Generator()))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, max(2, steps))
    loss_of = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    module.requires_grad_(part != "head").head.requires_grad_(True)
    module.train(part == "whole")  # otherwise batch normalisation keeps its figures, which scale every weight
    for epoch in range(settings.epochs):
        losses = []
        for batch in _batches(shares, settings.batch_size, generator):
            rows = batch.to(x.device)
            loss = loss_of(module(x[rows])[0], y[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
        if progress is not None:
            mean = float(torch.stack(losses).mean())
            progress((epoch + 1) / settings.epochs, f"epoch {epoch + 1}/{settings.epochs}, loss {mean:.3f}")


def _optimiser(module: Network, rate: float, part: Part) -> tuple[torch.optim.Optimizer, float]:
    """And the highest rate that it is meant for."""
    if part == "gently":
        return torch.optim.SGD(module.parameters(), lr=rate * GENTLE_SHARE, momentum=0.9), rate * GENTLE_SHARE
    learning = module.head if part == "head" else module
    return torch.optim.AdamW(learning.parameters(), lr=rate, weight_decay=WEIGHT_DECAY), rate


def _shares(y: Tensor) -> Tensor:
    """(N,) how often each sample is wanted per epoch, mean 1: the inverse square root of its class's frequency.

    Not balancing at all forgets rare new classes; balancing fully repeats their few samples until learnt by heart.
    """
    weight = torch.bincount(y).double().rsqrt()[y]
    return weight * (len(y) / weight.sum())


def _batches(shares: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Indices of one epoch, N in all, in random order; a sample comes its share, rounded down or up at random.

    Systematic sampling: with equal shares every sample comes once, where drawing with replacement would miss 37 %.
    """
    start = torch.rand(1, generator=generator, dtype=shares.dtype)
    edges = torch.floor(torch.cumsum(shares, 0).round(decimals=9) + start).long()
    times = torch.diff(edges, prepend=torch.zeros(1, dtype=torch.long))
    order = torch.repeat_interleave(torch.arange(len(shares)), times)
    order = order[torch.randperm(len(order), generator=generator)]
    batches = list(torch.split(order, max(2, size)))  # batch normalisation needs two
    # A tiny last batch would only add noise.
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) < max(2, size // 4) else batches


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
