from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models import data
from models.errors import DataError
from models.package import Packaged, package
from models.train import Net, Settings, fit

collect_ignore = ["exports/keras_exports.py"]  # needs TensorFlow, which is no part of this environment


@pytest.fixture(scope="session")
def fashion() -> tuple[data.Labelled, data.Labelled]:
    """3,000 training and 2,000 test images, shuffled."""
    try:
        train, test = data.load_fashion(data.default_cache())
    except DataError as error:
        pytest.skip(str(error))
    order = np.random.default_rng(0).permutation(len(train.y))
    return train.take(order[:3000]), test.take(np.arange(2000))


@pytest.fixture(scope="session")
def clothes_net(fashion: tuple[data.Labelled, data.Labelled]) -> Net:
    train, _ = fashion
    return fit(train.x, train.y, classes=10, settings=Settings(epochs=4))


@pytest.fixture(scope="session")
def packaged(clothes_net: Net, fashion: tuple[data.Labelled, data.Labelled]) -> Packaged:
    train, test = fashion
    return package(
        clothes_net,
        name="clothes",
        names=train.names,
        version=3,
        parent=2,
        snapshot="abc",
        unit="grey level 0..255",
        calibration=train.x[:400],
        holdout=(test.x, test.y),
    )


@pytest.fixture(scope="session")
def blobs() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Samples of any shape whose brightness tells their class."""

    def make(shape: tuple[int, ...], dtype: str, *, classes: int = 3, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(1)
        y = np.arange(n) % classes
        level = (y + 0.5) / classes * 200.0
        x = level.reshape(-1, *[1] * len(shape)) + rng.normal(0.0, 12.0, (n, *shape))
        return np.clip(x, 0, 255).astype(dtype), y

    return make
