"""How does a job come to the other machines?

The first rank has it in a folder. Every other machine gets all that is small, and of the samples the rows of its shard,
which its ranks map from one file: no machine but the first ever has all of them, and none needs a disk that is shared.
It reads them by itself where the job says how (straight from a store), else the first rank sends them.

    machine  0           1           2
    rows     0 .. n/3    .. 2n/3     .. n
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from models.job import SAMPLES, Rows, told_of
from models.ranks import Ranks, even

AT_ONCE_BYTES = 1 << 24  # of samples in one message: more is memory on both sides, less is spent on waiting


def handed_out(folder: Path, ranks: Ranks) -> Ranks:
    """Fill the folder of every machine but the first; returns `ranks` with the rows that its machine has."""
    x = np.load(folder / SAMPLES, mmap_mode="r") if ranks.first else None
    files = {one.name: one.read_bytes() for one in folder.iterdir() if _is_told(one)} if ranks.first else {}
    files = ranks.told(files)
    count, shape, dtype = ranks.told((0, (), "") if x is None else (len(x), x.shape[1:], x.dtype.str))
    shards = [even(count, node, ranks.world // ranks.beside) for node in range(ranks.world // ranks.beside)]
    if ranks.local == 0 and not ranks.first:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    step = max(1, AT_ONCE_BYTES // max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize))
    rows = ranks.told(told_of(folder).rows if ranks.first else None)
    for node, shard in enumerate(shards[1:], 1):
        if rows is not None:
            if ranks.rank == node * ranks.beside:
                np.save(folder / SAMPLES, _reader(rows)(rows.told, shard.start, shard.stop))
        elif x is not None:
            _send(x[shard], node * ranks.beside, step)
        elif ranks.rank == node * ranks.beside:
            _receive(folder / SAMPLES, (shard.stop - shard.start, *shape), dtype, step)
    distributed.barrier()
    own = shards[ranks.node]
    return dataclasses.replace(ranks, shard=(own.start, own.stop))


def _reader(rows: Rows) -> Callable[[str, int, int], NDArray[Any]]:
    module, _, name = rows.reader.partition(":")
    reader: Callable[[str, int, int], NDArray[Any]] = getattr(importlib.import_module(module), name)
    return reader


def _is_told(file: Path) -> bool:
    return file.is_file() and file.name != SAMPLES and file.suffix in (".npy", ".json", ".pt")


def _send(x: NDArray[Any], to: int, step: int) -> None:
    for start in range(0, len(x), step):
        distributed.send(_bytes(np.array(x[start : start + step])), to)


def _receive(file: Path, shape: tuple[int, ...], dtype: str, step: int) -> None:
    x = np.lib.format.open_memmap(file, mode="w+", dtype=np.dtype(dtype), shape=shape)
    for start in range(0, len(x), step):
        part = np.empty_like(x[start : start + step])
        distributed.recv(_bytes(part), 0)
        x[start : start + step] = part
    x.flush()


def _bytes(x: NDArray[Any]) -> torch.Tensor:
    """The same memory as a tensor, whatever its type."""
    return torch.from_numpy(x.reshape(-1).view(np.uint8))
