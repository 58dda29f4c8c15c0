"""Samples to put into an outbox."""

from __future__ import annotations

import hashlib

from edge_agent.contract.types import Selection
from edge_agent.contract.wire import SampleHeader
from edge_agent.send.outbox import Put


def a_put(seq: int, *, boot: int = 1, size: int = 100, utility: float = 0.5, label: int = 0) -> Put:
    """A sample `dev.main.<boot>.<seq>` whose body is `size` bytes that depend on its number."""
    body = hashlib.sha256(b"%d.%d" % (boot, seq)).digest() * (size // 32 + 1)
    body = body[:size]
    selection = Selection(
        reason="informative",
        probability=0.5,
        utility=utility,
        novelty=1.0,
        threshold=0.4,
        tokens=3.0,
        strategy="margin",
    )
    header = SampleHeader(
        id=f"dev.main.{boot}.{seq}",
        ref="",
        captured_at_ms=0,
        dtype="uint8",
        shape=(size,),
        encoding="raw",
        body_bytes=size,
        body_sha256=hashlib.sha256(body).hexdigest(),
        label=label,
        confidence=0.5,
        model_version=1,
        selection=selection,
    )
    return Put(header, body)


def ids(found: list) -> list[str]:
    """Of what `peek` returns."""
    return [waiting.header.id for waiting in found]
