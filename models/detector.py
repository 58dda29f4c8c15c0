"""What net says where things are?

    raw image -> prepare -> body -> maps, fine to coarse -> head of each -> at every place: classes, and how far the
                                                             box reaches left, up, right and down
    embedding (N, D): the mean of the last map

One stage, no anchors: as FCOS (Tian et al., ICCV 2019), without its centre-ness. A place learns a box when it lies in
it and near its middle, and when the box is of the size that its map is for; of several the smallest. Boxes are decoded
inside the graph, in 0..1 of the image; which of them show the same is for whoever asks (contract/boxes.py).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.net import Network, Parts, Shape

PRIOR = 0.01  # probability that a fresh net gives a class anywhere: with half, all the empty places drown the boxes
REACH = 0.7  # log of strides each way that a fresh net gives: a box of a few places
REACH_MAX = 5.0  # log of a reach in strides: exp of more would be inf before it has learned
LARGEST = 4.0  # strides that a box may reach from a place of a map, unless it is the last: further than a place sees


class Detector(Network):
    """The parts of a recipe for boxes, under a head for each map."""

    more = "boxes"
    place: Tensor
    reach: Tensor

    def __init__(self, parts: Parts, classes: int, shape: Shape) -> None:
        """`shape`: of a raw image, (H, W) or (H, W, C)."""
        super().__init__(parts, classes, task="detection")
        place, reach = _places(self, shape)
        self.register_buffer("place", place, persistent=False)  # (A, 3) x and y of its middle, and stride; of the sides
        self.register_buffer("reach", reach, persistent=False)  # (A, 2) least and most strides that a box reaches
        self.ratio = shape[1] / shape[0]  # of a share of the width to that of the height

    def head_for(self, parts: Parts, outputs: int) -> nn.Module:
        """One to a map: depthwise, then by place."""
        return nn.ModuleList(_head(width, outputs) for width in parts.levels)

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, *shape) raw -> (N, A, C + 4) logits and log reaches, and embedding (N, D)."""
        maps = self.body(self.prepare(x))
        heads = list(self.head)  # type: ignore[call-overload]  # a list of modules
        raw = [head(one).flatten(2).transpose(1, 2) for head, one in zip(heads, maps, strict=True)]
        return torch.cat(raw, dim=1), maps[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits (N, A, C), embedding, boxes (N, A, 4): left, top, right, bottom in 0..1."""
        raw, embedding = self.raw(x)
        return raw[..., : self.classes], embedding, self.boxes(raw).clamp(0.0, 1.0)

    def boxes(self, raw: Tensor) -> Tensor:
        """(..., A, 4) corners, which may lie outside of the image."""
        reach = raw[..., self.classes :].clamp(max=REACH_MAX).exp()
        step = torch.stack([self.place[:, 2], self.place[:, 2] * self.ratio], dim=1)
        middle = self.place[:, :2]
        return torch.cat([middle - reach[..., :2] * step, middle + reach[..., 2:] * step], dim=-1)

    def grow(self, classes: int, *, heads: int = 0) -> None:  # noqa: ARG002 - a detector has one
        """Add classes behind the old ones, whose logits stay as they are; they begin as rare."""
        was, self.classes = self.classes, classes
        for head in self.head:  # type: ignore[attr-defined]
            head[-1] = _grown(head[-1], was, classes)


def _head(width: int, classes: int) -> nn.Sequential:
    last = _last(width, classes)
    near = nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False)
    return nn.Sequential(
        near, nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width),
        nn.ReLU(), last,
    )  # fmt: skip


def _last(width: int, classes: int) -> nn.Conv2d:
    """Of a head: by place, classes that are rare, and reaches."""
    made = nn.Conv2d(width, classes + 4, 1)
    nn.init.normal_(made.weight, std=0.01)
    rare = torch.full((classes,), -math.log((1.0 - PRIOR) / PRIOR))
    made.bias = nn.Parameter(torch.cat([rare, torch.full((4,), REACH)]))
    return made


def _grown(old: nn.Conv2d, was: int, classes: int) -> nn.Conv2d:
    made = _last(old.in_channels, classes)
    with torch.no_grad():
        for name, known in old.named_parameters():
            new = made.get_parameter(name)
            new[:was], new[classes:] = known[:was], known[was:]
    return made


def _places(net: Detector, shape: Shape) -> tuple[Tensor, Tensor]:
    """(A, 3) of all maps: middles in 0..1, and the stride as a share of the width; (A, 2) what a box may reach."""
    with torch.no_grad():
        was = net.training
        maps = net.eval().body(net.prepare(torch.zeros((1, *shape))))
        net.train(was)
    places, reaches = [], []
    for number, one in enumerate(maps):
        height, width = one.shape[2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        stride = torch.full_like(x, 1, dtype=torch.float32) / width
        places.append(torch.stack([(x + 0.5) / width, (y + 0.5) / height, stride], dim=2).reshape(-1, 3))
        least = (LARGEST - 1.0) / 2.0 if number else 0.0  # strides double from map to map; no box falls between two
        most = math.inf if number == len(maps) - 1 else LARGEST
        reaches.append(torch.tensor([least, most]).expand(height * width, 2))
    return torch.cat(places), torch.cat(reaches).clone()
