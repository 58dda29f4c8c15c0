"""How do the bytes of an array become fewer, and come back?

    raw         as they lie in memory, C order
    zlib        RFC 1950; what agents sent before there was zstd, and still send of small arrays
    zstd        Zstandard (RFC 8878)
    delta-zstd  each element less the one before it along the longest axis, then bytes of equal weight side by side,
                then Zstandard: for what changes little from row to row or from instant to instant

`pack` tries what may pay and keeps the shortest. `benchmarks/payload.py` says what each is worth on real data: on
photographs the differences save a quarter of what zlib leaves, on sensors and sound 10 to 20 %, on embeddings nothing.
Nothing is lost: floats are taken as the integers that their bits are.
"""

from __future__ import annotations

import math
import zlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import MessageError

Encoding = Literal["raw", "zlib", "zstd", "delta-zstd"]

LEVEL = 6  # 3: a third of the CPU, 3 to 5 % more bytes; 9: 1 % fewer bytes, half as much CPU again
SMALL_BYTES = 1024  # up to it zlib alone is tried: 2 % more bytes at worst for a third of the CPU: fast loops feel it
WINDOW_MAX_BYTES = 8 << 20  # of memory that a decoder grants; LEVEL needs 2 MB at most
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def pack(array: NDArray[np.generic]) -> tuple[Encoding, bytes]:
    """The shortest form of an array of any of the wire's dtypes, and its name.

    >>> pack(np.arange(1000, dtype=np.int32))[0]
    'delta-zstd'
    """
    array = np.ascontiguousarray(array)
    raw = array.tobytes()
    if len(raw) <= SMALL_BYTES:
        return _shortest(("raw", raw), ("zlib", zlib.compress(raw, 6)))
    import zstandard  # no device needs it before it sends

    compressor = zstandard.ZstdCompressor(level=LEVEL)
    differences = compressor.compress(_differences(array))
    return _shortest(("raw", raw), ("zstd", compressor.compress(raw)), ("delta-zstd", differences))


def unpack(encoding: Encoding, body: bytes | memoryview, *, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """The array again, shape and dtype as given, not to be written to.

    MessageError when the body is not one; never inflates past what shape and dtype say, and a bit.
    """
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    raw = _inflate(encoding, body, expected)
    if len(raw) != expected:
        raise MessageError(f"{len(raw)} bytes decoded, {tuple(shape)} {dtype}: {expected}")
    if encoding == "delta-zstd":
        return _sums(raw, np.dtype(dtype), tuple(shape))
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


def _shortest(*forms: tuple[Encoding, bytes]) -> tuple[Encoding, bytes]:
    return min(forms, key=lambda form: len(form[1]))


def _inflate(encoding: Encoding, body: bytes | memoryview, expected: int) -> bytes | memoryview:
    try:
        if encoding == "raw":
            return body
        if encoding == "zlib":
            return zlib.decompressobj().decompress(body, expected + 1)
        return _decompress(body, expected)
    except (zlib.error, ValueError) as error:
        raise MessageError(f"{encoding}: {error}") from error


def _decompress(body: bytes | memoryview, expected: int) -> bytes:
    import zstandard

    try:
        # As a stream: asked for a whole, zstandard would allocate what the frame announces.
        stream = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_BYTES).stream_reader(body)
        raw: bytes = stream.read(expected + 1)
        return raw
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _differences(array: NDArray[np.generic]) -> bytes:
    words = np.atleast_1d(array).view(_WORDS[array.itemsize])
    changes = words.copy()
    axis = _axis(words.shape)
    later, before = _along(axis, slice(1, None)), _along(axis, slice(None, -1))
    np.subtract(words[later], words[before], out=changes[later])  # wraps around, and so does the sum
    weights: bytes = changes.reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T.tobytes()
    return weights


def _sums(raw: bytes | memoryview, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
    word = _WORDS[dtype.itemsize]
    weights = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
    changes = np.ascontiguousarray(weights.T).reshape(-1).view(word).reshape(shape or (1,))
    array = np.cumsum(changes, axis=_axis(changes.shape), dtype=word).view(dtype)
    return array.reshape(shape)


def _axis(shape: tuple[int, ...]) -> int:
    """The longest, the first of several: time, or the rows of an image, wherever the channels are."""
    return int(np.argmax(shape))


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, part)
