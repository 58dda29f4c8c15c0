"""What has every network of ours in common?

    raw sample -> prepare -> body -> embedding (N, D) -> head -> logits (N, C), or (N, T, C) of T heads

(For boxes and numbers, see detector.py and regressor.py.) So everything after it (growing, exporting, quantising,
drift) treats all alike. `prepare` takes the sample as the sensor gives it, and is part of the exported graph: training
and device cannot disagree. Its constants are measured on the first training data and then never change. A recipe
(models/recipes/) makes the first two parts.

Several heads on one body are a committee that costs the device a few dot products (last-layer ensemble): each learns
from a bootstrap of its own, so that they differ where the data leave it open.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from edge_agent.contract.task import Task

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
        layout: Literal["image", "series", "vector", "text", "sound"],
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
    """What a recipe returns. width: D, the length of the embedding that `body` ends in, (N, D).

    levels: empty but for a detector, whose body ends in a map (N, D_i, H_i, W_i) for each: D_i of every map, from fine
    to coarse; width is that of the last.
    """

    prepare: Prepare
    body: nn.Module
    width: int
    levels: tuple[int, ...] = ()


class Network(nn.Module):
    """Any recipe's parts under one head, or several: of a class, or of several classes at once."""

    head: nn.Module
    more = ""  # name of a third output

    def __init__(self, parts: Parts, classes: int, *, heads: int = 1, task: Task = "classification") -> None:
        super().__init__()
        self.prepare, self.body = parts.prepare, parts.body
        self.head = self.head_for(parts, heads * classes)
        self.classes, self.heads, self.task = classes, heads, task

    def head_for(self, parts: Parts, outputs: int) -> nn.Module:
        """What stands on the body."""
        return nn.Linear(parts.width, outputs)

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is learned by: x (N, *shape) raw -> logits (N, C), or (N, T, C) of T > 1 heads, and embedding (N, D)."""
        embedding = self.body(self.prepare(x))
        logits = self.head(embedding)
        return logits if self.heads == 1 else logits.reshape(-1, self.heads, self.classes), embedding

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the exported graph gives: logits, embedding and, where `more` names one, a third."""
        return self.raw(x)

    def measure(self, y: Tensor, *, first: int = 0) -> None:
        """Set what follows from the truth of the first data, for outputs from `first` on; classes need nothing."""

    def grow(self, classes: int, *, heads: int = 0) -> None:
        """Add classes at the end; the logits of the old ones stay as they are.

        `heads`: how many there are to be, 0 for as many as there are. Each further one starts as a copy of an old one,
        and is told apart by what it learns; of fewer, the first stay.
        """
        was = (self.heads, self.classes)
        self.heads, self.classes = heads or self.heads, classes
        self.head = grown(cast(nn.Linear, self.head), was, (self.heads, classes))


def grown(old: nn.Linear, was: tuple[int, int], now: tuple[int, int]) -> nn.Linear:
    """A dense head for (heads, classes) out of one of fewer classes, each old row where it belongs."""
    made = nn.Linear(old.in_features, old.out_features // (was[0] * was[1]) * now[0] * now[1])
    same = [head % was[0] for head in range(now[0])]
    with torch.no_grad():
        for new, known in ((made.weight, old.weight), (made.bias, old.bias)):
            rows = new.view(*now, -1, *new.shape[1:])
            rows[:, : was[1]] = known.view(*was, -1, *known.shape[1:])[same]
    return made


def as_one(logits: Tensor) -> Tensor:
    """Log-probabilities (N, C) of the mean of the heads' probabilities, from logits (N, C) or (N, T, C)."""
    logs = logits.log_softmax(dim=-1)
    return logs if logs.ndim == 2 else logs.logsumexp(dim=1) - torch.log(torch.tensor(float(logs.shape[1])))
