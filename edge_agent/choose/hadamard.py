"""By which directions are many dimensions made few?

By columns of a Hadamard matrix under random signs (SRHT; Ailon and Chazelle 2006): orthogonal as they are, they tell
apart more than as many that know nothing of each other. The same on every machine for the same seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_agent.choose.splitmix import SplitMix64

Floats = NDArray[np.float32]


def directions(dimensions: int, count: int, *, seed: tuple[int, ...]) -> Floats:
    """(dimensions, count) of +1 and -1; the columns are orthogonal where `dimensions` is a power of two, else nearly.

    >>> matrix = directions(64, 3, seed=(0,))
    >>> (matrix.T @ matrix).tolist()
    [[64.0, 0.0, 0.0], [0.0, 64.0, 0.0], [0.0, 0.0, 64.0]]
    """
    side = 1 << (max(dimensions, count) - 1).bit_length()
    draws = SplitMix64(*seed, dimensions).draws(dimensions + side)
    signs: Floats = np.where(draws[:dimensions] < 0.5, -1.0, 1.0).astype(np.float32)
    columns = draws[dimensions:].argsort(kind="stable")[:count]
    return signs[:, None] * _hadamard(np.arange(dimensions), columns)


def _hadamard(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Floats:
    """(N, K) of the matrix in the order of Sylvester: +1 where row and column share an even number of bits, else -1."""
    shared = rows[:, None] & columns
    for width in (32, 16, 8, 4, 2, 1):
        shared ^= shared >> width
    parity: Floats = (1 - 2 * (shared & 1)).astype(np.float32)
    return parity
