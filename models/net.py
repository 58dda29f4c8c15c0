"""Which network learns from a kind of input?

A recipe turns the shape of one raw sample into a network. Every network has the same three parts, so that everything
after it (growing, exporting, quantising, drift) treats all alike:

    raw sample -> prepare -> body -> embedding (N, D) -> head -> logits (N, C)

`prepare` takes the sample as the sensor gives it, and is part of the exported graph: training and device cannot
disagree. Its constants are measured on the first training data and then never change.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from edge_agent.contract.errors import did_you_mean
from models.errors import DataError

EMBEDDING = 64  # smaller loses accuracy, larger makes manifest, sketch and drift charts dearer
Shape = tuple[int, ...]


class Prepare(nn.Module):
    """Raw samples in, standardised float32 with the channels first out.

    Images get one scalar mean and gain for all channels, and are reordered while still uint8: per-channel constants on
    NHWC cost up to 1.4 ms inside an int8 graph of onnxruntime (1.32, 224x224x3), a scalar 12 us.
    """

    mean: Tensor
    gain: Tensor

    def __init__(self, layout: Literal["image", "series", "vector"], shape: Shape) -> None:
        super().__init__()
        self.layout, self.ndim = layout, len(shape)
        constants = () if layout == "image" else shape[-1:]
        self.register_buffer("mean", torch.zeros(constants))
        self.register_buffer("gain", torch.ones(constants))

    def measure(self, x: Tensor) -> None:
        """Set mean and gain from raw samples x: (N, *shape); from some 4,096 of them when there are more."""
        values = x[:: max(1, len(x) // 4096)].double().reshape(-1, *self.mean.shape)
        sd = values.std(dim=0, correction=0)
        # A constant channel keeps gain 1: dividing by its tiny sd would blow up the first sample that differs.
        sd = torch.where(sd > 1e-6 * (1.0 + values.mean(dim=0).abs()), sd, torch.ones_like(sd))
        self.mean.copy_(values.mean(dim=0))
        self.gain.copy_(1.0 / sd)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, *shape) raw -> (N, C, H, W), (N, C, T) or (N, D) float32."""
        if self.layout == "image":
            x = x.permute(0, 3, 1, 2) if self.ndim == 3 else x.unsqueeze(1)
            return (x.float() - self.mean) * self.gain
        x = (x.float() - self.mean) * self.gain
        return x.transpose(1, 2) if self.layout == "series" else x


class Parts(NamedTuple):
    """What a recipe returns. width: D, the length of the embedding that `body` ends in, (N, D)."""

    prepare: Prepare
    body: nn.Module
    width: int


class Network(nn.Module):
    """Any recipe's parts under one head."""

    def __init__(self, parts: Parts, classes: int) -> None:
        super().__init__()
        self.prepare, self.body = parts.prepare, parts.body
        self.head = nn.Linear(parts.width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, *shape) raw -> logits (N, C) float32, embedding (N, D) float32."""
        embedding = self.body(self.prepare(x))
        return self.head(embedding), embedding

    def grow(self, classes: int) -> None:
        """Add classes at the end; the logits of the old ones stay as they are."""
        old = self.head
        self.head = nn.Linear(old.in_features, classes)
        with torch.no_grad():
            self.head.weight[: old.out_features] = old.weight
            self.head.bias[: old.out_features] = old.bias


def small_cnn(shape: Shape) -> Parts:
    """Images (H, W) or (H, W, C) from 8x8 to 224x224, 48k to 80k parameters.

    The last convolution spans the whole remaining map. Averaging over the map instead, as is usual, cost 4-6 points
    with 3,000 Fashion-MNIST images: a small net wants to know where things are.
    """
    size, channels = list(shape[:2]), shape[2] if len(shape) == 3 else 1
    layers: list[nn.Module] = []
    width = 16
    while True:
        stride = 2 if min(size) > 64 else 1  # a convolution at full size would cost more than all the others
        layers += _conv(nn.Conv2d(channels, width, 3, stride, 1, bias=False))
        size = [-(-n // stride) for n in size]
        if max(size) <= 8:
            break
        pool = [2 if n > 8 else 1 for n in size]
        layers.append(nn.MaxPool2d((pool[0], pool[1])))
        size = [n // p for n, p in zip(size, pool, strict=True)]
        channels, width = width, 32
    layers.append(nn.MaxPool2d(3, 2, 1))
    rest = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    layers += [*_conv(nn.Conv2d(width, EMBEDDING, rest, bias=False)), nn.Flatten()]
    return Parts(Prepare("image", shape), nn.Sequential(*layers), EMBEDDING)


class _Average(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """(N, D, T) -> (N, D)."""
        return x.mean(dim=2)


def small_cnn1d(shape: Shape) -> Parts:
    """Series (T, C) of any length, about 25k parameters; averaged over time, for a window may start anywhere."""
    layers: list[nn.Module] = []
    steps, channels = shape
    for width in (32, 48, EMBEDDING):
        layers += _conv(nn.Conv1d(channels, width, 5, 1, 2, bias=False))
        if width != EMBEDDING and steps >= 16:
            layers.append(nn.MaxPool1d(2))
            steps //= 2
        channels = width
    return Parts(Prepare("series", shape), nn.Sequential(*layers, _Average()), EMBEDDING)


def small_mlp(shape: Shape) -> Parts:
    """Vectors (D,)."""
    body = nn.Sequential(nn.Linear(shape[0], EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.ReLU())
    return Parts(Prepare("vector", shape), body, EMBEDDING)


def _conv(conv: nn.Conv1d | nn.Conv2d) -> list[nn.Module]:
    norm = nn.BatchNorm2d if isinstance(conv, nn.Conv2d) else nn.BatchNorm1d
    return [conv, norm(conv.out_channels), nn.ReLU(inplace=True)]


RECIPES: dict[str, Callable[[Shape], Parts]] = {"cnn": small_cnn, "cnn1d": small_cnn1d, "mlp": small_mlp}
DIMENSIONS = {"cnn": (2, 3), "cnn1d": (2,), "mlp": (1,)}


def choose_recipe(shape: Shape, dtype: str) -> str:
    """The recipe for a raw sample, by its shape.

    Two axes mean a grey image when both sides are 8 or longer, and they are bytes or no more than 1 : 2 apart;
    otherwise a series (T, C).

    >>> choose_recipe((28, 28), "uint8"), choose_recipe((100, 6), "float32"), choose_recipe((30,), "float32")
    ('cnn', 'cnn1d', 'mlp')
    """
    if len(shape) == 1:
        return "mlp"
    if len(shape) == 3:
        return "cnn"
    if len(shape) == 2:
        image = min(shape) >= 8 and (dtype == "uint8" or max(shape) <= 2 * min(shape))
        return "cnn" if image else "cnn1d"
    raise DataError(f"a sample of shape {shape}: no recipe; expected (D,), (T, C), (H, W) or (H, W, C)")


def build(recipe: str, shape: Shape, *, classes: int, seed: int) -> Network:
    """A fresh network. The same arguments give the same weights.

    Args:
        recipe: a key of `RECIPES`, or "package.module:name" of a function from a shape to `Parts`.
        shape: of one raw sample, without the batch axis.
        classes: number of classes.
        seed: of the initial weights.

    Raises:
        DataError: no such recipe, or it does not take this shape.
    """
    make = _find(recipe)
    if len(shape) not in DIMENSIONS.get(recipe, (len(shape),)):
        fitting = [name for name, dimensions in DIMENSIONS.items() if len(shape) in dimensions]
        raise DataError(f"recipe {recipe!r} takes no sample of shape {shape}; that would be {' or '.join(fitting)}")
    if recipe == "cnn" and min(shape[:2]) < 8:
        raise DataError(f"recipe 'cnn' takes images from 8x8, got {shape}; use 'cnn1d' if it is a series (T, C)")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network(make(shape), classes)


def _find(recipe: str) -> Callable[[Shape], Parts]:
    if recipe in RECIPES:
        return RECIPES[recipe]
    module, _, name = recipe.partition(":")
    if not name:
        known = ", ".join(RECIPES)
        raise DataError(f"no recipe {recipe!r}{did_you_mean(recipe, RECIPES)}; known: {known}, or package.module:name")
    try:
        make: Callable[[Shape], Parts] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DataError(f"recipe {recipe!r}: {error}") from error
    return make
