"""What has every network of ours in common?

    raw sample -> prepare -> body -> embedding (N, D) -> head -> logits (N, C), or (N, T, C) of T heads

So everything after it (growing, exporting, quantising, drift) treats all alike. `prepare` takes the sample as the
sensor gives it, and is part of the exported graph: training and device cannot disagree. Its constants are measured on
the first training data and then never change. A recipe (models/recipes/) makes the first two parts.

Several heads on one body are a committee that costs the device a few dot products (last-layer ensemble): each learns
from a bootstrap of its own, so that they differ where the data leave it open.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

EMBEDDING = 64  # smaller loses accuracy, larger makes manifest, sketch and drift charts dearer
Shape = tuple[int, ...]


class Prepare(nn.Module):
    """Raw samples in, standardised float32 with the channels first out; text stays as it is.

    Images get one scalar mean and gain for all channels, and are reordered while still uint8: per-channel constants on
    NHWC cost up to 1.4 ms inside an int8 graph of onnxruntime (1.32, 224x224x3), a scalar 12 us.
    """

    mean: Tensor
    gain: Tensor

    def __init__(
        self,
        layout: Literal["image", "series", "vector", "text"],
        shape: Shape,
        *,
        fixed: tuple[float, float] | None = None,
    ) -> None:
        """`fixed`: mean and sd of images that a pretrained body was taught with; None: measured on the first data."""
        super().__init__()
        self.layout, self.ndim, self.fixed = layout, len(shape), fixed is not None
        mean, sd = fixed or (0.0, 1.0)
        constants = shape[-1:] if layout in ("series", "vector") else ()
        self.register_buffer("mean", torch.full(constants, mean))
        self.register_buffer("gain", torch.full(constants, 1.0 / sd))

    def measure(self, x: Tensor) -> None:
        """Set mean and gain from raw samples x: (N, *shape); from some 4,096 of them when there are more."""
        if self.fixed or self.layout == "text":
            return
        values = x[:: max(1, len(x) // 4096)].double().reshape(-1, *self.mean.shape)
        sd = values.std(dim=0, correction=0)
        # A constant channel keeps gain 1: dividing by its tiny sd would blow up the first sample that differs.
        sd = torch.where(sd > 1e-6 * (1.0 + values.mean(dim=0).abs()), sd, torch.ones_like(sd))
        self.mean.copy_(values.mean(dim=0))
        self.gain.copy_(1.0 / sd)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, *shape) raw -> (N, C, H, W), (N, C, T) or (N, D) float32; (N, L) int64 of text."""
        if self.layout == "text":
            return x.long()
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
    """Any recipe's parts under one head, or several."""

    def __init__(self, parts: Parts, classes: int, *, heads: int = 1) -> None:
        super().__init__()
        self.prepare, self.body = parts.prepare, parts.body
        self.head = nn.Linear(parts.width, heads * classes)
        self.classes, self.heads = classes, heads

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, *shape) raw -> logits (N, C), or (N, T, C) of T > 1 heads, and embedding (N, D); float32."""
        embedding = self.body(self.prepare(x))
        logits = self.head(embedding)
        return logits if self.heads == 1 else logits.reshape(-1, self.heads, self.classes), embedding

    def grow(self, classes: int, *, heads: int = 0) -> None:
        """Add classes at the end; the logits of the old ones stay as they are.

        `heads`: how many there are to be, 0 for as many as there are. Each further one starts as a copy of an old one,
        and is told apart by what it learns; of fewer, the first stay.
        """
        old, was = self.head, (self.heads, self.classes)
        self.heads, self.classes = heads or self.heads, classes
        self.head = nn.Linear(old.in_features, self.heads * classes)
        same = [head % was[0] for head in range(self.heads)]
        with torch.no_grad():
            for new, known in ((self.head.weight, old.weight), (self.head.bias, old.bias)):
                rows = new.view(self.heads, classes, *new.shape[1:])
                rows[:, : was[1]] = known.view(*was, *known.shape[1:])[same]


def as_one(logits: Tensor) -> Tensor:
    """Log-probabilities (N, C) of the mean of the heads' probabilities, from logits (N, C) or (N, T, C)."""
    logs = logits.log_softmax(dim=-1)
    return logs if logs.ndim == 2 else logs.logsumexp(dim=1) - torch.log(torch.tensor(float(logs.shape[1])))
