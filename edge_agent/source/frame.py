"""How does a picture come to what the model takes?

    stretch       crop            letterbox
    +------+      +-+----+-+      +--------+
    |      |      | |    | |      |########|   # filled
    |      |      | |    | |      |        |
    +------+      +-+----+-+      +--------+

The geometry is pure; whoever has a picture also has something that scales it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import ConfigError
from edge_agent.source import Fit
from edge_agent.source.options import Frame, How

Picture = NDArray[np.uint8]  # (H, W, 3) RGB, or (H, W) grey, 0..255
Scale = Callable[[Picture, int, int], Picture]  # to a width and a height

GREY = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601), as Pillow and OpenCV have it


class Box(NamedTuple):
    """A rectangle, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}+{self.left}+{self.top}"


class Placed(NamedTuple):
    """Which part of a picture goes where in the model's frame: a box that the model finds is brought back by it."""

    part: Box  # of the picture
    place: Box  # of the frame


def place(picture: tuple[int, int], frame: tuple[int, int], how: How) -> Placed:
    """Of a picture and a frame, each (width, height).

    >>> place((640, 480), (320, 320), "letterbox").place
    Box(left=0, top=40, width=320, height=240)
    >>> place((640, 480), (320, 320), "crop").part
    Box(left=80, top=0, width=480, height=480)
    """
    (width, height), (to_width, to_height) = picture, frame
    part, whole = Box(0, 0, width, height), Box(0, 0, to_width, to_height)
    if how == "crop":
        scale = max(to_width / width, to_height / height)
        kept = _within(to_width / scale, width), _within(to_height / scale, height)
        part = Box((width - kept[0]) // 2, (height - kept[1]) // 2, *kept)
    elif how == "letterbox":
        scale = min(to_width / width, to_height / height)
        size = _within(width * scale, to_width), _within(height * scale, to_height)
        whole = Box((to_width - size[0]) // 2, (to_height - size[1]) // 2, *size)
    return Placed(part, whole)


def _within(length: float, most: int) -> int:
    return min(max(round(length), 1), most)


class Frames:
    """Brings pictures to one model's input."""

    def __init__(self, fit: Fit, frame: Frame) -> None:
        """ConfigError when that input is no picture.

        It is (H, W), (H, W, 1 or 3) or (1 or 3, H, W), of any dtype; floats keep 0..255.
        """
        self.fit, self._frame = fit, frame
        shape = fit.shape
        if len(shape) == 2:
            self.height, self.width, self.channels, self._first = *shape, 1, False
        elif len(shape) == 3 and shape[2] in (1, 3):
            self.height, self.width, self.channels, self._first = *shape, False
        elif len(shape) == 3 and shape[0] in (1, 3):
            self.channels, self.height, self.width, self._first = *shape, True
        else:
            raise ConfigError(
                f"[source] a picture cannot be brought to the model's input {shape}: "
                "expected (H, W), (H, W, 1 or 3) or (1 or 3, H, W)"
            )

    def placed(self, width: int, height: int) -> Placed:
        """How a picture of that size is placed."""
        return place((width, height), (self.width, self.height), self._frame.how)

    def of(self, picture: Picture, scale: Scale) -> NDArray[np.generic]:
        """A picture (H, W, 3) RGB or (H, W) as the model takes it."""
        part, to = self.placed(picture.shape[1], picture.shape[0])
        cut = picture[part.top : part.top + part.height, part.left : part.left + part.width]
        scaled = self._coloured(scale(cut, to.width, to.height))
        if (to.width, to.height) != (self.width, self.height):
            around = np.full((self.height, self.width, self.channels), self._frame.fill, np.uint8)
            around[to.top : to.top + to.height, to.left : to.left + to.width] = scaled
            scaled = around
        if self._first:
            scaled = scaled.transpose(2, 0, 1)
        return np.ascontiguousarray(scaled).astype(self.fit.dtype).reshape(self.fit.shape)

    def _coloured(self, picture: Picture) -> Picture:
        """(H, W, channels)."""
        if picture.ndim == 2:
            return np.repeat(picture[:, :, None], self.channels, axis=2)
        if self.channels == 1:
            grey = np.rint(picture @ np.array(GREY, np.float32))
            return grey.astype(np.uint8)[:, :, None]
        return picture[:, :, ::-1] if self._frame.colour == "bgr" else picture
