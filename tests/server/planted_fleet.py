"""A fleet whose world is known: real signals of a real (if synthetic) classifier, told in real heartbeats.

C classes are Gaussian clouds in D dimensions; the model is the one that is right about them, so that it is calibrated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from device_words import FLEET, NOW_MS, heartbeat, message
from quadrants import ARTIFACT

from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.drift import MONTH_S, Watch
from edge_agent.choose.signals import Signals
from edge_agent.choose.tally import Tally
from edge_agent.contract.artifact import Manifest, OnnxFile, Tensor, encode_manifest, read_artifact, sha256_hex
from edge_agent.contract.wire import encode
from server.collect.ingest import Ingest
from server.store import references, versions
from server.store.references import Reference
from server.store.spans import SPAN_MS
from server.store.store import Store

D, C = 12, 6
CENTRES = np.random.default_rng(3).normal(size=(C, D)) * 0.75
EVEN = np.full(C, 1 / C)
NAMES = tuple("abcdef")
SCORER = Scorer("margin")
AT_ONCE = 4  # hours to one commit: the disk is what takes time here

Rng = np.random.Generator
World = Callable[[str, int, np.ndarray, Rng], np.ndarray]
"""(device, hour, embedding (n, D), generator) -> what the sensor makes of it."""
Mix = Callable[[str, int], np.ndarray]
"""(device, hour) -> class shares."""


def clear(_device: str, _hour: int, x: np.ndarray, _rng: Rng) -> np.ndarray:
    return x


def even(_device: str, _hour: int) -> np.ndarray:
    return EVEN


def logits_of(x: np.ndarray) -> np.ndarray:
    return (x @ CENTRES.T - 0.5 * np.square(CENTRES).sum(axis=1)).astype(np.float32)


def draw(rng: Rng, count: int, shares: np.ndarray = EVEN) -> tuple[np.ndarray, np.ndarray]:
    """(embedding (n, D) float32, truth (n,))."""
    y = rng.choice(C, count, p=shares)
    return (CENTRES[y] + rng.normal(size=(count, D))).astype(np.float32), y


def manifest() -> Manifest:
    shipped, onnx = read_artifact(ARTIFACT)
    spread = np.sqrt(1.0 + CENTRES.var(axis=0))
    described = msgspec.structs.replace(
        shipped.reference,
        embedding_mean=Tensor.of(CENTRES.mean(axis=0).astype(np.float32)),
        embedding_sd=Tensor.of(spread.astype(np.float32)),
        whitening=Tensor.of(np.diag(1.0 / spread).astype(np.float32)),
        class_share=tuple(EVEN.tolist()),
    )
    file = OnnxFile(sha256=sha256_hex(onnx), bytes=len(onnx))
    return msgspec.structs.replace(
        shipped, version=1, classes=NAMES, reference=described, temperature=1.0, files={"cpu-int8": file}
    )


def publish(store: Store, one: Manifest) -> None:
    data = encode_manifest(one)
    _, onnx = read_artifact(ARTIFACT)
    store.blobs.put(onnx)
    made = versions.Version(1, one.name, 0, "", None, store.blobs.put(data), len(data), NOW_MS, "", {})
    with store.database.write() as connection:
        versions.insert(connection, made)


def make_reference(store: Store, one: Manifest, *, count: int = 2000, seed: int = 99) -> None:
    x, y = draw(np.random.default_rng(seed), count)
    logits = logits_of(x)
    rows = Signals(one.reference, temperature=1.0, embedding=True).rows(SCORER.score(logits), logits, x, count=count)
    made = Reference(rows.values, rows.labels.astype(np.int64), y)
    references.put(store, one.variant("cpu-int8").sha256, made, now_ms=NOW_MS)


class Device:
    """The parts of an agent that look at samples, over a stream that is made up."""

    def __init__(self, name: str, one: Manifest, *, seed: int) -> None:
        self.name = name
        self._rng = np.random.default_rng(seed)
        self._watch = Watch(one, false_alarms_per_month=MONTH_S / 1e6, embedding=True)
        self._tally = Tally(stream="main", version=1, classes=C)
        self._seq = 0
        self.right = self.seen = 0

    def live(self, hour: int, count: int, world: World, mix: Mix) -> bytes:
        """Look at `count` samples; the heartbeat that follows."""
        x, y = draw(self._rng, count, mix(self.name, hour))
        x = world(self.name, hour, x, self._rng).astype(np.float32)
        logits = logits_of(x)
        scored = SCORER.score(logits)
        self._seq += count
        self._tally.count(scored, [], count=count, through_seq=self._seq - 1)
        self._watch.pass_time(count)
        self._watch.look(scored, logits, x, count=count)
        self._tally.add_signals(self._watch.latest)
        self.right += int((scored.label == y).sum())
        self.seen += count
        said = heartbeat(self.name)
        return encode(msgspec.structs.replace(said, counts=self._tally.counts(), drift=self._watch.state))


def live(
    store: Store,
    one: Manifest,
    *,
    devices: int,
    hours: int,
    samples: int = 120,
    world: World = clear,
    mix: Mix = even,
    seed: int = 0,
) -> Iterator[tuple[int, list[Device]]]:
    """Let a fleet live through ingest, a heartbeat an hour; yields the time whenever AT_ONCE hours were taken in."""
    fleet = [Device(f"cam-{i}", one, seed=1000 * seed + i) for i in range(devices)]
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    begin_ms = NOW_MS // SPAN_MS * SPAN_MS
    for first in range(0, hours, AT_ONCE):
        said = [
            message(
                device.name,
                "heartbeat",
                device.live(hour, samples, world, mix),
                at_ms=begin_ms + hour * SPAN_MS + SPAN_MS // 2,
            )
            for hour in range(first, first + AT_ONCE)
            for device in fleet
        ]
        ingest.take(said)
        yield begin_ms + (first + AT_ONCE) * SPAN_MS, fleet
