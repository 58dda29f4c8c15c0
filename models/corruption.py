"""How does a sensor see worse than it did?

Functions of raw samples (N, ...) and a generator, to samples of the same shape and dtype. Images are uint8 of shape
(N, H, W) or (N, H, W, C); anything else is measured in its own standard deviations. Strengths are about severity 3 of
the corruptions of Hendrycks and Dietterich (ICLR 2019): a good model loses some points, and a person still sees what
it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError

Raw = NDArray[Any]
Corruption = Callable[[Raw, np.random.Generator], Raw]

NOISE_SD = 0.5  # of the data's standard deviation
IMAGE_NOISE = 40.0  # grey levels of 255


def is_images(x: Raw) -> bool:
    """Whether x is uint8 of (N, H, W) or (N, H, W, C)."""
    return x.dtype == np.uint8 and x.ndim in (3, 4)


def fog(x: Raw, rng: np.random.Generator) -> Raw:
    """A fogged lens: blurred, paler, brighter and noisy; on anything that is no image, `noise`."""
    if not is_images(x):
        return noise(x, rng)
    soft = x.astype(np.float32)
    for _ in range(2):
        for axis in (1, 2):
            soft = (np.roll(soft, 1, axis) + soft + np.roll(soft, -1, axis)) / 3.0
    return _grey(0.6 * soft + 40.0 + rng.normal(0, 15.0, x.shape))


def noise(x: Raw, rng: np.random.Generator) -> Raw:
    """Independent Gaussian noise on every value."""
    if is_images(x):
        return _grey(x + rng.normal(0, IMAGE_NOISE, x.shape))
    with np.errstate(invalid="ignore"):
        shaken = x + rng.normal(0, NOISE_SD * float(np.nanstd(x)), x.shape)
    return np.clip(shaken, 0, 255).astype(x.dtype) if x.dtype == np.uint8 else shaken.astype(x.dtype)


def dark(x: Raw, rng: np.random.Generator) -> Raw:  # noqa: ARG001 - the seam's
    """A third of the light; of anything that is no image, a third of its values."""
    made: Raw = (x / 3.0).astype(x.dtype)
    return made


def rotate(x: Raw, rng: np.random.Generator) -> Raw:  # noqa: ARG001 - the seam's
    """A quarter turn; half a turn where images are not square. DataError when these are no images."""
    if x.ndim not in (3, 4) or (x.ndim == 3 and x.dtype != np.uint8):
        raise DataError(f"rotate: samples of {x.dtype} {x.shape[1:]} are no images, expected (H, W) or (H, W, C)")
    made: Raw = np.ascontiguousarray(np.rot90(x, 1 if x.shape[1] == x.shape[2] else 2, axes=(1, 2)))
    return made


CORRUPTIONS: dict[str, Corruption] = {"fog": fog, "noise": noise, "dark": dark, "rotate": rotate}


def _grey(values: Raw) -> Raw:
    return np.clip(values, 0, 255).astype(np.uint8)
