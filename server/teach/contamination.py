"""Does a sample to be trained on show what a held-out one shows?

Then a model would be judged on what it was taught. Two samples show the same when their fingerprints are alike
(fingerprint.py), their embeddings too where a model has seen both, and nothing says that they are of different classes:
of two that look the same and are not, the one does not give the other away.

All pairs are looked at, in blocks of one matrix product each. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.store.fingerprints import Fingerprint
from server.teach.fingerprint import LIKENESS, Likeness

ROWS_AT_ONCE = 64  # of a block, whose pairs are held one by one
BLOCK = 2048  # rows to a product: 16 MB of distances; more leaves the processor's cache, less is all overhead
NONE = -1

_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


class Look(NamedTuple):
    """What is known of a sample's looks."""

    fingerprint: Fingerprint | None  # None: its body could not be read
    embedding: NDArray[np.float16] | None  # (D,), by the same model for all; None: it was not run on it
    class_index: int  # NONE: not known


def twins(train: Sequence[Look], held: Sequence[Look], *, cosine: float) -> NDArray[np.int64]:
    """(len(train),) for each the index of a held-out sample that shows the same, or NONE.

    cosine: least of the embeddings, where both have one.
    """
    found = np.full(len(train), NONE, np.int64)
    for kind, likeness in LIKENESS.items():
        mine, theirs = (_of_kind(looks, kind) for looks in (train, held))
        if kind == "exact":
            found[mine] = _equal(train, held, mine, theirs)
        elif len(mine) and len(theirs):
            a, b = _Side.of(train, mine), _Side.of(held, theirs)
            found[mine] = _search(a, b, likeness, cosine, theirs)
    return found


def _equal(
    train: Sequence[Look], held: Sequence[Look], mine: NDArray[np.int64], theirs: NDArray[np.int64]
) -> list[int]:
    """Of those that must be equal, whose embeddings then are: by a look into a table."""
    there: dict[tuple[int, int], int] = {}
    for row in theirs.tolist():
        if one := held[row].fingerprint:
            there.setdefault((one.bits, held[row].class_index), row)
    found = []
    for row in mine.tolist():
        one = train[row].fingerprint
        bits = one.bits if one else 0
        found.append(there.get((bits, train[row].class_index), there.get((bits, NONE), NONE)))
    return found


class _Side(NamedTuple):
    """Looks of one kind, as arrays of as many rows."""

    vector: NDArray[np.float32]  # (N, 64)
    bits: NDArray[np.uint64]
    unit: NDArray[np.float32]  # (N, D) embeddings over their length; zeros where there is none
    seen: NDArray[np.bool_]  # has one
    class_index: NDArray[np.int64]

    @classmethod
    def of(cls, looks: Sequence[Look], rows: NDArray[np.int64]) -> _Side:
        some = [looks[row] for row in rows]
        width = max((len(look.embedding) for look in some if look.embedding is not None), default=0)
        unit = np.zeros((len(some), width), np.float32)
        for row, look in enumerate(some):
            if look.embedding is not None:
                unit[row] = look.embedding
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.float32(1e-12))
        return cls(
            np.stack([look.fingerprint.vector for look in some if look.fingerprint]),
            np.array([look.fingerprint.bits for look in some if look.fingerprint], np.uint64),
            unit,
            np.array([look.embedding is not None for look in some], np.bool_),
            np.array([look.class_index for look in some], np.int64),
        )


def _of_kind(looks: Sequence[Look], kind: str) -> NDArray[np.int64]:
    rows = [row for row, look in enumerate(looks) if look.fingerprint is not None and look.fingerprint.kind == kind]
    return np.array(rows, np.int64)


def _search(a: _Side, b: _Side, likeness: Likeness, cosine: float, names: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.full(len(a.vector), NONE, np.int64)
    left, right = _lifted(a.vector, b.vector, likeness)
    for first in range(0, len(found), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(found)))
        for start in range(0, len(right), BLOCK):
            near = left[rows] @ right[start : start + BLOCK].T >= 0.0
            for i, j in _pairs(near, rows, start):
                alike = _alike(a, b, i, j, likeness.bits, cosine)
                found[i[alike][::-1]] = names[j[alike][::-1]]  # backwards, so that the first of several stays
            rows = rows[found[rows] == NONE]  # one is enough: what stands still is soon done
            if not len(rows):
                break
    return found


def _lifted(a: NDArray[np.float32], b: NDArray[np.float32], likeness: Likeness) -> tuple[NDArray[np.float32], ...]:
    """Two more columns each, so that the product of two rows is at least 0 where they are near enough."""
    a_square, b_square = (np.einsum("nd,nd->n", side, side)[:, None] for side in (a, b))
    limit = likeness.distance**2 * (a_square if likeness.relative else np.ones_like(a_square))
    slack = 1e-6 * (a_square + 1.0)  # of rounding: near enough is looked at once more by its bits
    left = np.concatenate((a, (limit + slack - a_square) / 2.0, np.ones_like(a_square)), axis=1)
    right = np.concatenate((b, np.ones_like(b_square), -b_square / 2.0), axis=1)
    return left.astype(np.float32), right.astype(np.float32)


def _pairs(
    near: NDArray[np.bool_], rows: NDArray[np.int64], start: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The (i, j) of what is near, a bounded number at a time."""
    some = np.flatnonzero(near.any(axis=1))  # of most rows nothing is near
    for top in range(0, len(some), ROWS_AT_ONCE):
        few = some[top : top + ROWS_AT_ONCE]
        i, j = np.nonzero(near[few])
        yield rows[few[i]], start + j


def _alike(
    a: _Side, b: _Side, i: NDArray[np.int64], j: NDArray[np.int64], bits: int, cosine: float
) -> NDArray[np.bool_]:
    """(P,) whether these pairs are."""
    differing = _ONES[(a.bits[i] ^ b.bits[j]).view(np.uint8).reshape(-1, 8)].sum(axis=1)
    same = (b.class_index[j] == NONE) | (a.class_index[i] == b.class_index[j])
    alike: NDArray[np.bool_] = (differing <= bits) & same
    both = np.flatnonzero(alike & a.seen[i] & b.seen[j])
    if len(both):
        alike[both] = np.einsum("pd,pd->p", a.unit[i[both]], b.unit[j[both]]) >= cosine
    return alike
