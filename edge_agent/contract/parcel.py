"""How does a parcel become the file that it stands for?

    zstd       Zstandard (RFC 8878) of the whole file
    bsdiff4    what differs from a base file (Percival 2003, the format BSDIFF40): steps of "add this difference to
               that stretch of the base, then insert these new bytes", each of three streams packed by bzip2

Nothing here trusts a parcel. It never makes more than the file's length, needs little memory but for base and result,
and what comes out is held against the file's hash. The steps are walked here and not by the bsdiff4 package, whose C
holds the interpreter for a millisecond a megabyte (the stream would wait), and unpacks all that a patch announces.
"""

from __future__ import annotations

import bz2
import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.artifact import OnnxFile, check_bytes
from edge_agent.contract.errors import IntegrityError
from edge_agent.contract.wire import Parcel

WINDOW_LOG = 23  # 8 MB of memory that unpacking zstd may ask for; a longer one saves next to nothing on weights
STEPS_MAX = 1 << 20  # of a patch: some seconds of a small board; a patch with more of them saves nothing
MAGIC = b"BSDIFF40"
HEADER_BYTES = 32  # magic, lengths of the first two streams, length of the result
PIECE = 1 << 20  # bytes unpacked at a time


def unpack(parcel: Parcel, data: bytes, *, base: bytes, file: OnnxFile) -> bytes:
    """The file that `data` is the parcel of. `base`: the bytes of `parcel.base_sha256`; empty when it needs none.

    IntegrityError when it does not come out as promised.
    """
    where = f"{parcel.packing} parcel {parcel.sha256[:12]}..."
    unpacked = UNPACKERS[parcel.packing](data, base, file.bytes, where)
    check_bytes(unpacked, file, where=where)
    return unpacked


def _inflated(data: bytes, _base: bytes, size: int, where: str) -> bytes:
    import zstandard

    try:
        # As a stream: asked for a whole, zstandard would allocate what the frame announces.
        stream = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG).stream_reader(data)
        return bytes(stream.read(size + 1))
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{where}: {error}") from error


def _patched(data: bytes, base: bytes, size: int, where: str) -> bytes:
    steps, differences, extra = _streams(data, size, where)
    old, new = np.frombuffer(base, np.uint8), np.empty(size, np.uint8)
    at = position = taken = 0  # in the new file, in the old one; steps
    while at < size:
        taken += 1
        add, insert, skip = (_number(steps.read(8)) for _ in range(3))
        if taken > STEPS_MAX or not (0 <= add <= size - at and 0 <= insert <= size - at - add):
            raise IntegrityError(
                f"{where}: step {taken} ({add}, {insert}, {skip}) at byte {at} of {size} leads nowhere"
            )
        differences.fill(new[at : at + add])
        _add(new[at : at + add], old, position)
        extra.fill(new[at + add : at + add + insert])
        at, position = at + add + insert, position + add + skip
    return new.tobytes()


def _add(onto: NDArray[np.uint8], old: NDArray[np.uint8], position: int) -> None:
    """Add what stands at `position` of the old file, as far as it has something there."""
    first, last = max(0, -position), min(len(onto), len(old) - position)
    if first < last:
        onto[first:last] += old[position + first : position + last]  # wraps around, as it was taken


def _number(raw: bytes) -> int:
    """Eight bytes, little endian; the highest bit is the sign."""
    value = int.from_bytes(raw, "little")
    return value if value < 1 << 63 else (1 << 63) - value


class _Stream:
    """One bzip2 stream of a patch, unpacked as far as it is asked for."""

    def __init__(self, packed: bytes, where: str) -> None:
        self._inflater, self._packed, self._where = bz2.BZ2Decompressor(), packed, where

    def read(self, count: int) -> bytes:
        """So many bytes; IntegrityError when there are fewer."""
        found = b""
        while len(found) < count and (part := self._more(count - len(found))):
            found += part
        if len(found) < count:
            raise IntegrityError(f"{self._where}: ends too early")
        return found

    def _more(self, count: int) -> bytes:
        packed, self._packed = self._packed, b""
        try:
            return b"" if self._inflater.eof else self._inflater.decompress(packed, count)
        except OSError as error:
            raise IntegrityError(f"{self._where}: {error}") from error

    def fill(self, array: NDArray[np.uint8]) -> None:
        """Fill all of it."""
        for start in range(0, len(array), PIECE):
            piece = array[start : start + PIECE]
            piece[:] = np.frombuffer(self.read(len(piece)), np.uint8)


def _streams(data: bytes, size: int, where: str) -> tuple[_Stream, _Stream, _Stream]:
    lengths = [_number(data[at : at + 8]) for at in range(8, HEADER_BYTES, 8)]
    first, second, total = lengths
    room = len(data) - HEADER_BYTES
    if data[: len(MAGIC)] != MAGIC or not (0 <= first <= room and 0 <= second <= room - first):
        raise IntegrityError(f"{where}: {len(data)} bytes, expected a patch that begins with {MAGIC.decode()}")
    if total != size:
        raise IntegrityError(f"{where}: announces {total} bytes, expected {size}")
    cuts = (HEADER_BYTES, HEADER_BYTES + first, HEADER_BYTES + first + second, len(data))
    steps, differences, extra = (_Stream(data[a:b], where) for a, b in itertools.pairwise(cuts))
    return steps, differences, extra


UNPACKERS: dict[str, Callable[[bytes, bytes, int, str], bytes]] = {"zstd": _inflated, "bsdiff4": _patched}
