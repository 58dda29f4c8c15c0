"""How does a sample travel as an image?

One that is one: uint8 of shape (H, W), (H, W, 1) or (H, W, 3), as PNG (lossless), JPEG or WebP (lossy: what is labelled
and trained on is then what was sent, not what the sensor gave). Everything else travels as an array.

Pillow does the work, and is loaded here alone, when the first image comes. Its decoders are C code that reads what a
stranger wrote: the server runs them in a process of their own (server/store/sandbox.py), never in its own.
"""

from __future__ import annotations

import io
from typing import Any, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import ConfigError, MessageError

Kind = Literal["png", "jpeg", "webp"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PIXELS_MAX = 64 * 1024 * 1024
_SIDE_MAX = {"png": 65_535, "jpeg": 65_500, "webp": 16_383}  # JPEG and WebP cannot say more, PNG need not
_MODES = {"png": ("L", "RGB"), "jpeg": ("L", "RGB"), "webp": ("RGB",)}  # WebP knows no grey
_PNG_EFFORT = 6  # of zlib: 9 takes several times as long on a small processor, for a hundredth of the bytes


class Codec(msgspec.Struct, frozen=True):
    """How a device sends its images. quality: 1..100, of JPEG and WebP."""

    kind: Kind
    quality: int


def codec(kind: Kind | Literal["raw"], quality: int) -> Codec | None:
    """What `[uplink] images` asks for, None for "raw"; ConfigError when it cannot be done here."""
    if kind == "raw":
        return None
    try:
        features = _pillow("features")
    except ImportError as error:
        raise ConfigError(
            f'[uplink] images = "{kind}" needs Pillow: pip install "winnow-edge[images]", or set images = "raw"'
        ) from error
    if not features.check({"png": "zlib", "jpeg": "jpg", "webp": "webp"}[kind]):
        raise ConfigError(f'[uplink] images: this Pillow was built without {kind}: choose another, or "raw"')
    return Codec(kind, quality)


def is_image(shape: tuple[int, ...], dtype: str, kind: Kind) -> bool:
    """Whether samples of that shape and dtype can travel as `kind`.

    >>> is_image((90, 60, 3), "uint8", "jpeg"), is_image((90, 60, 4), "uint8", "png"), is_image((9, 6), "int8", "png")
    (True, False, False)
    """
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    return fits and dtype == "uint8" and max(shape[:2]) <= _SIDE_MAX[kind] and shape[0] * shape[1] <= PIXELS_MAX


def encode_image(data: NDArray[np.generic], codec: Codec) -> bytes:
    """The bytes of an image file; `data` as `is_image` lets it pass."""
    made, out = _pillow("Image").fromarray(_squeeze(data)), io.BytesIO()
    how = {"compress_level": _PNG_EFFORT} if codec.kind == "png" else {"quality": codec.quality}
    made.save(out, codec.kind.upper(), **how)
    return out.getvalue()


def decode_image(body: bytes, kind: Kind, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array of an image file: `shape` uint8. MessageError, and nothing else, when it is not one of `kind`.

    Only the decoder of `kind` is asked, and nothing is decoded before the file's own header gave the size of `shape`.
    """
    if not is_image(shape, "uint8", kind):
        raise MessageError(f"{kind}: shape {shape} is none of an image")
    mode = "RGB" if len(shape) == 3 and shape[2] == 3 else "L"
    try:
        with _pillow("Image").open(io.BytesIO(body), formats=[kind.upper()]) as image:
            _check(image, kind, shape, mode)
            return np.asarray(image.convert(mode)).reshape(shape)
    except MessageError:
        raise
    except Exception as error:  # whatever parsers of a stranger's bytes think of: not of the wire format
        raise MessageError(f"{kind}: {type(error).__name__}: {str(error)[:150]}") from error


def _check(image: Any, kind: Kind, shape: tuple[int, ...], mode: str) -> None:
    height, width = shape[:2]
    if image.size != (width, height):
        raise MessageError(f"{kind}: {image.size[0]} x {image.size[1]} pixels, its header says {width} x {height}")
    if image.mode not in _MODES[kind] or (kind != "webp" and image.mode != mode):
        raise MessageError(f"{kind}: pixels are {image.mode}, expected {mode}")
    if getattr(image, "n_frames", 1) != 1:
        raise MessageError(f"{kind}: {image.n_frames} frames, expected 1")


def _squeeze(data: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.ascontiguousarray(data[:, :, 0] if data.ndim == 3 and data.shape[2] == 1 else data)


def _pillow(module: str) -> Any:
    from importlib import import_module

    return import_module(f"PIL.{module}")
