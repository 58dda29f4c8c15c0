"""How are sums kept?

A vector of sums grows when a class is added: the shorter of two is one of before. In a row they are packed as float64,
which is exact to 2^53, takes any number that a device may claim, and is read ten times as fast as JSON.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PACKED = np.dtype("<f8")


def added(*vectors: Sequence[float]) -> list[float]:
    """Sums over all of them.

    >>> added([1, 2], [3, 4, 5])
    [4, 6, 5]
    """
    total: list[float] = []
    for vector in vectors:
        both = list(map(operator.add, total, vector))
        longer = total if len(total) > len(vector) else vector
        total = [*both, *longer[len(both) :]]
    return total


def pack(vector: Sequence[float]) -> bytes:
    """For a row."""
    return np.asarray(vector, _PACKED).tobytes()


def unpack(packed: bytes) -> list[float]:
    """Of a row.

    >>> unpack(pack([3, -1]))
    [3.0, -1.0]
    """
    numbers: list[float] = np.frombuffer(packed, _PACKED).tolist()
    return numbers


def table(rows: Sequence[bytes]) -> NDArray[np.float32]:
    """(m, W) of m packed vectors, W the longest; short ones are filled with 0. float32: for means it is enough."""
    width = max(map(len, rows), default=0)
    filled = b"".join(row.ljust(width, b"\0") for row in rows)
    return np.frombuffer(filled, _PACKED).reshape(len(rows), width // _PACKED.itemsize).astype(np.float32)
