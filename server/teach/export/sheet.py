"""How does a snapshot become a table?

samples.csv   a line for each member: all that is known of it, but for its body (RFC 4180)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from functools import partial
from typing import BinaryIO

from server.store.snapshots import Snapshot
from server.store.store import Store
from server.teach.export.images import PARTS
from server.teach.export.journal import Chunk, File, Journal
from server.teach.export.record import Record

NAME = "samples.csv"
COLUMNS = (
    "sample_id", "split", "label", "class_index", "truth", "labeler", "device", "stream", "origin", "captured_at_ms",
    "received_at_ms", "model_version", "predicted", "confidence", "reason", "probability", "selection_probability",
    "floor", "transforms", "licence", "consent", "region", "purpose", "dtype", "shape",
)  # fmt: skip
_RISKY = ("=", "+", "-", "@", "\t", "\r")


class Sheet:
    """Writes chunks as lines."""

    def __init__(self, store: Store, journal: Journal, snapshot: Snapshot) -> None:
        """Bodies stay where they are."""
        del store, snapshot
        self._journal = journal

    def chunk(self, name: str, records: Iterable[Record]) -> tuple[int, list[File], int]:
        """Write one: records, files, and how many were damaged: none."""
        out, count = io.StringIO(), 0
        writer = csv.writer(out)
        for record in records:
            writer.writerow([safe(_text(record.said[column])) for column in COLUMNS])
            count += 1
        self._journal.put(_part(name), out.getvalue().encode())
        return count, [], 0

    def finish(self, chunks: Iterable[Chunk]) -> list[File]:
        """Join them."""
        return [self._journal.write(NAME, partial(self._join, [one.name for one in chunks if one.records]))]

    def _join(self, names: list[str], out: BinaryIO) -> None:
        out.write((",".join(COLUMNS) + "\r\n").encode())
        for name in names:
            out.write((self._journal.folder / _part(name)).read_bytes())


def safe(value: object) -> object:
    """As a spreadsheet may have it: it would take what begins with these for a formula.

    >>> safe("=1+1"), safe("cat"), safe(-1)
    ("'=1+1", 'cat', -1)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_RISKY) else value


def _text(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _part(name: str) -> str:
    return f"{PARTS}/{name}.csv"
