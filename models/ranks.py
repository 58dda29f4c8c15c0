"""Which part of a training is this process's?

A net can be learned by several processes, the ranks of a group, one to a GPU. All that is random about a step, order
and batches are those of one process; each rank has a part of every batch, and what is summed over a batch (losses,
gradients, figures of batch normalisation) is summed over the ranks:

    batch of one process    0 1 2 3 4 5 6 | rank 0 has 0 1 2, rank 1 has 3 4 5 6
    of samples by node      each node has the rows of its own shard, its ranks have even parts of them

So a sample is never repeated to make parts even, and means are of the batch and not of means. What has to be decided is
decided by the first rank.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed, nn

from models.pieces import in_pieces
from models.together import synchronised

SILENT_S = 600.0  # a rank that the others wait for longer is taken for dead: less ends those that wait for a slow disk
Total = Callable[[Tensor], Tensor]
"""Of what each rank has counted: over all of them, without a gradient."""
Said = TypeVar("Said")


def itself(value: Tensor) -> Tensor:
    """The total where there is one process."""
    return value


class Draw(NamedTuple):
    """What is random about a batch is drawn for the whole of it, whoever has which part."""

    size: int = 0  # rows of the whole batch
    own: slice | Tensor | None = None  # places of those at hand; None: all
    total: Total = itself

    def __call__(self, rows: int, make: Callable[[int], Tensor]) -> Tensor:
        """Of `make(n)`, n numbers or rows of them, those for the `rows` at hand."""
        return make(rows) if self.own is None else make(self.size)[self.own]


WHOLE = Draw()


def even(count: int, part: int, parts: int) -> slice:
    """Places of one of so many parts of a row; they differ by one at most, and every place is in one of them.

    >>> [range(7)[even(7, part, 3)] for part in range(3)]
    [range(0, 2), range(2, 4), range(4, 7)]
    """
    return slice(count * part // parts, count * (part + 1) // parts)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The group that learns together, seen from one of it; as it stands here, one process alone."""

    rank: int = 0
    world: int = 1
    together: bool = False  # torch's default process group is up, if only of one
    local: int = 0  # of those that share its node's samples
    beside: int = 1  # how many these are
    shard: tuple[int, int] | None = None  # rows that its node has: from, to; None: it has all

    @property
    def node(self) -> int:
        """The machine that it is on; all have as many ranks."""
        return self.rank // self.beside

    @property
    def first(self) -> bool:
        """It is the one that decides, reports and keeps."""
        return self.rank == 0

    def part(self, rows: Tensor) -> Draw:
        """Which places of a batch are its own; rows: (B,) of the samples, on the CPU."""
        if not self.together:
            return WHOLE
        if self.shard is None:
            return self.share(len(rows))
        at = torch.nonzero((rows >= self.shard[0]) & (rows < self.shard[1])).flatten()
        return Draw(len(rows), at[even(len(at), self.local, self.beside)], self.total)

    def share(self, count: int) -> Draw:
        """An even part of what every rank has."""
        return Draw(count, even(count, self.rank, self.world), self.total) if self.together else WHOLE

    def total(self, value: Tensor) -> Tensor:
        """Sum over the ranks, the same on each; without a gradient."""
        if not self.together:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total

    def told(self, said: Said) -> Said:
        """What the first rank said: numbers, tensors on the CPU, what is made of them."""
        if not self.together:
            return said
        box = [said]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def joined(self, module: nn.Module, *, pieces: bool) -> Callable[[Tensor], Any]:
        """`module.raw` so that gradients are means over the ranks; its parameters may be others afterwards.

        pieces: each rank keeps a part of every weight and of the optimiser's state (FSDP2), for nets that do not fit
        on one device; otherwise all have the same copy.
        """
        forward: Callable[[Tensor], Any] = module.raw  # type: ignore[assignment]
        if not self.together:
            return forward
        synchronised(module)
        if pieces:
            # FSDP2 takes no channels last.
            in_pieces(module.to(memory_format=torch.contiguous_format))  # type: ignore[call-overload]
            return module.raw  # type: ignore[return-value]
        made = nn.parallel.DistributedDataParallel(_Raw(module), gradient_as_bucket_view=True)
        made.broadcast_buffers = False  # before each step: they follow from the same figures on all (so in any torch)
        return made


class _Raw(nn.Module):
    """The same module, called by `forward`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module.raw(x)  # type: ignore[operator]


@contextmanager
def group() -> Iterator[Ranks]:
    """Join those that torchrun, Ray, or another launcher that says so in the environment, has started with us."""
    local = int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))  # where to meet is read by torch
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(local % gpus)
    was_up = distributed.is_initialized()  # Ray Train does it itself
    if not was_up:  # gloo is slower between GPUs, but lets two ranks share one
        backend = "cpu:gloo,cuda:nccl" if 0 < beside <= gpus else "gloo"
        distributed.init_process_group(backend, timeout=datetime.timedelta(seconds=SILENT_S))
    rank, world = distributed.get_rank(), distributed.get_world_size()
    try:
        yield Ranks(rank=rank, world=world, together=True, local=local, beside=beside)
    finally:
        if not was_up:
            distributed.destroy_process_group()
