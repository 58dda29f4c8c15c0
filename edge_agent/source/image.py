"""How do the bytes of an image become a picture? Pillow's work: JPEG, PNG, WebP, BMP."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import SourceError
from edge_agent.source.frame import Frames, Picture

BROKEN = (OSError, ValueError, EOFError, SyntaxError)
"""What Pillow raises of bytes that are none; SyntaxError of broken PNGs."""


def read_image(file: Path | BinaryIO, frames: Frames) -> NDArray[np.generic]:
    """An image as the model takes it; one of BROKEN when it is none. SourceError without Pillow."""
    pillow = _pillow()
    with pillow.open(file) as image:
        mode = "RGB" if frames.channels == 3 else "L"
        image.draft(mode, (frames.width, frames.height))  # JPEG decodes straight to a smaller size
        picture = np.asarray(image.convert(mode))

    def scale(part: Picture, width: int, height: int) -> Picture:
        return np.asarray(pillow.fromarray(part).resize((width, height), pillow.Resampling.BILINEAR))

    return frames.of(picture, scale)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise SourceError("images need Pillow: pip install 'winnow-edge[images]'") from error
    return Image
