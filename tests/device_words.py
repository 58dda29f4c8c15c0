"""What a device would say, for the tests of the server: built with the device's own half of the contract."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.types import Prediction, Sample, SampleId, Selection
from edge_agent.contract.wire import (
    Birth,
    Event,
    Heartbeat,
    ModelState,
    OutboxState,
    Receipt,
    StreamCounts,
    encode_sample,
    sample_frames,
    up_topic,
)
from server.collect.inbound import Message

FLEET = "test"
NOW_MS = 1_790_000_000_000

MODEL = ModelState(version=1, sha256="00", slot="steady", refused={3: "its golden outputs differ"})
OUTBOX = OutboxState(rows=0, bytes=0, evicted={"rows": 2})


def message(device: str, kind: str, payload: bytes, *, at_ms: int = NOW_MS) -> Message:
    return Message(up_topic(FLEET, device, kind), payload, at_ms)


def image(seed: int, shape: tuple[int, ...] = (6, 6)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


SELECTION = Selection(
    reason="informative",
    probability=0.25,
    floor=0.01,
    utility=0.7,
    novelty=1.0,
    threshold=0.6,
    tokens=9.0,
    strategy="margin",
)


def sample(device: str, seq: int, *, boot: int = 1, data: NDArray[np.generic] | None = None) -> Sample:
    return Sample(
        SampleId(device, "main", boot, seq),
        f"row {seq}",
        NOW_MS - 5,
        image(seq) if data is None else data,
        Prediction(3, 0.5),
        SELECTION,
        1,
    )


def frames(
    device: str, seq: int, *, boot: int = 1, data: NDArray[np.generic] | None = None, **changes: object
) -> list[bytes]:
    """The messages of a sample; `changes` to its header are what a device should not say."""
    header, body = encode_sample(sample(device, seq, boot=boot, data=data))
    return sample_frames(msgspec.structs.replace(header, **changes), body)


def uploads(device: str, seq: int, **how: object) -> list[Message]:
    return [message(device, "sample", frame) for frame in frames(device, seq, **how)]


def birth(session: str, *, boot: int = 1, outbox: OutboxState = OUTBOX) -> Birth:
    return Birth(
        session=session,
        boot=boot,
        at_ms=NOW_MS,
        agent="0",
        runtime="r",
        machine="m",
        stream="main",
        model=MODEL,
        outbox=outbox,
    )


def heartbeat(session: str, *, boot: int = 1, uptime_s: float = 5.0, outbox: OutboxState = OUTBOX) -> Heartbeat:
    return Heartbeat(
        session=session,
        boot=boot,
        at_ms=NOW_MS,
        uptime_s=uptime_s,
        model=MODEL,
        counts=StreamCounts(read=10, scored=10, invalid=0, selected={"informative": 1}),
        outbox=outbox,
        samples_per_s=2.0,
    )


def event(n: int, *, boot: int = 1, at_ms: int = NOW_MS) -> Event:
    return Event(
        session="a", boot=boot, n=n, at_ms=at_ms, kind="alarm", text="the lens is dirty", detail={"score": 3.5}
    )


def answers(receipts: list[tuple[str, Receipt]]) -> dict[str, str]:
    """Sample id -> what its device was told."""
    told: dict[str, str] = {}
    for _, receipt in receipts:
        told |= dict.fromkeys(receipt.accepted, "accepted") | dict.fromkeys(receipt.duplicate, "duplicate")
        told |= dict.fromkeys(receipt.refused, "refused")
    return told
