"""What is in the files of the recent samples, and what if the power fails?

A ring of segments in one folder; the oldest is deleted to make room. A segment is only ever appended to, in large
writes, by the run that made it; each record carries its length and a checksum:

    content length u32 | crc32 of the content u32 | content = header length u16, header (msgpack), body

A write that a power cut tore ends its segment: what stands behind it is not read, and the next run begins a new one.
Nothing is flushed to the disk: the newest minutes of a ring may be lost, and that is all.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.task import Said

SEGMENTS = 8  # of a full ring: fewer lose more at once when the oldest goes, more are files to look through
FILES_MAX = 64  # after many starts most of them are short
SUFFIX = ".ring"
LENGTH = 4 + 4  # bytes before the content


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="kept"):
    """A sample that was not selected, without its body."""

    id: str
    ref: str
    captured_at_ms: int
    dtype: str
    shape: tuple[int, ...]
    packed: bool  # the body: zlib, or as it is
    label: int
    confidence: float
    utility: float
    version: int  # of the model that said so
    sketch: bytes  # float32, as choose/wanted.py makes it; empty when the model has no embedding
    transforms: tuple[str, ...] = ()  # for privacy, that the body went through
    said: Said | None = None  # by the model, beyond the label


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """A sample of the ring that was sent after all."""

    id: str


class Place(msgspec.Struct, frozen=True):
    """Where a record's content lies."""

    path: Path
    offset: int
    length: int


_decoder: msgspec.msgpack.Decoder[Kept | Gone] = msgspec.msgpack.Decoder(Kept | Gone)


def pack_sample(kept: Kept, data: NDArray[np.generic]) -> bytes:
    """A record of a sample: `kept` says what it is, but for `packed`."""
    raw = np.ascontiguousarray(data).tobytes()
    small = zlib.compress(raw, 1)
    packed = len(small) < len(raw)
    return pack(msgspec.structs.replace(kept, packed=packed), small if packed else raw)


def pack(record: Kept | Gone, body: bytes = b"") -> bytes:
    """A record as it stands in a file."""
    header = msgspec.msgpack.encode(record)
    content = b"".join((len(header).to_bytes(2, "little"), header, body))
    return b"".join((len(content).to_bytes(4, "little"), zlib.crc32(content).to_bytes(4, "little"), content))


class Ring:
    """At most `max_bytes` in `folder`. One thread at a time; OSError when the disk fails."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """Open or make it; with `max_bytes` 0 what is there is deleted."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._current: Path | None = None
        if max_bytes:
            folder.mkdir(parents=True, exist_ok=True)
        self._sizes = {path: path.stat().st_size for path in sorted(folder.glob("*" + SUFFIX)) if path.stem.isdecimal()}
        self._make_room(0)

    @property
    def record_max_bytes(self) -> int:
        """The largest record that can be kept."""
        return self._max_bytes // SEGMENTS

    def append(self, records: bytes) -> None:
        """Write whole records, at most `record_max_bytes` of them at once."""
        self._make_room(len(records))
        current = self._current
        if current is None or self._sizes.get(current, 0) + len(records) > self.record_max_bytes:
            newest = max((int(path.stem) for path in self._sizes), default=0)
            current = self._current = self._folder / f"{newest + 1:012d}{SUFFIX}"
            self._sizes[current] = 0
        with open(current, "ab") as file:
            try:
                file.write(records)
            except OSError:
                self._current = None  # it may end in half a record
                raise
            finally:
                self._sizes[current] += len(records)

    def clear(self) -> None:
        """Delete all of it."""
        for path in list(self._sizes):
            path.unlink(missing_ok=True)
            del self._sizes[path]
        self._current = None

    def _make_room(self, length: int) -> None:
        while self._sizes and (sum(self._sizes.values()) + length > self._max_bytes or len(self._sizes) >= FILES_MAX):
            oldest = next(iter(self._sizes))
            oldest.unlink(missing_ok=True)
            del self._sizes[oldest]

    def records(self) -> Iterator[tuple[Kept | Gone, Place]]:
        """Every record that is whole, oldest first."""
        for path in list(self._sizes):
            data = path.read_bytes() if path.exists() else b""
            at = 0
            while (content := _content(data, at)) is not None:
                record, _ = _unpack(content)
                if record is not None:
                    yield record, Place(path, at + LENGTH, len(content))
                at += LENGTH + len(content)

    def read(self, place: Place) -> tuple[Kept, NDArray[np.generic]] | None:
        """The sample that lies there; None when it was overwritten meanwhile."""
        if place.path not in self._sizes:
            return None
        with open(place.path, "rb") as file:
            file.seek(place.offset)
            record, body = _unpack(file.read(place.length))
        if not isinstance(record, Kept):
            return None
        try:
            raw = zlib.decompress(body) if record.packed else body
            return record, np.frombuffer(raw, record.dtype).reshape(record.shape)
        except (zlib.error, ValueError, TypeError):  # a worn-out card
            return None


def _content(data: bytes, at: int) -> bytes | None:
    """The content of the record at `at`; None at the end, or where the record is not whole."""
    length = int.from_bytes(data[at : at + 4], "little")
    content = data[at + LENGTH : at + LENGTH + length]
    whole = length >= 2 and len(content) == length
    return content if whole and zlib.crc32(content) == int.from_bytes(data[at + 4 : at + LENGTH], "little") else None


def _unpack(content: bytes) -> tuple[Kept | Gone | None, bytes]:
    """Header and body; None for a header that another version of the agent wrote."""
    end = 2 + int.from_bytes(content[:2], "little")
    try:
        return _decoder.decode(content[2:end]), content[end:]
    except (msgspec.DecodeError, ValueError):
        return None, b""
