"""How do the arrays of an .npz say what is true of each of its samples x (N, ...), where that is more than a class?

    boxes    (M, 6) numbers   row of the sample, class, left, top, right, bottom in 0..1; a sample in none shows nothing
    applies  (N, K) 0 or 1    whether each class applies
    values   (N, K) numbers   of each target; NaN: not known
    names    (K,) text        of the classes or targets

One of the first three, and names. Pure, but for the reading.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.task import Task
from server.errors import StoreError

TASK_OF: dict[str, Task] = {"boxes": "detection", "applies": "multilabel", "values": "regression"}
_SAID = "expected an .npz of x, names, and one of boxes, applies and values"


class Truths(NamedTuple):
    """What a file says of each sample, by names (as server/label/truth.py has them)."""

    task: Task
    x: NDArray[Any]
    names: tuple[str, ...]
    said: list[dict[str, Any]]


def kinds_in(file: Path) -> list[str]:
    """Which of boxes, applies and values an .npz has; [] where it is none, or cannot be read."""
    try:
        with zipfile.ZipFile(file) as parts:
            return [kind for kind in TASK_OF if f"{kind}.npy" in parts.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []


def read(file: Path) -> Truths:
    """The truths of a file. StoreError says which array or row, what was got and what was expected."""
    try:
        with np.load(file, allow_pickle=False) as loaded:
            arrays = {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{file}: {error}: {_SAID}") from error
    kinds = [kind for kind in TASK_OF if kind in arrays]
    if len(kinds) != 1 or not {"x", "names"} <= arrays.keys():
        raise StoreError(f"{file}: got {', '.join(arrays) or 'nothing'}: {_SAID}")
    names = arrays["names"]
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) < len(names):
        raise StoreError(f"{file}: names is {names.shape} {names.dtype}, expected (K,) different texts")
    said, count, known = arrays[kinds[0]], len(arrays["x"]), tuple(names.tolist())
    if said.dtype.kind not in "iufb":
        raise StoreError(f"{file}: {kinds[0]} is {said.dtype}, expected numbers")
    found = _boxes(said, known, count, str(file)) if kinds[0] == "boxes" else _table(kinds[0], said, known, count, file)
    return Truths(TASK_OF[kinds[0]], arrays["x"], known, list(found))


def box_of(label: str, left: float, top: float, right: float, bottom: float, *, where: str) -> list[Any]:
    """A box by names; StoreError, which says where, when it has no area or lies outside."""
    if not (0.0 <= left < right <= 1.0 and 0.0 <= top < bottom <= 1.0):
        raise StoreError(
            f"{where}: box {left:g}, {top:g}, {right:g}, {bottom:g}: expected left < right and top < bottom in 0..1"
        )
    return [label, left, top, right, bottom]


def _boxes(said: NDArray[Any], names: tuple[str, ...], count: int, where: str) -> list[dict[str, Any]]:
    if said.ndim != 2 or said.shape[1] != 6:
        raise StoreError(f"{where}: boxes is {said.shape}, expected (M, 6): sample, class, left, top, right, bottom")
    found: list[list[Any]] = [[] for _ in range(count)]
    for place, (sample, label, *corners) in enumerate(said.astype(np.float64).tolist()):
        here = f"{where}: boxes[{place}]"
        if not _is_index(sample, count):
            raise StoreError(f"{here}: sample {sample:g}, expected 0..{count - 1}, a row of x")
        if not _is_index(label, len(names)):
            raise StoreError(f"{here}: class {label:g}, expected 0..{len(names) - 1}, an index of names")
        found[int(sample)].append(box_of(names[int(label)], *corners, where=here))
    return [{"boxes": boxes} for boxes in found]


def _is_index(number: float, count: int) -> bool:
    """Whether it is one of 0..count-1. `number in range(count)` looks at each of them where it is a float."""
    return number.is_integer() and 0 <= number < count


def _table(kind: str, said: NDArray[Any], names: tuple[str, ...], count: int, file: Path) -> Iterator[dict[str, Any]]:
    if said.shape != (count, len(names)):
        raise StoreError(
            f"{file}: {kind} is {said.shape}, expected {(count, len(names))}: a row a sample, a column a name"
        )
    for row, numbers in enumerate(said.astype(np.float64).tolist()):
        pairs = list(zip(names, numbers, strict=True))
        if kind == "values":
            known = [[name, number] for name, number in pairs if not np.isnan(number)]
            if not known or any(np.isinf(number) for _, number in known):
                raise StoreError(f"{file}: values[{row}]: {numbers[:8]}: expected a number at least, NaN if not known")
            yield {kind: known}
        else:
            if any(number not in (0.0, 1.0) for number in numbers):
                raise StoreError(f"{file}: applies[{row}]: expected 0 or 1 for each class, got {numbers[:8]}")
            yield {kind: [name for name, number in pairs if number]}
