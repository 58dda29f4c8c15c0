"""What does a sample look like, without a model?

So that the same scene is known again, whoever sent it and however it was encoded:

    grey, colour  the 64 lowest coefficients of the cosine transform of the brightness: means first, then the others
                  over their own length, so that light and contrast matter little; and which of them are above their
                  median, the perceptual hash (Zauner 2010, "Implementation and benchmarking of perceptual image hash
                  functions")
    numbers       recordings: without their mean along the longest axis, folded into 64 numbers with random signs
                  (count sketch; Charikar, Chen and Farach-Colton 2002), which keeps distances
    exact         a few numbers, a row of a table, or the same number throughout: a hash; only what is equal is alike

Pure.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.store.fingerprints import Fingerprint

SIZE = 64
FEW = 16  # numbers: fewer are near to each other by chance, in a large fleet
ROW = 256  # numbers along one axis alone: fewer are a row of a table, of which a single one may tell all
FLAT = 2.0  # grey levels of contrast that count as none: below, noise would be compared
STILL = 1e-3  # part of its length that changes in a sample which counts as the same throughout


class Likeness(NamedTuple):
    """How near two fingerprints of a kind are, of what counts as the same."""

    distance: float  # of the vectors; for numbers: over their length
    relative: bool
    bits: int  # that may differ


LIKENESS = {
    "grey": Likeness(0.07, False, 12),
    "colour": Likeness(0.07, False, 12),
    "numbers": Likeness(0.01, True, 64),
    "exact": Likeness(0.0, False, 0),  # equal
}
"""Wider, and two shirts are one (of 20,000 beside 5,000 others: 11, and 97 at 0.1); narrower, and a picture is not
known again once it was compressed (at quality 50: 98 of 100)."""


def fingerprints(x: NDArray[Any]) -> list[Fingerprint]:
    """Of samples x: (N, *shape), of any dtype of the wire."""
    if _is_picture(x):
        return _pictures(x)
    few = x[0].size < (ROW if x.ndim == 2 else FEW)
    return [_exact(row) if few else _numbers(row) for row in x]


def _is_picture(x: NDArray[Any]) -> bool:
    fits = x.ndim == 3 or (x.ndim == 4 and x.shape[3] in (1, 3))
    return fits and x.dtype == np.uint8 and min(x.shape[1:3]) >= 8


def _pictures(x: NDArray[Any]) -> list[Fingerprint]:
    pixels = x.astype(np.float32).reshape(*x.shape[:3], -1)  # (N, H, W, 1 or 3)
    means = pixels.mean(axis=(1, 2)) / 255.0
    rows, columns = (_cosines(side) for side in x.shape[1:3])
    low = np.einsum("kh,nhw,lw->nkl", rows, pixels.mean(axis=3), columns, optimize=True).reshape(len(x), -1)
    ac = low[:, 1:]
    bits = np.packbits(ac > np.median(ac, axis=1, keepdims=True), axis=1, bitorder="little")
    unit = ac / np.maximum(np.linalg.norm(ac, axis=1, keepdims=True), FLAT)
    vectors = np.concatenate((means, unit[:, : SIZE - means.shape[1]]), axis=1).astype(np.float32)
    kind = "grey" if means.shape[1] == 1 else "colour"
    return [
        Fingerprint(kind, vector, int.from_bytes(signs.tobytes(), "little"))
        for vector, signs in zip(vectors, bits, strict=True)
    ]


def _cosines(side: int) -> NDArray[np.float32]:
    """(8, side): the lowest of the cosine transform (DCT-II), so scaled that sizes of pictures do not matter."""
    k, i = np.arange(8)[:, None], np.arange(side)[None, :]
    scale = np.where(k == 0, 1.0, np.sqrt(2.0)) / side
    return (scale * np.cos(np.pi * k * (i + 0.5) / side)).astype(np.float32)


def _numbers(array: NDArray[Any]) -> Fingerprint:
    values = np.nan_to_num(array.astype(np.float64))
    changes = values - values.mean(axis=int(np.argmax(values.shape)), keepdims=True)
    if np.linalg.norm(changes) <= STILL * np.linalg.norm(values):
        return _exact(array)
    return Fingerprint("numbers", _folded(changes.reshape(-1)).astype(np.float32), 0)


def _folded(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """(64,): as it is where it has no more, else its numbers with random signs in random places, the same always."""
    if len(flat) <= SIZE:
        return np.pad(flat, (0, SIZE - len(flat)))
    rng = np.random.default_rng(0)
    signed = flat * rng.choice((-1.0, 1.0), len(flat))
    sums: NDArray[np.float64] = np.asarray(np.bincount(rng.integers(0, SIZE, len(flat)), signed, SIZE), np.float64)
    return sums


def _exact(array: NDArray[Any]) -> Fingerprint:
    said = f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()
    bits = int.from_bytes(hashlib.sha256(said).digest()[:8], "little")
    return Fingerprint("exact", np.zeros(SIZE, np.float32), bits)
