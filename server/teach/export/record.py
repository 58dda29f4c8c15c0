"""What is known of a member that is exported?"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.images import KINDS, Codec, encode_image, is_image
from server.errors import StoreError
from server.store.rules import Rule
from server.store.samples import sample_array
from server.store.store import Store
from server.store.wording import View

PNG = Codec("png", 90)


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

    def array(self, store: Store) -> NDArray[np.generic]:
        """What the device sent."""
        return sample_array(store, self.row)

    def picture(self, store: Store) -> tuple[str, bytes]:
        """(kind, bytes of the file): as it was sent where that was an image, else as PNG, without loss.

        StoreError when it is damaged. What the device sent is decoded in the sandbox alone, so as to be known sound.
        """
        array = self.array(store)
        if self.row.encoding in KINDS:
            return self.row.encoding, store.blobs.get(self.row.body_sha256)
        return "png", encode_image(array, PNG)


def size_of(record: Record) -> tuple[int, int]:
    """(height, width) of a picture."""
    return record.row.shape[0], record.row.shape[1]


def lines(rows: list[dict[str, Any]]) -> bytes:
    """As JSON, one a line."""
    return msgspec.json.Encoder().encode_lines(rows)


def damaged(error: StoreError) -> bool:
    """Whether it is the body that is wrong, and not the disk."""
    return error.__cause__ is None
