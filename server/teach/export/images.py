"""How does a snapshot become a folder of images?

    train/000-cat/<sample id>.png ...   a folder for each class, as torchvision's and Hugging Face's readers take it
    train/metadata.jsonl                a line for each: file_name, label and all that is known of it

A picture goes as it was sent (JPEG, PNG, WebP), one that came as an array as PNG, without loss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from server.errors import StoreError
from server.store.snapshots import Snapshot
from server.store.store import Store
from server.teach.export.journal import Chunk, File, Journal
from server.teach.export.record import Record, lines, pictures

PARTS = "parts"

Place = Callable[[Record, str], str]
"""(record, kind of image) -> path of its file, from the folder."""


class Images:
    """Writes chunks as image files."""

    def __init__(self, store: Store, journal: Journal, snapshot: Snapshot) -> None:
        """Of that snapshot."""
        del snapshot
        self._store, self._journal = store, journal

    def chunk(self, name: str, records: Iterable[Record]) -> tuple[int, list[File], int]:
        """Write one: records, files, and how many were damaged."""
        said, files, lost = written(self._store, self._journal, records, _place)
        rows = [{"file_name": path.partition("/")[2]} | record.said for record, path in said]
        self._journal.put(f"{PARTS}/{name}.jsonl", lines(rows))
        return len(said), files, lost

    def finish(self, chunks: Iterable[Chunk]) -> list[File]:
        """Join the lines of each split."""
        return [
            self._journal.write(f"{split}/metadata.jsonl", partial(self._join, names))
            for split, names in filled(chunks).items()
        ]

    def _join(self, names: list[str], out: BinaryIO) -> None:
        for name in names:
            out.writelines(rows_of(self._journal.folder, name))


def written(
    store: Store, journal: Journal, records: Iterable[Record], place: Place
) -> tuple[list[tuple[Record, str]], list[File], int]:
    """Write the pictures of some: (record, path), their files, and how many were damaged."""
    said: list[tuple[Record, str]] = []
    files, lost = [], 0
    for record, picture in pictures(store, records):
        if isinstance(picture, StoreError):
            lost += 1
            continue
        path = place(record, picture.kind)
        files.append(journal.put(path, picture.body))
        said.append((record, path))
    return said, files, lost


def _place(record: Record, kind: str) -> str:
    folder = f"{record.row.class_index:03d}-{re.sub(r'[^A-Za-z0-9_-]+', '-', record.class_name)[:60]}"
    return f"{record.row.frozen_split}/{folder}/{record.row.id}.{'jpg' if kind == 'jpeg' else kind}"


def filled(chunks: Iterable[Chunk]) -> dict[str, list[str]]:
    """Split -> the names of its chunks that have files."""
    by_split: dict[str, list[str]] = {}
    for chunk in chunks:
        if chunk.files:
            by_split.setdefault(chunk.split, []).append(chunk.name)
    return by_split


def rows_of(folder: Path, name: str) -> Iterable[bytes]:
    """The lines that a chunk left; none where nothing of it was exported."""
    with open(folder / PARTS / f"{name}.jsonl", "rb") as part:
        yield from part
