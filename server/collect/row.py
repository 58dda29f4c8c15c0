"""How is a sample that a device sent kept as a row?"""

from __future__ import annotations

from typing import Any

from edge_agent.contract.task import plain
from server.collect.inbound import Upload
from server.store import samples
from server.store.encoded import text


def row_of(upload: Upload) -> dict[str, Any]:
    """Of the table `sample`; JSON as text."""
    header, selection = upload.header, upload.header.selection
    return {
        "id": header.id,
        "device": upload.id.device,
        "stream": upload.id.stream,
        "boot": upload.id.boot,
        "seq": upload.id.seq,
        "ref": header.ref[:200],
        "origin": "device",
        "split": samples.split_of(selection.reason),
        "captured_at_ms": header.captured_at_ms,
        "received_at_ms": upload.message.received_ms,
        "dtype": header.dtype,
        "shape": text(header.shape),
        "encoding": header.encoding,
        "body_sha256": header.body_sha256,
        "body_bytes": header.body_bytes,
        "predicted": header.label,
        "confidence": header.confidence,
        "model_version": header.model_version,
        "reason": selection.reason,
        "probability": selection.probability,
        "floor": selection.floor,
        "utility": selection.utility,
        "novelty": selection.novelty,
        "threshold": selection.threshold,
        "tokens": selection.tokens,
        "strategy": selection.strategy[:40],
        "acquisition": selection.acquisition[:100],
        "shadow_probability": selection.shadow_probability,
        "transforms": text(header.transforms) if header.transforms else None,
        "said": None if header.said is None else text(plain(header.said)),
    }
