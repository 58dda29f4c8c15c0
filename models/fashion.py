"""How does Fashion-MNIST get here, and is it the real one?

Two ways, tried in turn: Debian's package (no rights needed: it is unpacked, not installed), then the public home. Both
end in the same four files, and each must have the hash below, whichever way it came and whenever it is read again.
The hash is of the content: Debian compresses the files anew, so that the published .gz hashes do not hold there.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import debian
from models.errors import DataError

NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
PACKAGE = "dataset-fashion-mnist"
HOME = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FOLDER = "fashion-mnist"


class _File(NamedTuple):
    name: str
    shape: tuple[int, ...]
    header_bytes: int  # of the IDX format: magic number and one length per axis
    sha256: str  # of the uncompressed content


FILES = (
    _File(
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        16,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    _File("train-labels-idx1-ubyte", (60_000,), 8, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    _File(
        "t10k-images-idx3-ubyte",
        (10_000, 28, 28),
        16,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    _File("t10k-labels-idx1-ubyte", (10_000,), 8, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
)

Say = Callable[[str], None]
Pair = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load(cache: Path) -> tuple[Pair, Pair]:
    """Images (N, 28, 28) uint8 and labels (N,) int64, of the training and of the test part.

    Raises:
        DataError: not in the cache, or not what it should be.
    """
    try:
        arrays = [_array(file, (cache / FOLDER / file.name).read_bytes()) for file in FILES]
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}; run: python -m models.data fetch") from error
    x, y, x_test, y_test = arrays
    return (x, y.astype(np.int64)), (x_test, y_test.astype(np.int64))


def fetch(cache: Path, *, say: Say) -> None:
    """Bring the files into the cache; does nothing when they are there. `say` gets a line for each step.

    Raises:
        DataError: every way failed; says why each did, and what to do.
    """
    folder = cache / FOLDER
    try:
        load(cache)
    except DataError:
        pass  # absent or damaged: brought anew
    else:
        say(f"Fashion-MNIST: already in {folder}")
        return
    failures = []
    for title, way in (("Debian package", _from_debian), ("public home", _from_home)):
        say(f"Fashion-MNIST: trying the {title}")
        try:
            with tempfile.TemporaryDirectory(prefix="winnow-") as temporary:
                _unpack(way(Path(temporary)), folder)
        except (DataError, OSError, HTTPException, subprocess.SubprocessError) as error:
            failures.append(f"{title}: {error}")
            say(f"Fashion-MNIST: {failures[-1]}")
        else:
            say(f"Fashion-MNIST: verified, in {folder}")
            return
    names = ", ".join(file.name for file in FILES)
    advice = f"check the network, or unpack the .gz files of {HOME} ({names}) into {folder} by hand"
    raise DataError(f"Fashion-MNIST could not be fetched ({'; '.join(failures)}): {advice}")


def _array(file: _File, content: bytes) -> NDArray[np.uint8]:
    got = hashlib.sha256(content).hexdigest()
    if got != file.sha256:
        raise DataError(f"{file.name}: sha256 {got[:12]}..., expected {file.sha256[:12]}...: damaged, fetch it again")
    pixels: NDArray[Any] = np.frombuffer(content, dtype=np.uint8, offset=file.header_bytes)
    return pixels.reshape(file.shape)


def _unpack(archives: Path, folder: Path) -> None:
    """Unpack, verify, and only then put in place."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        expected = int(np.prod(file.shape)) + file.header_bytes
        try:
            packed = (archives / f"{file.name}.gz").read_bytes()
            content = zlib.decompressobj(wbits=31).decompress(packed, expected + 1)
        except zlib.error as error:
            raise DataError(f"{file.name}.gz: {error}") from error
        _array(file, content)
        beside = folder / f"{file.name}.new"
        beside.write_bytes(content)
        beside.replace(folder / file.name)


def _from_debian(temporary: Path) -> Path:
    return debian.unpacked(PACKAGE, temporary) / "usr/share/datasets/fashion-mnist"


def _from_home(temporary: Path) -> Path:
    for file in FILES:
        # The scheme is fixed and unencrypted; the hash vouches for the content.
        with urllib.request.urlopen(f"{HOME}/{file.name}.gz", timeout=60) as response:  # noqa: S310
            (temporary / f"{file.name}.gz").write_bytes(response.read())
    return temporary
