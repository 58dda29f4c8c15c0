"""How often does a sample come, and what does it count for?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.ranks import Draw, Ranks

AT_ONCE = 1024  # samples that are looked at in one pass
CLIPPINGS = 200  # each comes nearer by a constant factor
SAMPLE_SHARE = 0.5  # of a GPU's free memory that samples may take; what is larger comes batch by batch


def shares(y: Tensor, known: Tensor | None = None, *, replay: float = 1.0) -> Tensor:
    """(N,) how often each sample is wanted per epoch, mean 1: the inverse square root of its class's frequency.

    Not balancing at all forgets rare new classes; balancing fully repeats their few samples until learnt by heart.
    Samples that have no class of their own (y of more than one axis) come alike.
    `known`: (N,) which ones the parent learned from; they come `replay` times as often, and the epoch is shorter.
    """
    weight = torch.bincount(y).double().rsqrt()[y] if y.ndim == 1 else torch.ones(len(y), dtype=torch.float64)
    weight = weight * (len(y) / weight.sum())
    if known is not None and replay < 1.0 and not known.all():
        weight[known] *= replay
        weight *= max(2.0, float(weight.sum().round())) / weight.sum()  # whole, so that epochs are equally long
    return weight


def batches(wanted: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Indices of one epoch, as many as are wanted in all, in random order; each comes its share, up or down at random.

    Systematic sampling: with equal shares every sample comes once, where drawing with replacement would miss 37 %.
    """
    start = torch.rand(1, generator=generator, dtype=wanted.dtype)
    edges = torch.floor(torch.cumsum(wanted, 0).round(decimals=9) + start).long()
    times = torch.diff(edges, prepend=torch.zeros(1, dtype=torch.long))
    order = torch.repeat_interleave(torch.arange(len(wanted)), times)
    order = order[torch.randperm(len(order), generator=generator)]
    parts = list(torch.split(order, max(2, size)))  # batch normalisation needs two
    # A tiny last batch would only add noise.
    return parts[:-1] if len(parts) > 1 and len(parts[-1]) < max(2, size // 4) else parts


def importance(probability: NDArray[np.float64], *, clip: float) -> Tensor:
    """(N,) weights 1 / probability of selection, mean 1, none above `clip` times the mean; clip 0: none is wanted.

    So weighted, samples stand for the stream and not for what was asked about. It seldom helps: a net that can fit all
    its samples ends up in much the same place whatever they weigh (Byrd & Lipton, ICML 2019), and a few rare draws make
    the steps noisy; for judging, on the other hand, these weights are what is needed (Farquhar et al., ICLR 2021).
    """
    weight = 1.0 / np.clip(probability, 1e-6, 1.0)
    for _ in range(CLIPPINGS):
        weight = np.minimum(weight, max(1.0, clip) * weight.mean())  # which lowers the mean, and so the limit
    return torch.tensor(weight / weight.mean(), dtype=torch.float32)


class Batch(NamedTuple):
    """What one rank has of a batch."""

    rows: Tensor  # (B,) which of the samples, on the device that learns
    x: Tensor  # (B, *shape) raw, there too
    draw: Draw  # how what is random about the whole batch comes to its own part
    size: int  # rows of the whole batch


class Samples(NamedTuple):
    """What a net is to learn from, on the device that learns; x may stay beside it.

    M of the N samples teach; the others are kept back.
    """

    x: Tensor  # (N, *shape) raw, or those of this node
    first: int  # number of the first row of x
    place: Tensor  # (M,) int64, on the CPU: which of the N
    y: Tensor  # (M,) int64 classes, or what else the truth of the task is (contract/score.py), float32
    shares: Tensor  # (M,) float64, on the CPU: how often each comes per epoch
    weight: Tensor  # (M, T) float32: what it counts for with each head
    teacher: Tensor | None  # (M, K) log-probabilities of the K classes that the parent knows, softened; None: no parent
    focus: Tensor  # (M,) float32: how much each is to stay as the parent has it
    unlabelled: Tensor | None  # (L, *shape) raw; None: none wanted

    def batches(self, order: Sequence[Tensor], ranks: Ranks) -> Iterator[Batch]:
        """Of each batch the part of this rank, on the device that learns; order: rows of each batch, on the CPU.

        Nothing waits for the device: the rows go there as one, and samples that stay here through page-locked memory.
        """
        draws = [ranks.part(self.place[rows]) for rows in order]
        mine = [rows if draw.own is None else rows[draw.own] for rows, draw in zip(order, draws, strict=True)]
        sizes, rows = [len(one) for one in mine], torch.cat(mine)
        there = torch.split(rows.to(self.y.device), sizes)
        at = torch.split((self.place[rows] - self.first).to(self.x.device), sizes)
        for whole, draw, own, places in zip(order, draws, there, at, strict=True):
            yield Batch(own, taken(self.x, places, self.y.device), draw, len(whole))


class Held(NamedTuple):
    """What is kept back to look at after each epoch."""

    x: Tensor  # (N, *shape) raw, or those of this node
    first: int  # number of the first row of x
    place: Tensor  # (H,) int64, on the CPU: which of the N
    y: Tensor  # (H, ...) their truth, on the device that learns

    def part(self, rows: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """Those of some rows that this rank is to look at, and their samples on the device that learns."""
        own = ranks.part(self.place[rows]).own
        mine = rows if own is None else rows[own]
        return mine, taken(self.x, (self.place[mine] - self.first).to(self.x.device), self.y.device)


def taken(x: Tensor, places: Tensor, device: torch.device) -> Tensor:
    """Rows of x on the device; places: where x is. Through page-locked memory, if x is elsewhere."""
    if x.device == device:
        return x[places]
    locked = torch.empty((len(places), *x.shape[1:]), dtype=x.dtype, pin_memory=device.type == "cuda")
    return torch.index_select(x, 0, places, out=locked).to(device, non_blocking=True)


def bootstrap(count: int, heads: int, *, seed: int) -> Tensor:
    """(count, heads) how often each head draws each sample: Poisson(1), as bagging of a stream (Oza & Russell 2001).

    One head takes every sample once.
    """
    if heads == 1:
        return torch.ones(count, 1)
    return torch.poisson(torch.ones(count, heads), generator=torch.Generator().manual_seed(seed))


def home(x: Tensor, device: torch.device) -> Tensor:
    """On the device that learns if there is room, else where it is."""
    if device.type != "cuda":
        return x
    free, _ = torch.cuda.mem_get_info(device)
    return x.to(device) if x.nbytes < SAMPLE_SHARE * free else x
