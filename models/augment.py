"""How may a sample look otherwise and still show the same?

Functions of a batch of raw samples (B, *shape) on any device to one of the same shape, by torch's own generator. What
is harmless depends on the task (a flipped 6 is no 6, a turned watch is another gesture), so none is on by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edge_agent.contract.errors import did_you_mean
from edge_agent.contract.task import Task
from models.errors import DataError

Augmentation = Callable[[Tensor], Tensor]

SHIFT_SHARE = 0.08  # of a side, or of the time, at most: two pixels of 28
CROP_SHARE = 0.8  # of a side that is left at least, and spread over all of it
BRIGHTER = 0.25  # at most, or darker
JITTER_SHARE = 0.05  # of the batch's spread, per channel
SCALE_SD = 0.1  # of the factor of a channel


def shift(x: Tensor) -> Tensor:
    """The image moved up or down and sideways; what comes in repeats the edge."""
    return _taken(x, [_moved(len(x), side, x.device) for side in x.shape[1:3]])


def flip(x: Tensor) -> Tensor:
    """Every other image mirrored, left to right."""
    mirrored = torch.rand(len(x), device=x.device) < 0.5
    return torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(2), x)


def crop(x: Tensor) -> Tensor:
    """A part of the image, as large as the whole."""
    return _taken(x, [_cropped(len(x), side, x.device) for side in x.shape[1:3]])


def brightness(x: Tensor) -> Tensor:
    """Brighter or darker; bytes end at 255."""
    gain = 1.0 + BRIGHTER * (2.0 * torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) - 1.0)
    bright = x.float() * gain
    return bright.clamp(0.0, 255.0) if x.dtype == torch.uint8 else bright


def jitter(x: Tensor) -> Tensor:
    """Noise on every number, in proportion to its channel's spread."""
    values = x.float()
    spread = values.reshape(-1, values.shape[-1]).std(dim=0, correction=0)
    return values + JITTER_SHARE * spread * torch.randn_like(values)


def scale(x: Tensor) -> Tensor:
    """Every channel larger or smaller."""
    return x.float() * (1.0 + SCALE_SD * torch.randn(len(x), *[1] * (x.ndim - 2), x.shape[-1], device=x.device))


def slide(x: Tensor) -> Tensor:
    """A series that began a little earlier or later; what comes in repeats the end."""
    return _taken(x, [_moved(len(x), x.shape[1], x.device)])


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


def _moved(count: int, side: int, device: torch.device) -> Tensor:
    """(count, side) where each place of each sample takes its value from."""
    most = max(1, round(SHIFT_SHARE * side))
    by = torch.randint(-most, most + 1, (count, 1), device=device)
    return (torch.arange(side, device=device) + by).clamp(0, side - 1)


def _cropped(count: int, side: int, device: torch.device) -> Tensor:
    kept = CROP_SHARE + (1.0 - CROP_SHARE) * torch.rand(count, 1, device=device)
    start = (1.0 - kept) * torch.rand(count, 1, device=device)
    places = (torch.arange(side, device=device) + 0.5) / side
    return ((start + kept * places) * side).long().clamp(0, side - 1)


def _taken(x: Tensor, rows: list[Tensor]) -> Tensor:
    sample = torch.arange(len(x), device=x.device)
    if len(rows) == 1:
        return x[sample[:, None], rows[0]]
    return x[sample[:, None, None], rows[0][:, :, None], rows[1][:, None, :]]
