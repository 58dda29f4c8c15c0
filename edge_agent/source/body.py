"""How does the body of a request hold a sample?

As the array's bytes, as .npy, as nested lists of JSON, or as an image; a RefusalError says what was expected instead.
"""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import ConfigError, SourceError
from edge_agent.source import Fit
from edge_agent.source.frame import Frames
from edge_agent.source.image import BROKEN, read_image
from edge_agent.source.options import Frame

IMAGES = frozenset({"image/jpeg", "image/png", "image/webp", "image/bmp"})
RAW, NPY, JSON = "application/octet-stream", "application/x-npy", "application/json"


class RefusalError(Exception):
    """A request that is answered by an HTTP status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Body:
    """Reads what a request holds."""

    def __init__(self, fit: Fit, frame: Frame) -> None:
        self.fit, self._frame = fit, frame
        self._dtype = np.dtype(fit.dtype)
        self._bytes = int(np.prod(fit.shape)) * self._dtype.itemsize

    def read(self, kind: str, data: bytes) -> NDArray[np.generic]:
        """The sample as the model takes it; RefusalError says what was expected."""
        if kind == RAW:
            return self._raw(data)
        if kind in IMAGES:
            return self._image(data)
        if kind == NPY:
            return self._fitting(_npy(data), exactly=True)
        if kind == JSON:
            return self._fitting(_json(data), exactly=False)
        raise RefusalError(415, f"{kind}: expected {RAW}, {NPY}, {JSON}, or an image")

    def _raw(self, data: bytes) -> NDArray[np.generic]:
        if len(data) != self._bytes:
            raise RefusalError(
                400, f"{len(data)} bytes, the model takes {self._bytes}: {self.fit.shape} {self.fit.dtype}"
            )
        return np.frombuffer(data, self._dtype).reshape(self.fit.shape)

    def _image(self, data: bytes) -> NDArray[np.generic]:
        try:
            return read_image(io.BytesIO(data), Frames(self.fit, self._frame))
        except (*BROKEN, ConfigError, SourceError) as error:
            raise RefusalError(400, str(error)) from error

    def _fitting(self, array: NDArray[Any], *, exactly: bool) -> NDArray[np.generic]:
        """An array of the model's shape, and of its dtype, or numbers that the dtype holds."""
        fits = array.shape == self.fit.shape and array.dtype.kind in "iufb"
        if fits and exactly:
            fits = array.dtype == self._dtype
        elif fits and self._dtype.kind in "iu":
            limits = np.iinfo(self.fit.dtype)
            fits = bool(((array >= limits.min) & (array <= limits.max) & (array == np.rint(array))).all())
        if not fits:
            raise RefusalError(
                400, f"an array {array.shape} {array.dtype}, the model takes {self.fit.shape} {self.fit.dtype}"
            )
        return array.astype(self._dtype)


def _npy(data: bytes) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise RefusalError(400, f"not an .npy: {error}") from error
    return array


def _json(data: bytes) -> NDArray[Any]:
    try:
        return np.array(msgspec.json.decode(data), np.float64)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise RefusalError(400, f"not a nested list of numbers: {error}") from error
