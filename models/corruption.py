"""How does a sensor see worse than it did?

Functions of raw samples (N, ...) and a generator, to samples of the same shape and dtype. Images are uint8 of shape
(N, H, W) or (N, H, W, C); anything else is measured in its own standard deviations. Strengths are about severity 3 of
the corruptions of Hendrycks and Dietterich (ICLR 2019): a good model loses some points, and a person still sees what
it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError

Raw = NDArray[Any]
Corruption = Callable[[Raw, np.random.Generator], Raw]

NOISE_SD = 0.5  # of the data's standard deviation
IMAGE_NOISE = 40.0  # grey levels of 255
HIDDEN = 0.1  # of a sample


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
    return _like(shaken, x)


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


def blur(x: Raw, rng: np.random.Generator) -> Raw:  # noqa: ARG001 - the seam's
    """Out of focus, or a slow sensor: the mean of 3 neighbours in every direction, twice."""
    axes = (1, 2) if is_images(x) else (1,)
    soft = x.astype(np.float32)
    for axis in axes * 2:
        soft = (np.roll(soft, 1, axis) + soft + np.roll(soft, -1, axis)) / 3.0
    return _like(soft, x)


def bright(x: Raw, rng: np.random.Generator) -> Raw:  # noqa: ARG001 - the seam's
    """Too much light: half of the contrast, the rest white; of anything that is no image, half as much again."""
    return _like(x * 0.5 + 127.0 if is_images(x) else x * 1.5, x)


def offset(x: Raw, rng: np.random.Generator) -> Raw:
    """A sensor whose zero has moved: half a standard deviation of all values, up or down, sample by sample."""
    sign = rng.choice([-1.0, 1.0], size=(len(x), *[1] * (x.ndim - 1)))
    return _like(x + sign * NOISE_SD * float(np.nanstd(x)), x)


def hidden(x: Raw, rng: np.random.Generator) -> Raw:
    """A tenth of the picture is covered, with grey; of anything that is no image, a tenth of its values is lost."""
    made, middle = x.copy(), np.asarray(128 if is_images(x) else np.nanmean(x), x.dtype)
    if not is_images(x):
        made[rng.random(x.shape) < HIDDEN] = middle
        return made
    height, width = (max(1, round(side * HIDDEN**0.5)) for side in x.shape[1:3])
    for image in made:
        top, left = rng.integers(x.shape[1] - height + 1), rng.integers(x.shape[2] - width + 1)
        image[top : top + height, left : left + width] = middle
    return made


CORRUPTIONS: dict[str, Corruption] = {"fog": fog, "noise": noise, "dark": dark, "rotate": rotate}
"""What the backtest can make of a stream."""

# --- what models are judged by ---

SUITE = 1
"""Version of what follows: figures of one version compare. Whoever changes any of it, or what it calls, raises it."""
OF_IMAGES: tuple[Corruption, ...] = (noise, blur, fog, dark, bright, hidden)
OF_SERIES: tuple[Corruption, ...] = (noise, blur, bright, offset, hidden)
OF_VECTORS: tuple[Corruption, ...] = (noise, bright, offset, hidden)  # their values have no neighbours
GRID = 4  # patches to a side; as many squared stretches of a series


def suite(x: Raw) -> Iterator[tuple[str, Raw]]:
    """Samples x under each corruption for their kind: images, series (N, T, C), anything else. Always the same."""
    for number, corrupt in enumerate(OF_IMAGES if is_images(x) else OF_SERIES if x.ndim == 3 else OF_VECTORS):
        yield corrupt.__name__, corrupt(x, np.random.default_rng([SUITE, number]))


def strangers(x: Raw) -> Iterator[tuple[str, Raw]]:
    """As many samples that belong to no class, of the same values as x: in pieces, and noise. Always the same."""
    rng = np.random.default_rng([SUITE, 100])
    yield "pieces", _pieces(x, rng)
    flat = x.reshape(len(x), -1).astype(np.float64)
    drawn = flat.mean(axis=1, keepdims=True) + flat.std(axis=1, keepdims=True) * rng.standard_normal(flat.shape)
    yield "noise", _like(drawn.reshape(x.shape), x)


def _pieces(x: Raw, rng: np.random.Generator) -> Raw:
    """Patches of an image, stretches of a series, in another order; of vectors each value from another sample."""
    if is_images(x):
        n, height, width = len(x), *(side // GRID for side in x.shape[1:3])
        grid = x[:, : GRID * height, : GRID * width].reshape(n, GRID, height, GRID, width, -1).swapaxes(2, 3)
        orders = rng.permuted(np.tile(np.arange(GRID * GRID), (n, 1)), axis=1)
        mixed = grid.reshape(n, GRID * GRID, height, width, -1)[np.arange(n)[:, None], orders]
        made = x.copy()  # what is left over at the edges stays
        made[:, : GRID * height, : GRID * width] = (
            mixed.reshape(grid.shape).swapaxes(2, 3).reshape(n, GRID * height, GRID * width, *x.shape[3:])
        )
        return made
    if x.ndim == 3:
        parts = np.array_split(np.arange(x.shape[1]), min(GRID * GRID, x.shape[1]))
        turned = [np.concatenate([parts[i] for i in rng.permutation(len(parts))]) for _ in x]
        return np.stack([sample[order] for sample, order in zip(x, turned, strict=True)])
    return rng.permuted(x, axis=0)


def _like(values: Raw, x: Raw) -> Raw:
    if x.dtype.kind not in "iu":
        return values.astype(x.dtype)
    limits = np.iinfo(x.dtype)  # louder than its numbers go is clipped, as by a microphone
    made: Raw = np.clip(values, limits.min, limits.max).astype(x.dtype)
    return made


def _grey(values: Raw) -> Raw:
    return np.clip(values, 0, 255).astype(np.uint8)
