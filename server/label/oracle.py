"""What is the truth of a replayed sample?

The replay source names a sample `<file stem>:<row>`; the oracle reads row `row` of `y` in that file, and its name in
`names`, or its boxes, classes or numbers (store/truth_arrays.py). That is all it knows: it cannot tell of any other
sample. It looks at neither `x` nor anything of the store.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from server.errors import ServerConfigError, StoreError
from server.store import truth_arrays

if TYPE_CHECKING:
    from server.label.labeler import Question


class Oracle:
    """Known truth, for replays."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the truth of each .npz file; ServerConfigError when one does not fit."""
        if not files:
            raise ServerConfigError("[labeler] files: the oracle needs the .npz files that the devices replay")
        self._truth: dict[str, Sequence[Any]] = {}
        for file in files:
            if file.stem in self._truth:
                raise ServerConfigError(f"[labeler] files: two are called {file.stem!r}: a sample says only that name")
            self._truth[file.stem] = _truths(file) if truth_arrays.kinds_in(file) else read_truth(file).tolist()

    def label(self, batch: list[Question]) -> list[Any]:
        """The class name of each, or what is more than a class; None where the ref is of none of the files."""
        return [self._answer(question.ref) for question in batch]

    def _answer(self, ref: str) -> Any:
        stem, _, row = ref.rpartition(":")
        truth = self._truth.get(stem)
        if truth is None or not (row.isascii() and row.isdigit()) or int(row) >= len(truth):
            return None
        return truth[int(row)]


def _truths(file: Path) -> Sequence[Any]:
    try:
        return truth_arrays.read(file).said
    except StoreError as error:
        raise ServerConfigError(f"[labeler] files: {error}") from error


def read_truth(file: Path) -> NDArray[np.str_]:
    """Class name of each row: (N,) str; ServerConfigError says what the file should hold."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            y = arrays["y"]
            names = arrays.get("names")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ServerConfigError(f"{file}: {error}: expected an .npz with `y` (N,) int and `names` (C,) str") from error
    if y.ndim != 1 or y.dtype.kind not in "iu" or (len(y) and y.min() < 0):
        raise ServerConfigError(f"{file}: y is {y.shape} {y.dtype}, expected (N,) of whole numbers from 0")
    classes = int(y.max()) + 1 if len(y) else 0
    if names is None:
        names = np.arange(classes).astype(np.str_)
    if names.ndim != 1 or names.dtype.kind != "U" or len(names) < classes:
        raise ServerConfigError(f"{file}: names is {names.shape} {names.dtype}, expected at least ({classes},) str")
    return np.asarray(names[y], dtype=np.str_)
