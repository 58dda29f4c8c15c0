"""How does a snapshot become COCO?

    images/<sample id>.png ...          as for a folder of images
    annotations/instances_train.json    images, annotations, categories (cocodataset.org/#format-data)

Boxes as they were drawn, in pixels; where a label is a class of the whole picture, so is its box.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from functools import partial
from typing import Any, BinaryIO

import msgspec

from edge_agent.contract.task import MOST
from server.store.snapshots import Snapshot
from server.store.store import Store
from server.teach.export.images import PARTS, filled, rows_of, written
from server.teach.export.journal import Chunk, File, Journal
from server.teach.export.record import Record, lines, size_of

_NUMBERS = 1_000_000  # of a chunk: an image's number is that of its chunk, and its place there


class Coco:
    """Writes chunks as image files, and one document a split."""

    def __init__(self, store: Store, journal: Journal, snapshot: Snapshot) -> None:
        """Of that snapshot."""
        self._store, self._journal, self._snapshot = store, journal, snapshot
        self._licences = sorted({rule.licence for rule in snapshot.rules})

    def chunk(self, name: str, records: Iterable[Record]) -> tuple[int, list[File], int]:
        """Write one: records, files, and how many were damaged."""
        said, files, lost = written(self._store, self._journal, records, _place)
        first = int(name.rpartition("-")[2]) * _NUMBERS + 1
        rows = [self._rows(first + number, record, path) for number, (record, path) in enumerate(said)]
        self._journal.put(f"{PARTS}/{name}.jsonl", lines(rows))
        return len(said), files, lost

    def finish(self, chunks: Iterable[Chunk]) -> list[File]:
        """Join what the chunks say, each split into one document."""
        return [
            self._journal.write(f"annotations/instances_{split}.json", partial(self._document, names, split))
            for split, names in filled(chunks).items()
        ]

    def _document(self, names: list[str], split: str, out: BinaryIO) -> None:
        """A row at a time: there may be more than fit into memory."""
        made = datetime.fromtimestamp(self._snapshot.created_at_ms / 1000, timezone.utc)
        about = f"Winnow snapshot {self._snapshot.id}, {split}; a class of a whole picture has a box of all of it"
        info = {"description": about, "version": "1.0", "year": made.year, "date_created": made.date().isoformat()}
        classes = [{"id": i + 1, "name": name, "supercategory": ""} for i, name in enumerate(self._snapshot.classes)]
        licences = [{"id": i + 1, "name": name or "not known", "url": ""} for i, name in enumerate(self._licences)]
        head = msgspec.json.encode({"info": info, "licenses": licences, "categories": classes})
        out.write(head[:-1])
        for key in ("images", "annotations"):
            out.write(f',"{key}":['.encode())
            separator = b""
            for name in names:
                for line in rows_of(self._journal.folder, name):
                    for row in msgspec.json.decode(line)[key]:
                        out.write(separator + msgspec.json.encode(row))
                        separator = b",\n"
            out.write(b"]")
        out.write(b"}")

    def _rows(self, number: int, record: Record, path: str) -> dict[str, Any]:
        height, width = size_of(record)
        captured = datetime.fromtimestamp(record.row.captured_at_ms / 1000, timezone.utc)
        image = {
            "id": number,
            "file_name": path.partition("/")[2],
            "height": height,
            "width": width,
            "license": self._licences.index(record.rule.licence) + 1 if record.rule.licence in self._licences else 1,
            "date_captured": captured.isoformat(timespec="seconds"),
            "winnow": record.said,
        }
        whole = [[record.row.class_index, 0.0, 0.0, 1.0, 1.0]]
        boxes = whole if record.row.truth is None else record.row.truth["boxes"]
        annotations = [_annotation(number, place, box, width, height) for place, box in enumerate(boxes)]
        return {"images": [image], "annotations": annotations}


def _annotation(image: int, place: int, box: list[float], width: int, height: int) -> dict[str, Any]:
    """Of a box by shares; its number is the image's, and its place there. Pixels to a hundredth."""
    label, left, top, right, bottom = box[:5]
    x, y, across, down = (
        round(v, 2) for v in (left * width, top * height, (right - left) * width, (bottom - top) * height)
    )
    return {
        "id": image * MOST + place,
        "image_id": image,
        "category_id": int(label) + 1,
        "bbox": [x, y, across, down],
        "area": round(across * down, 4),
        "segmentation": [],
        "iscrowd": 0,
    }


def _place(record: Record, kind: str) -> str:
    return f"images/{record.row.id}.{'jpg' if kind == 'jpeg' else kind}"
