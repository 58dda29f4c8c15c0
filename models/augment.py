"""How may a sample look otherwise and still show the same?

Functions of a batch of raw samples (B, *shape) on any device to one of the same shape, by torch's own generator: what
becomes of a sample follows from its place in the batch, whichever rank has it. What is harmless depends on the task (a
flipped 6 is no 6, a turned watch is another gesture), so none is on by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from edge_agent.contract.errors import did_you_mean
from edge_agent.contract.task import Task
from models.errors import DataError
from models.ranks import WHOLE, Draw


class Augmentation(Protocol):
    """One way."""

    def __call__(self, x: Tensor, draw: Draw = ..., /) -> Tensor:
        """x: (B, *shape) raw, all of a batch or the part of it that `draw` says."""


SHIFT_SHARE = 0.08  # of a side, or of the time, at most: two pixels of 28
CROP_SHARE = 0.8  # of a side that is left at least, and spread over all of it
BRIGHTER = 0.25  # at most, or darker
JITTER_SHARE = 0.05  # of the batch's spread, per channel
SCALE_SD = 0.1  # of the factor of a channel


def shift(x: Tensor, draw: Draw = WHOLE) -> Tensor:
    """The image moved up or down and sideways; what comes in repeats the edge."""
    return _taken(x, [_moved(x, side, draw) for side in x.shape[1:3]])


def flip(x: Tensor, draw: Draw = WHOLE) -> Tensor:
    """Every other image mirrored, left to right."""
    mirrored = draw(len(x), lambda n: torch.rand(n, device=x.device)) < 0.5
    return torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(2), x)


def crop(x: Tensor, draw: Draw = WHOLE) -> Tensor:
    """A part of the image, as large as the whole."""
    return _taken(x, [_cropped(x, side, draw) for side in x.shape[1:3]])


def brightness(x: Tensor, draw: Draw = WHOLE) -> Tensor:
    """Brighter or darker; bytes end at 255."""
    chance = draw(len(x), lambda n: torch.rand(n, *[1] * (x.ndim - 1), device=x.device))
    gain = 1.0 + BRIGHTER * (2.0 * chance - 1.0)
    bright = x.float() * gain
    return bright.clamp(0.0, 255.0) if x.dtype == torch.uint8 else bright


def jitter(x: Tensor, draw: Draw = WHOLE) -> Tensor:
    """Noise on every number, in proportion to its channel's spread."""
    values = x.float()
    noise = draw(len(x), lambda n: torch.randn(n, *x.shape[1:], device=x.device))
    return values + JITTER_SHARE * _spread(values.reshape(-1, values.shape[-1]), draw) * noise


def scale(x: Tensor, draw: Draw = WHOLE) -> Tensor:
    """Every channel larger or smaller."""
    by = draw(len(x), lambda n: torch.randn(n, *[1] * (x.ndim - 2), x.shape[-1], device=x.device))
    return x.float() * (1.0 + SCALE_SD * by)


def slide(x: Tensor, draw: Draw = WHOLE) -> Tensor:
    """A series that began a little earlier or later; what comes in repeats the end."""
    return _taken(x, [_moved(x, x.shape[1], draw)])


BY_LAYOUT: dict[str, dict[str, Augmentation]] = {
    "image": {"shift": shift, "flip": flip, "crop": crop, "brightness": brightness},
    "series": {"jitter": jitter, "scale": scale, "shift": slide},
    "vector": {"jitter": jitter},
    "text": {},
    "sound": {"shift": slide},
}


IN_PLACE = ("brightness", "jitter", "scale")  # what they change stays where it is


def chosen(layout: str, names: Sequence[str], task: Task = "classification") -> list[Augmentation]:
    """Those of a layout by name; DataError when it has none of that name. Boxes would not move with their things."""
    known = BY_LAYOUT[layout]
    if task == "detection":
        known = {name: change for name, change in known.items() if name in IN_PLACE}
    for name in names:
        if name not in known:
            told = ", ".join(known) or "none"
            raise DataError(f"augment {name!r}{did_you_mean(name, known)}: samples are of kind {layout}; known: {told}")
    return [known[name] for name in names]


def _spread(values: Tensor, draw: Draw) -> Tensor:
    """(C,) standard deviation of the whole batch; values: (M, C) of what is at hand."""
    if draw.own is None:
        return values.std(dim=0, correction=0)
    wide = values.double()
    sums = torch.stack([torch.full_like(wide[:1].sum(0), len(wide)), wide.sum(0), wide.square().sum(0)])
    count, first, second = draw.total(sums)
    spread: Tensor = (second / count - (first / count).square()).clamp(min=0.0).sqrt().float()
    return spread


def _moved(x: Tensor, side: int, draw: Draw) -> Tensor:
    """(B, side) where each place of each sample takes its value from."""
    most = max(1, round(SHIFT_SHARE * side))
    by = draw(len(x), lambda n: torch.randint(-most, most + 1, (n, 1), device=x.device))
    return (torch.arange(side, device=x.device) + by).clamp(0, side - 1)


def _cropped(x: Tensor, side: int, draw: Draw) -> Tensor:
    kept = CROP_SHARE + (1.0 - CROP_SHARE) * draw(len(x), lambda n: torch.rand(n, 1, device=x.device))
    start = (1.0 - kept) * draw(len(x), lambda n: torch.rand(n, 1, device=x.device))
    places = (torch.arange(side, device=x.device) + 0.5) / side
    return ((start + kept * places) * side).long().clamp(0, side - 1)


def _taken(x: Tensor, rows: list[Tensor]) -> Tensor:
    sample = torch.arange(len(x), device=x.device)
    if len(rows) == 1:
        return x[sample[:, None], rows[0]]
    return x[sample[:, None, None], rows[0][:, :, None], rows[1][:, None, :]]
