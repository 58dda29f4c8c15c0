"""Where does chance come from on a device?

SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014): draw n of a generator
is a hash of its seed and n. So the same draws come in whatever blocks they are asked for, a state is one number of 64
bits, and a seed means the same on every machine and under every release of numpy, which promises that of none of its
own generators (NEP 19). On a device those cost 3 MB and a twentieth of the start besides.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GAMMA = 0x9E3779B97F4A7C15  # from one state to the next
MASK = (1 << 64) - 1


class SplitMix64:
    """Uniform draws; `state` is all that they depend on."""

    def __init__(self, *seed: int) -> None:
        """Several numbers name one generator; without any, the system's randomness does."""
        self.state = 0 if seed else int.from_bytes(os.urandom(8), "big")
        for part in seed:
            self.state = int(_mixed(np.array([(self.state ^ part) & MASK], np.uint64))[0])

    def draws(self, count: int) -> Floats:
        """The next `count` from [0, 1).

        >>> SplitMix64(0).draws(3).round(4).tolist()
        [0.6524, 0.7012, 0.3871]
        """
        first = np.array([self.state], np.uint64)
        self.state = (self.state + count * GAMMA) & MASK
        return _unit(_mixed(first + np.arange(count, dtype=np.uint64) * np.uint64(GAMMA)))

    def draw(self) -> float:
        """The next one."""
        return float(self.draws(1)[0])

    def save(self) -> bytes:
        """For another to go on from."""
        return b"%d" % self.state

    def load(self, saved: bytes) -> None:
        """Go on from there; ValueError, TypeError or KeyError when it cannot be read."""
        if saved.startswith(b"{"):
            import json  # a hundredth of a start, for what an older agent left

            self.state = int(json.loads(saved)["state"]["state"]) & MASK  # of PCG64: as good a seed as any
        else:
            self.state = int(saved) & MASK


def draw_of(numbers: NDArray[np.int64]) -> Floats:
    """Uniform on [0, 1), the same for the same number."""
    return _unit(_mixed(numbers.astype(np.uint64) * np.uint64(GAMMA)))


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """What is drawn after these states; all arithmetic is modulo 2^64."""
    z = state + np.uint64(GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def _unit(mixed: NDArray[np.uint64]) -> Floats:
    unit: Floats = (mixed >> np.uint64(11)) / (1 << 53)
    return unit
