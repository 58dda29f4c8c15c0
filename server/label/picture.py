"""How is a sample shown to a person?

An image as PNG; a series (T, C) or a vector as an SVG of lines. Arrays only: bodies are decoded elsewhere, images in a
process that can open nothing (store/sandbox.py). Pure.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SMALLEST = 224  # pixels: what is smaller is enlarged by whole factors, so that its pixels are seen as they are
LARGEST = 2048  # that it becomes by that: a strip one pixel high would fill the memory
POINTS = 600  # of a line; more are not seen
CHANNELS = 12
MOST = 1e300  # of what is drawn: the difference of two larger ones is no number any more
WIDTH, HEIGHT = 240, 120
COLOURS = ("#0f766e", "#b45309", "#1d5fb8", "#a21caf", "#4d7c0f", "#be123c")


class Picture(NamedTuple):
    """A file that a browser shows."""

    media_type: str
    body: bytes

    @property
    def suffix(self) -> str:
        """Of the file's name."""
        return {"image/png": ".png", "image/svg+xml": ".svg"}[self.media_type]


def of(array: NDArray[Any]) -> Picture:
    """The picture of a sample: (H, W), (H, W, 1|3) uint8 or float; (T, C), (T,) numbers."""
    if is_image(array.shape, array.dtype.name):
        return Picture("image/png", _png(array))
    return Picture("image/svg+xml", _lines(array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)))


def is_image(shape: Sequence[int], dtype: str) -> bool:
    """Whether an array of that kind is shown as an image."""
    if len(shape) == 3:
        return shape[2] in (1, 3)
    return len(shape) == 2 and (dtype == "uint8" or (min(shape) >= 8 and shape[0] == shape[1]))


def _png(array: NDArray[Any]) -> bytes:
    pixels = array if array.dtype == np.uint8 else _stretched(array)
    image = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    factor = min(-(-SMALLEST // max(1, min(image.size))), LARGEST // max(1, *image.size))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=3)
    return out.getvalue()


def _stretched(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Any range to 0..255."""
    return (255.0 * _shares(array)).astype(np.uint8)


def _shares(array: NDArray[Any]) -> NDArray[np.float64]:
    """Any numbers to 0..1, the smallest to the largest; NaN as 0 is, and infinite ones at the ends."""
    values = np.clip(np.nan_to_num(array.astype(np.float64)), -MOST, MOST)
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _lines(series: NDArray[Any]) -> bytes:
    """One line a channel, all to one scale, from top to bottom as they are largest."""
    some = np.unique(np.linspace(0, len(series) - 1, min(POINTS, len(series))).astype(int))
    y = HEIGHT - 4 - (HEIGHT - 8) * _shares(series[some, :CHANNELS])
    x = np.linspace(2, WIDTH - 2, len(y)) if len(y) > 1 else np.array([WIDTH / 2])
    drawn = "".join(
        f'<polyline fill="none" stroke="{COLOURS[channel % len(COLOURS)]}" stroke-width="1.2" points="'
        + " ".join(f"{at:.1f},{level:.1f}" for at, level in zip(x, y[:, channel], strict=True))
        + '"/>'
        for channel in range(y.shape[1])
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">{drawn}</svg>'.encode()
