"""Where does data come from that needs no account and no camera?

70,000 images of Fashion-MNIST, the smartwatch recordings inside the package `seglearn`, voices and mail that are
fetched into .npz files, and anybody's own .npz file. All come as `Labelled`: raw as the sensor gives it, not scaled.

    python -m models.data fetch [clothes|voices|mail] [--cache DIR]      does nothing when it is there
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import did_you_mean
from edge_agent.contract.task import Task
from models import fashion, mail, voices
from models.errors import DataError

WATCH_NAMES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
WATCH_UNIT = "g, rad/s at 50 Hz"
WINDOW, STEP = 100, 50  # 2 s at 50 Hz, half overlapping
KEYS = ("x", "y", "names", "device", "t")
DTYPES = ("float32", "uint8", "int16", "int32")
FETCHED = {"voices": voices.fetch, "mail": mail.fetch}  # into a file of that name


@dataclass(frozen=True)
class Labelled:
    """Samples with their truth.

    x: (N, ...) uint8, float32, int16 or int32, raw. y: (N,) int64, index into names. names: of the C classes.
    device: (N,) int64 or text, which device sees the sample; t: (N,) its order on that device. None when not known.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    names: tuple[str, ...]
    device: NDArray[Any] | None = None
    t: NDArray[Any] | None = None

    def take(self, rows: NDArray[Any]) -> Labelled:
        """The rows of a mask or of indices, in that order."""
        device = None if self.device is None else self.device[rows]
        t = None if self.t is None else self.t[rows]
        return Labelled(self.x[rows], self.y[rows], self.names, device, t)


def finite_rows(x: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) which samples of x (N, ...) hold neither NaN nor infinity."""
    if x.dtype.kind != "f":
        return np.ones(len(x), dtype=np.bool_)
    finite: NDArray[np.bool_] = np.isfinite(x).all(axis=tuple(range(1, x.ndim)))
    return finite


def require_finite(x: NDArray[Any], what: str) -> None:
    """DataError when samples of x (N, ...) hold NaN or infinity."""
    if bad := len(x) - int(finite_rows(x).sum()):
        raise DataError(
            f"{what}: {bad} of {len(x)} samples hold NaN or infinity: leave them out (models.data.finite_rows)"
        )


def require_truth(y: NDArray[Any], task: Task, *, samples: int, classes: int) -> None:
    """DataError unless y is the truth of a task that is no classification, as contract/score.py has it."""
    wanted = {
        "multilabel": f"({samples}, {classes}) of 0 and 1",
        "regression": f"({samples}, {classes}) of numbers, NaN where one is not known",
        "detection": f"({samples}, M, 6) of class (below {classes}; -1: no box), corners in 0..1, score",
    }[task]
    shape = (samples, *y.shape[1:2], 6) if task == "detection" else (samples, classes)
    fits = y.shape == shape and y.dtype.kind == "f" and y.size > 0 and classes > 0
    if fits and task == "multilabel":
        fits = bool(np.isin(y, (0.0, 1.0)).all())
    elif fits and task == "regression":
        fits = not np.isinf(y).any() and bool(np.isfinite(y).any())
    elif fits:
        boxes = y[y[..., 0] >= 0.0]
        fits = bool((boxes[:, 0] < classes).all() and ((boxes[:, 1:5] >= 0.0) & (boxes[:, 1:5] <= 1.0)).all())
        fits = fits and bool((boxes[:, 1:3] < boxes[:, 3:5]).all())
    if not fits:
        raise DataError(f"truth of {task} is {y.dtype} {y.shape}, expected float {wanted}")


def default_cache() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/winnow, else ~/.cache/winnow. The one reader of the environment."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow"


def load_fashion(cache: Path) -> tuple[Labelled, Labelled]:
    """Fashion-MNIST: 60,000 and 10,000 images (28, 28) uint8 of 10 kinds of clothes (Xiao et al. 2017, MIT).

    Raises:
        DataError: not in the cache, or damaged there.
    """
    (x, y), (x_test, y_test) = fashion.load(cache)
    return Labelled(x, y, fashion.NAMES), Labelled(x_test, y_test, fashion.NAMES)


def load_watch() -> Labelled:
    """Seven shoulder exercises by ten people wearing a smartwatch (Burns et al. 2018, BSD), 4,677 windows.

    x: (N, 100, 6) float32, three accelerations and three rotation rates. device: the person, 1..10; t: its order.

    Raises:
        DataError: the package `seglearn` is not installed.
    """
    spec = importlib.util.find_spec("seglearn")  # found, not imported: it would pull in scikit-learn
    if spec is None or spec.origin is None:
        raise DataError("the smartwatch data is inside the package seglearn: pip install 'winnow-edge[demo]'")
    path = Path(spec.origin).parent / "data" / "watch_dataset.npy"
    try:
        # A pickle, from a package that the user installed and whose code could run as well.
        recordings = np.load(path, allow_pickle=True).item()
    except OSError as error:
        raise DataError(f"{path}: {error}: expected the data of seglearn 1.2.5") from error
    return _windows(recordings["X"], recordings["y"], recordings["subject"])


def _windows(series: list[NDArray[Any]], labels: NDArray[Any], people: NDArray[Any]) -> Labelled:
    x, y, device = [], [], []
    for record, label, person in zip(series, labels, people, strict=True):
        starts = range(0, len(record) - WINDOW + 1, STEP)
        x += [record[start : start + WINDOW] for start in starts]
        y += [label] * len(starts)
        device += [person] * len(starts)
    who = np.asarray(device, dtype=np.int64)
    t = np.zeros(len(who), dtype=np.int64)
    for person in np.unique(who):
        t[who == person] = np.arange(np.count_nonzero(who == person))
    return Labelled(np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.int64), WATCH_NAMES, who, t)


def load_fetched(name: str, cache: Path) -> Labelled:
    """What was fetched before; DataError when it was not.

    voices: x (N, 8000) int16, a second of five languages (voices.py). mail: x (N, 512) uint8, mail and spam, with t in
    seconds, oldest first (mail.py).
    """
    file = cache / f"{name}.npz"
    if not file.is_file():
        raise DataError(f"{file}: no such file; run: python -m models.data fetch {name}")
    return load_npz(file)


def _fetch(name: str, cache: Path, say: Callable[[str], None]) -> None:
    if name == "clothes":
        return fashion.fetch(cache, say=say)
    file = cache / f"{name}.npz"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(".new.npz")
        FETCHED[name](beside, say=say)
        beside.replace(file)
    return say(f"{name}: {file}")


def load_npz(path: Path) -> Labelled:
    """Somebody's own labelled data.

    x: (N, ...) float32, uint8, int16 or int32; y: (N,) int, 0..C-1; optional names (C,) text, device (N,) int or text,
    t (N,) numbers. Samples with NaN may be among them: the agent counts and skips those.

    Raises:
        DataError: says which array, what was got and what was expected.
    """
    arrays = _read_npz(path)
    for key in ("x", "y"):
        if key not in arrays:
            raise DataError(
                f"{path}: no array {key!r}; got {', '.join(arrays) or 'nothing'}; expected x, y [names, device, t]"
            )
    x, y = arrays["x"], arrays["y"]
    _check_x(x, str(path))
    _check_row_array(y, "y", "iu", "whole numbers 0..C-1", len(x), str(path))
    names = _names(arrays.get("names"), y, str(path))
    device, t = arrays.get("device"), arrays.get("t")
    if device is not None:
        _check_row_array(device, "device", "iuU", "whole numbers or text", len(x), str(path))
    if t is not None:
        _check_row_array(t, "t", "iuf", "numbers that order the samples", len(x), str(path))
        if unordered := len(t) - int(finite_rows(t).sum()):
            raise DataError(
                f"{path}: t holds NaN or infinity for {unordered} samples, expected numbers that order them"
            )
    return Labelled(np.ascontiguousarray(x), y.astype(np.int64), names, device, t)


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DataError(f"{path}: one array; expected an .npz of named arrays: np.savez(path, x=x, y=y)")
        with file:
            _refuse_unknown(file.files, path)
            return {key: file[key] for key in file.files}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected an .npz with x, y [names, device, t]") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        # numpy's own words for a file of another kind speak of pickles and mislead.
        told = "holds objects, not numbers" if "Object arrays" in str(error) else "cannot be read as .npz"
        raise DataError(f"{path}: {told}; write it by np.savez(path, x=x, y=y)") from error


def _refuse_unknown(keys: Sequence[str], path: Path) -> None:
    for key in keys:
        if key not in KEYS:
            raise DataError(f"{path}: unknown array {key!r}{did_you_mean(key, KEYS)}; known: {', '.join(KEYS)}")


def _check_x(x: NDArray[Any], where: str) -> None:
    if str(x.dtype) not in DTYPES:
        raise DataError(
            f"{where}: x is {x.dtype}, expected float32 or uint8 (int16 of sound, int32 of word pieces); "
            "convert it: x.astype(np.float32)"
        )
    if not 2 <= x.ndim <= 4 or x.size == 0:
        raise DataError(f"{where}: x has shape {x.shape}, expected (N, D), (N, T, C), (N, H, W) or (N, H, W, C)")
    if not finite_rows(x).any():
        raise DataError(f"{where}: every sample of x holds NaN or infinity, expected finite numbers in most")


def _check_row_array(array: NDArray[Any], name: str, kinds: str, what: str, rows: int, where: str) -> None:
    if array.shape != (rows,):
        raise DataError(f"{where}: {name} has shape {array.shape}, expected ({rows},): one for each sample of x")
    if array.dtype.kind not in kinds:
        raise DataError(f"{where}: {name} is {array.dtype}, expected {what}")


def _names(names: NDArray[Any] | None, y: NDArray[Any], where: str) -> tuple[str, ...]:
    low, high = int(y.min()), int(y.max())
    if low < 0:
        raise DataError(f"{where}: y holds {low}, expected 0..C-1")
    if names is None:
        if high > 9_999:
            raise DataError(f"{where}: y goes up to {high}, expected class numbers 0..C-1")
        if high == 0:
            raise DataError(f"{where}: y holds class 0 alone, expected two classes or more")
        names = np.asarray([str(k) for k in range(high + 1)])
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(f"{where}: names is {names.dtype} {names.shape}, expected text of shape (C,)")
    if high >= len(names):
        raise DataError(f"{where}: y goes up to {high} but names has {len(names)}, expected at least {high + 1}")
    if len(names) < 2 or len(set(names.tolist())) < len(names):
        raise DataError(f"{where}: names {names.tolist()[:5]}, expected two or more, each once")
    return tuple(str(name) for name in names)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `python -m models.data`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.data", description="Get data to try things with.")
    parser.add_argument("command", choices=["fetch"], help="download and verify, unless it is there")
    parser.add_argument("what", nargs="?", choices=["clothes", *FETCHED], default="clothes", help="default: clothes")
    parser.add_argument("--cache", type=Path, default=None, help="folder for downloads (default: ~/.cache/winnow)")
    options = parser.parse_args(arguments)
    try:
        _fetch(options.what, options.cache or default_cache(), lambda text: print(text, flush=True))  # noqa: T201
    except DataError as error:
        print(f"fetch: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
