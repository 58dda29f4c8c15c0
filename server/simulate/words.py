"""What does a light device say?

Nothing of it is measured; all of it is of the kind and the size of what a real agent says, so that reading, storing and
adding it up costs the server what a real fleet costs: the histogram and the sums of a classifier of ten classes with
sixteen drift signals, a watched stream, a link.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from edge_agent.choose.signals import SCALARS
from edge_agent.choose.tally import BINS
from edge_agent.contract.types import Prediction, Sample, SampleId, Selection
from edge_agent.contract.wire import (
    Birth,
    Budgets,
    DriftState,
    Event,
    EventKind,
    Heartbeat,
    LinkState,
    ModelState,
    OutboxState,
    PaceState,
    SourceState,
    StreamCounts,
    encode_sample,
    sample_frames,
)

STREAM = "main"
CLASSES, DIRECTIONS = 10, 16
STEP = 100  # samples: counts are whole multiples, so that shares in percent come out even
_SHARES = (1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 8, 8, 6, 6)  # percent of the samples in each bin of utility
_SIGNALS = (STEP, 380_000, -1_200_000, 210_000, *(1_000 * (n - 7) for n in range(DIRECTIONS)))  # sums over STEP samples
_SELECTION = Selection(
    reason="informative", probability=0.25, floor=0.01, utility=0.7, novelty=1.0, threshold=0.6, tokens=9.0,
    strategy="margin",
)  # fmt: skip


class Self(NamedTuple):
    """Who speaks, and since when it runs."""

    name: str
    session: str
    boot: int
    interval_s: float  # between heartbeats


def birth(of: Self, model: ModelState, outbox: OutboxState, *, at_ms: int) -> Birth:
    """What is said on every connect."""
    return Birth(
        session=of.session,
        boot=of.boot,
        at_ms=at_ms,
        agent="simulated",
        runtime="onnxruntime 1.23.2 on cpu, python 3.11.2",
        machine="a light device of winnow-server simulate, aarch64, 4 cores",
        stream=STREAM,
        model=model,
        outbox=outbox,
        clock="synced",
        interval_s=of.interval_s,
    )


def heartbeat(
    of: Self, model: ModelState, outbox: OutboxState, *, read: int, uptime_s: float, at_ms: int, sent_bytes: int
) -> Heartbeat:
    """What is said every `interval_s`; `read`: samples since the start, in whole STEPs."""
    return Heartbeat(
        session=of.session,
        boot=of.boot,
        at_ms=at_ms,
        uptime_s=uptime_s,
        model=model,
        counts=_counts(read, model.version, outbox.put_total),
        outbox=outbox,
        samples_per_s=10.0,
        latency_p50_ms=12.5,
        latency_p95_ms=18.25,
        label_tokens=4.5,
        rss_bytes=96_000_000,
        cpu_share=0.18,
        temperature_c=51.5,
        drift=DriftState(
            epoch=1,
            watching=True,
            group_samples=50,
            statistic=3.25,
            threshold=9.5,
            recent={"confidence": 0.91, "energy": -4.25, "classes": 0.03, "embedding": 0.21},
            watched=read,
        ),
        link=LinkState(sent_bytes=sent_bytes, received_bytes=sent_bytes // 8, heartbeat_s=of.interval_s),
        budgets=Budgets(label_share=0.01),
        source=SourceState(kind="camera"),
        pace=PaceState(),
    )


def _counts(read: int, version: int, put: int) -> StreamCounts:
    steps = read // STEP
    bins = tuple(steps * share for share in _SHARES[:BINS])
    return StreamCounts(
        read=read,
        scored=read,
        invalid=0,
        selected={"informative": put},
        stream=STREAM,
        through_seq=read - 1,
        model_version=version,
        utility_histogram=bins,
        confidence_sums=tuple(0.9 * n for n in bins),
        classes=tuple(steps * STEP // CLASSES for _ in range(CLASSES)),
        signals=tuple(steps * total for total in _SIGNALS[: 1 + len(SCALARS) + DIRECTIONS]),
    )


def event(of: Self, n: int, kind: EventKind, text: str, version: int, *, at_ms: int) -> Event:
    """Something that a person may want to know."""
    return Event(session=of.session, boot=of.boot, n=n, at_ms=at_ms, kind=kind, text=text, model_version=version)


def sample_id(of: Self, seq: int) -> SampleId:
    """Of the sample with that number."""
    return SampleId(of.name, STREAM, of.boot, seq)


def sample_frame(of: Self, seq: int, version: int, *, body_bytes: int, at_ms: int) -> bytes:
    """The message of a sample: bytes that nothing makes smaller, the same ones whenever it is asked for."""
    id_ = sample_id(of, seq)
    pixels = np.frombuffer(hashlib.shake_128(str(id_).encode()).digest(body_bytes), np.uint8)
    sample = Sample(id_, "", at_ms, pixels, Prediction(seq % CLASSES, 0.5), _SELECTION, version)
    return sample_frames(*encode_sample(sample))[0]
