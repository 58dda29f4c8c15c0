"""What is known of a member that is exported?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.images import KINDS, Codec, encode_image, is_image
from server.errors import StoreError
from server.store.rules import Rule
from server.store.samples import sample_arrays, unpacked
from server.store.store import Store
from server.store.wording import View

PNG = Codec("png", 90)


class Picture(NamedTuple):
    """An image file."""

    kind: str
    body: bytes


class Record(NamedTuple):
    """A member, and what it may be used for."""

    row: Any  # of `snapshots.page`
    class_name: str  # or what its truth says, in words
    truth: View | None  # by names, where it is more than a class
    rule: Rule  # in force when it was frozen; of an older snapshot, now

    @property
    def said(self) -> dict[str, Any]:
        """All but its body, by the names of the columns."""
        row, rule = self.row, self.rule
        return {
            "sample_id": row.id,
            "split": row.frozen_split,
            "label": self.class_name,
            "class_index": row.class_index,
            "truth": "" if self.truth is None else msgspec.json.encode(self.truth).decode(),
            "labeler": row.labeler,
            "device": row.device,
            "stream": row.stream,
            "origin": row.origin,
            "captured_at_ms": row.captured_at_ms,
            "received_at_ms": row.received_at_ms,
            "model_version": row.model_version,
            "predicted": row.predicted,
            "confidence": row.confidence,
            "reason": row.reason,
            "probability": row.frozen_probability,
            "selection_probability": row.probability,
            "floor": row.floor,
            "transforms": list(row.transforms or ()),
            "licence": rule.licence,
            "consent": rule.consent,
            "region": rule.region,
            "purpose": rule.purpose,
            "dtype": row.dtype,
            "shape": list(row.shape),
        }

    @property
    def is_picture(self) -> bool:
        """Whether it can be an image file."""
        return self.row.encoding in KINDS or is_image(tuple(self.row.shape), self.row.dtype, "png")


def arrays(store: Store, records: Iterable[Record]) -> Iterator[tuple[Record, NDArray[np.generic] | StoreError]]:
    """What devices sent, or what is wrong with it; in order, read ahead."""
    every = list(records)
    found = sample_arrays(store, [record.row for record in every])
    return ((record, array) for record, (_, array) in zip(every, found, strict=True))


def pictures(store: Store, records: Iterable[Record]) -> Iterator[tuple[Record, Picture | StoreError]]:
    """The same as files: as they were sent where those were images, else as PNG, without loss."""
    every = list(records)
    bodies = store.blobs.get_many(record.row.body_sha256 for record in every)
    for record, body in zip(every, bodies, strict=True):
        yield record, body if isinstance(body, StoreError) else _picture(store, record.row, body)


def _picture(store: Store, row: Any, body: bytes) -> Picture | StoreError:
    """What the device sent is decoded in the sandbox alone, so as to be known sound."""
    array = unpacked(store, row, body)
    if isinstance(array, StoreError):
        return array
    return Picture(row.encoding, body) if row.encoding in KINDS else Picture("png", encode_image(array, PNG))


def size_of(record: Record) -> tuple[int, int]:
    """(height, width) of a picture."""
    return record.row.shape[0], record.row.shape[1]


def lines(rows: list[dict[str, Any]]) -> bytes:
    """As JSON, one a line."""
    return msgspec.json.Encoder().encode_lines(rows)
