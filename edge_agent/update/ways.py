"""By which way does an ONNX file come here?

It is here already (old weights under a new number), or it comes as a parcel, the smallest first, or it comes whole.
A parcel that fails in any way costs its bytes, is told, and is never tried again; the file itself is the last way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from edge_agent.contract.artifact import OnnxFile, check_bytes
from edge_agent.contract.errors import IntegrityError
from edge_agent.contract.parcel import UNPACKERS, unpack
from edge_agent.contract.wire import Parcel


class Cellar(Protocol):
    """What lies here already, and what is known of parcels."""

    def file(self, sha256: str) -> Path | None:
        """An ONNX file that should have that hash (nobody has looked); None when there is none."""

    def bad_parcels(self) -> Collection[str]:
        """Hashes of the parcels that must not be tried."""

    def give_up(self, parcel: Parcel, reason: str) -> None:
        """Tell, and never try that parcel again."""


class Ways:
    """The ways to one file, one after the other."""

    def __init__(self, file: OnnxFile, parcels: Sequence[Parcel], cellar: Cellar) -> None:
        """Parcels that do not save anything or cannot be unpacked here are passed over."""
        self._file, self._cellar = file, cellar
        self._left = sorted(filter(self._is_usable, parcels), key=lambda parcel: parcel.bytes, reverse=True)
        self._parcel: Parcel | None = None  # on its way; None: the file is

    def _is_usable(self, parcel: Parcel) -> bool:
        return (
            parcel.file_sha256 == self._file.sha256
            and parcel.packing in UNPACKERS
            and 0 < parcel.bytes < self._file.bytes
            and parcel.sha256 not in self._cellar.bad_parcels()
            and (not parcel.base_sha256 or self._cellar.file(parcel.base_sha256) is not None)
        )

    def here(self) -> bytes:
        """The file, if it is here; else nothing."""
        try:
            found = self._read(self._file.sha256)
            check_bytes(found, self._file, where="file of another version")
        except IntegrityError:
            return b""
        return found

    def next(self) -> OnnxFile:
        """What to fetch now."""
        self._parcel = self._left.pop() if self._left else None
        return self._file if self._parcel is None else OnnxFile(sha256=self._parcel.sha256, bytes=self._parcel.bytes)

    def give_up(self, reason: str) -> bool:
        """What is on its way failed, for good; whether there is another way."""
        if self._parcel is None:
            return False
        self._cellar.give_up(self._parcel, reason)
        return True

    def arrived(self, data: bytes) -> bytes:
        """The file, of what was fetched. IntegrityError when that does not unpack to it."""
        parcel = self._parcel
        if parcel is None:
            return data
        base = self._read(parcel.base_sha256) if parcel.base_sha256 else b""
        return unpack(parcel, data, base=base, file=self._file)

    def _read(self, sha256: str) -> bytes:
        path = self._cellar.file(sha256)
        try:
            return path.read_bytes() if path is not None else b""
        except OSError as error:  # of one file of several ways: no reason to wait for the disk
            raise IntegrityError(f"{path}: {error.strerror}") from error
