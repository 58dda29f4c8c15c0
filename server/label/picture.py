"""How is a sample shown to a person?

As a PNG: an image as it is, anything else as a grey picture of its values, from the lowest (black) to the highest.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE_MIN = 224  # pixels; smaller images are enlarged in whole steps, so that a person sees them


def png(array: NDArray[Any]) -> bytes:
    """Of a sample as the sensor gave it: (H, W), (H, W, 1 or 3) uint8; (T,), (T, C) and others by their values."""
    pixels = array if _is_image(array) else _values(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    times = max(1, SIDE_MIN // max(pixels.shape[:2]))
    pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, format="PNG")
    return out.getvalue()


def _is_image(array: NDArray[Any]) -> bool:
    return array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3)))


def _values(array: NDArray[Any]) -> NDArray[np.uint8]:
    """(rows, columns): time to the right, channels below each other."""
    values = np.nan_to_num(np.asarray(array, np.float64)).reshape(len(array) if array.ndim else 1, -1).T
    span = np.ptp(values)
    grey: NDArray[np.uint8] = np.round(255.0 * (values - values.min()) / (span if span > 0.0 else 1.0)).astype(np.uint8)
    return grey
