"""What is a detector to be blamed for?

For classes at every place by the focal loss (Lin et al., ICCV 2017), which is not drowned by the many places where
nothing is; for where a box is said by GIoU (Rezatofighi et al., CVPR 2019), at the places that are to find one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from models.detector import Detector
from models.ranks import Total, itself

GAMMA, ALPHA = 2.0, 0.25  # the paper's
MIDDLE = 1.5  # strides from a box's middle within which places learn it (FCOS's centre sampling)
BOXES_WEIGHT = 2.0  # of where, against what: with 1 the boxes of small things stay loose


class Assigned(NamedTuple):
    """What each place is to say. label: (B, A) class, -1: nothing; box: (B, A, 4)."""

    label: Tensor
    box: Tensor


def detection(net: Detector, raw: Tensor, y: Tensor, weight: Tensor, *, total: Total = itself) -> Tensor:
    """Of raw (B, A, C + 4) by the true boxes y (B, M, 6); weight: (B, 1) of an image; total: as in loss.py."""
    with torch.no_grad():
        due = assign(net, y)
    found = due.label >= 0
    wanted = functional.one_hot(due.label.clamp(min=0), net.classes).float() * found.unsqueeze(2)
    by_class = focal(raw[..., : net.classes], wanted).sum(dim=(1, 2))
    apart = 1.0 - giou(net.boxes(raw), torch.where(found.unsqueeze(2), due.box, torch.tensor(0.5, device=raw.device)))
    by_box = torch.where(found, apart, torch.zeros_like(apart)).sum(dim=1)
    blamed = (by_class + BOXES_WEIGHT * by_box) * weight[:, 0]
    return blamed.sum() / total((found.sum(dim=1) * weight[:, 0]).sum()).clamp(min=1.0)


def focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Of each logit by 0 or 1."""
    each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    missed = (logits.sigmoid() - wanted).abs()
    return (ALPHA * wanted + (1.0 - ALPHA) * (1.0 - wanted)) * missed.pow(GAMMA) * each


def giou(said: Tensor, true: Tensor) -> Tensor:
    """(...,) of boxes (..., 4): IoU, less the empty share of the smallest box around both; -1..1."""
    low, high = torch.maximum(said[..., :2], true[..., :2]), torch.minimum(said[..., 2:], true[..., 2:])
    shared = (high - low).clamp(min=0.0).prod(dim=-1)
    union = _area(said) + _area(true) - shared
    around = torch.minimum(said[..., :2], true[..., :2]), torch.maximum(said[..., 2:], true[..., 2:])
    hull = (around[1] - around[0]).prod(dim=-1)
    return shared / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)


def assign(net: Detector, y: Tensor) -> Assigned:
    """By the true boxes y (B, M, 6): class (-1: no box), left, top, right, bottom, score."""
    corners, label = y[:, None, :, 1:5], y[:, None, :, 0]  # (B, 1, M, 4), (B, 1, M)
    step = torch.stack([net.place[:, 2], net.place[:, 2] * net.ratio], dim=1)[:, None]  # (A, 1, 2)
    at = net.place[:, None, :2]
    reach = torch.cat([at - corners[..., :2], corners[..., 2:] - at], dim=-1) / torch.cat([step, step], dim=-1)
    middle = (corners[..., :2] + corners[..., 2:]) / 2.0
    near = ((at - middle) / step).abs().amax(dim=-1) <= MIDDLE
    most = reach.amax(dim=-1)
    fits = (most > net.reach[:, None, 0]) & (most <= net.reach[:, None, 1])
    inside = reach.amin(dim=-1) > 0.0
    # What is smaller than a place, or between places, is learned by the one that its middle is nearest to.
    nearest = ((at - middle) / step).abs().amax(dim=-1) <= 0.5
    fits = fits | (nearest & (net.reach[:, None, 0] == 0.0) & (most <= net.reach[:, None, 1]))
    taken = (label >= 0.0) & fits & ((inside & near) | nearest)
    area = torch.where(taken, _area(corners), torch.tensor(torch.inf, device=y.device))
    smallest = area.argmin(dim=2, keepdim=True)  # (B, A, 1)
    found = taken.any(dim=2)
    chosen = y[:, :, 0].gather(1, smallest[:, :, 0])
    box = y[:, :, 1:5].gather(1, smallest.expand(-1, -1, 4))
    return Assigned(torch.where(found, chosen, torch.tensor(-1.0, device=y.device)).long(), box)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0.0).prod(dim=-1)
