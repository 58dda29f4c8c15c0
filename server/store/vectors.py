"""How are sums kept?

A vector of sums grows when a class is added: the shorter of two is one of before. In a row they are packed as float64,
which is exact to 2^53, takes any number that a device may claim, and is read ten times as fast as JSON.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PACKED = np.dtype("<f8")


def added(*vectors: Sequence[float]) -> list[float]:
    """Sums over all of them.

    >>> added([1, 2], [3, 4, 5])
    [4, 6, 5]
    """
    total: list[float] = list(vectors[0]) if vectors else []
    for vector in vectors[1:]:
        both = list(map(operator.add, total, vector))
        total = [*both, *total[len(both) :], *vector[len(both) :]] if len(total) != len(vector) else both
    return total


def difference(after: Sequence[float], before: Sequence[float]) -> list[float]:
    """What was added since.

    >>> difference([4, 6, 5], [1, 2]), difference([4], [1, 2])
    ([3, 4, 5], [3, -2])
    """
    both = list(map(operator.sub, after, before))
    if len(after) == len(before):
        return both
    return [*both, *after[len(both) :], *(0 - one for one in before[len(both) :])]


def pack(vector: Sequence[float]) -> bytes:
    """For a row. Of a few dozen numbers, Python's own is quicker than numpy."""
    return struct.pack(f"<{len(vector)}d", *vector)


def packed(rows: NDArray[np.float64]) -> list[bytes]:
    """Each of (m, W)."""
    return [row.tobytes() for row in rows.astype(_PACKED, copy=False)]


def unpack(packed: bytes) -> list[float]:
    """Of a row.

    >>> unpack(pack([3, -1]))
    [3.0, -1.0]
    """
    return list(struct.unpack(f"<{len(packed) // _PACKED.itemsize}d", packed))


def table(rows: Sequence[bytes], dtype: type[np.floating[Any]] = np.float32) -> NDArray[Any]:
    """(m, W) of m packed vectors, W the longest; short ones are filled with 0. float32: for means it is enough."""
    width = max(map(len, rows), default=0)
    filled = b"".join(row.ljust(width, b"\0") for row in rows)
    return np.frombuffer(filled, _PACKED).reshape(len(rows), width // _PACKED.itemsize).astype(dtype)
