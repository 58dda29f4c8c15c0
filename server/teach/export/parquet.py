"""How does a snapshot become Parquet?

    data/train-00000.parquet ...   one a chunk, in row groups of a bounded size
    croissant.json                 what is in them, for machines (croissant.py)

`data` holds the bytes of a sample's array, C order, little endian: np.frombuffer(data, dtype).reshape(shape).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO

import msgspec

from server.errors import StoreError
from server.store.snapshots import Snapshot
from server.store.store import Store
from server.teach.export.croissant import described
from server.teach.export.journal import Chunk, File, Journal
from server.teach.export.record import Record, arrays

GROUP_BYTES = 32_000_000  # of bodies in memory at once; fewer make readers slow, more take memory


class Parquet:
    """Writes chunks as Parquet."""

    def __init__(self, store: Store, journal: Journal, snapshot: Snapshot) -> None:
        """StoreError when pyarrow is not installed."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise StoreError('Parquet is written by pyarrow: pip install "winnow-edge[data]"') from error
        self._arrow: Any = pyarrow
        self._parquet: Any = parquet
        self._store, self._journal, self._snapshot = store, journal, snapshot
        said = {"winnow.snapshot": snapshot.id, "winnow.classes": msgspec.json.encode(snapshot.classes).decode()}
        self._schema = pyarrow.schema(list(_columns(pyarrow).items()), metadata=said)

    def chunk(self, name: str, records: Iterable[Record]) -> tuple[int, list[File], int]:
        """Write one: records, files, and how many were damaged."""
        counts = {"records": 0, "damaged": 0}

        def fill(file: BinaryIO) -> None:
            with self._parquet.ParquetWriter(file, self._schema, compression="zstd") as writer:
                for group in self._groups(records, counts):
                    writer.write_table(self._arrow.Table.from_pylist(group, schema=self._schema))

        written = self._journal.write(f"data/{name}.parquet", fill)
        return counts["records"], [written], counts["damaged"]

    def finish(self, chunks: Iterable[Chunk]) -> list[File]:
        """Describe them."""
        about = msgspec.json.format(msgspec.json.encode(described(self._snapshot, list(chunks))), indent=1)
        return [self._journal.put("croissant.json", about)]

    def _groups(self, records: Iterable[Record], counts: dict[str, int]) -> Iterable[list[dict[str, Any]]]:
        group: list[dict[str, Any]] = []
        size = 0
        for record, array in arrays(self._store, records):
            if isinstance(array, StoreError):
                counts["damaged"] += 1
                continue
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            group.append(record.said | {"data": little.tobytes()})
            counts["records"] += 1
            size += array.nbytes
            if size >= GROUP_BYTES:
                yield group
                group, size = [], 0
        if group:
            yield group


def _columns(arrow: Any) -> dict[str, Any]:
    text, number, count = arrow.string(), arrow.float64(), arrow.int64()
    when = arrow.timestamp("ms", tz="UTC")
    return {
        "sample_id": text, "split": text, "label": text, "class_index": count, "truth": text, "labeler": text,
        "device": text, "stream": text, "origin": text, "captured_at_ms": when, "received_at_ms": when,
        "model_version": count, "predicted": count, "confidence": number, "reason": text, "probability": number,
        "selection_probability": number, "floor": number, "transforms": arrow.list_(text), "licence": text,
        "consent": text, "region": text, "purpose": text, "dtype": text, "shape": arrow.list_(arrow.int32()),
        "data": arrow.binary(),
    }  # fmt: skip
