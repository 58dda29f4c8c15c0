"""How far has an export come?

    export.jsonl   what is exported, then a line for every chunk whose files are whole and on the disk

A chunk is a bounded number of members. Its files are written beside their names and moved there when they are whole;
what has no line is written anew. So an export that was killed goes on where it was, and gives the same files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from server.errors import StoreError

NAME = "export.jsonl"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What is exported; two that differ do not mix in one folder."""

    snapshot: str
    format: str
    use: str
    rules_sha256: str  # of the data rules in force
    chunk_rows: int


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One that was written."""

    path: str  # from the folder, with /
    sha256: str
    bytes: int


class Chunk(msgspec.Struct, frozen=True, kw_only=True, tag="chunk"):
    """Some members of a split."""

    name: str  # train-00000
    split: str
    records: int
    files: tuple[File, ...]
    left_out: dict[str, int] = {}  # why -> members


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """All chunks are there, and what joins them."""

    at_ms: int
    files: tuple[File, ...]


class Journal:
    """Of one folder. OSError when the disk fails."""

    def __init__(self, folder: Path, header: Header) -> None:
        """Begin, or go on; StoreError when the folder holds something else, or cannot be written."""
        self.folder = folder
        self.chunks: dict[str, Chunk] = {}
        self.finished = False
        self._unflushed: list[Path] = []
        self._path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                self._read(header)
            elif any(folder.iterdir()):
                raise StoreError(f"{folder}: holds other files: expected an empty folder, or an export to go on with")
            else:
                self._append(header)
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror}") from error

    def add(self, chunk: Chunk) -> None:
        """Its files are there: they are on the disk before this is."""
        self._flush()
        self.chunks[chunk.name] = chunk
        self._append(chunk)

    def finish(self, joined: Sequence[File], *, at_ms: int) -> None:
        """Everything is there."""
        self._flush()
        self.finished = True
        self._append(Finished(at_ms=at_ms, files=tuple(joined)))

    def put(self, path: str, body: bytes) -> File:
        """Write a file."""
        with self._file(path) as file:
            file.write(body)
        return File(path=path, sha256=hashlib.sha256(body).hexdigest(), bytes=len(body))

    def write(self, path: str, fill: Callable[[BinaryIO], None]) -> File:
        """Write a file a piece at a time."""
        with self._file(path) as file:
            fill(file)
        place = self.folder / path
        with open(place, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return File(path=path, sha256=digest, bytes=place.stat().st_size)

    @contextmanager
    def _file(self, path: str) -> Iterator[BinaryIO]:
        """One that gets its name when it is whole."""
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(place.name + ".part")
        with open(beside, "wb") as file:
            yield file
        beside.replace(place)
        self._unflushed.append(place)

    def _flush(self) -> None:
        """All files of a chunk at once: one after the other, each waits for the disk."""
        for place in self._unflushed:
            with open(place, "rb") as file:
                os.fsync(file.fileno())
        self._unflushed.clear()

    def _read(self, header: Header) -> None:
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]  # what a kill tore is not there
        first, *rest = whole.splitlines() or [b"{}"]
        try:
            there = msgspec.json.decode(first, type=Header)
            said = [msgspec.json.decode(line, type=Chunk | Finished) for line in rest]
        except msgspec.DecodeError as error:
            raise StoreError(f"{self._path}: is no journal of an export: {error}") from error
        if there != header:
            names = {name: name for name in Header.__struct_fields__} | {"rules_sha256": "state of the data rules"}
            differing = [said for name, said in names.items() if getattr(there, name) != getattr(header, name)]
            raise StoreError(
                f"{self.folder}: holds another export, with another {', '.join(differing)}: expected an empty folder"
            )
        self.chunks = {one.name: one for one in said if isinstance(one, Chunk)}
        self.finished = any(isinstance(one, Finished) for one in said)
        if len(whole) < len(data):
            with open(self._path, "r+b") as file:
                file.truncate(len(whole))

    def _append(self, line: msgspec.Struct) -> None:
        with open(self._path, "ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())
