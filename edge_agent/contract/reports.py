"""What does a device say to its server?"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge_agent.contract import images
from edge_agent.contract.encoding import Encoding
from edge_agent.contract.limits import TRANSFORMS_MAX
from edge_agent.contract.task import Said
from edge_agent.contract.types import Selection

Transform = Annotated[str, msgspec.Meta(max_length=120)]
"""One that was applied, as the device's configuration names it."""

Slot = Literal["steady", "staged", "trial", "none"]
Held = Literal["", "quiet", "metered", "budget", "paused"]


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime is executing now (not what it was told to)."""

    version: int
    sha256: str  # of the ONNX file
    slot: Slot
    refused: dict[int, str] = {}  # versions this device will not run -> why
    fetching: int = 0  # version on its way, 0 when none
    fetched_share: float = 0.0
    trying: int = (
        0  # version on trial, 0 when none: beside `version` while `slot` is "staged", live while it is "trial"
    )
    tried: int = 0  # samples that it has seen so
    tried_share: float = 0.0  # how far that is, 0..1
    provider: str = ""  # that executes it: "cpu", "cuda" ...; empty: an older agent, or no model yet


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """The newest order to purge that was obeyed: nothing of what it spoke of is left.

    What the device takes later comes after (boot, seq).
    """

    id: int
    boot: int
    seq: int = -1  # of the last sample put into the outbox in that boot; -1: none
    samples: int = 0  # that went from the outbox for it


class OutboxState(msgspec.Struct, frozen=True, kw_only=True):
    """How full the outbox is, and every sample that left it other than by a receipt."""

    rows: int
    bytes: int
    oldest_age_s: float = 0.0
    evicted: dict[str, int] = {}  # reason -> samples, since the outbox was made
    parked: int = 0  # refused by the server for good, kept to be looked at
    put_total: int = 0  # samples put since the outbox was made
    acked_total: int = 0
    storing: bool = True  # False while the disk is full
    since_boot: int = 0  # in which these counts began; later than the first when an outbox was lost. 0: not known
    refusals: dict[str, str] = {}  # of the newest parked samples: id -> reason, PARKED_SHOWN at most
    purged: Purged | None = None  # None: it was never told to


class LinkState(msgspec.Struct, frozen=True, kw_only=True):
    """What travelled since the agent's start, in bytes of MQTT messages, and why samples wait."""

    sent_bytes: int
    received_bytes: int
    day_tokens: float | None = None  # left of the day's bytes that may go at once; None: no limit a day
    held: Held = ""  # quiet hours, a link that costs, the day's bytes are spent, or an operator said so
    heartbeat_s: float = 0.0  # longest time to the next heartbeat; 0: as the birth says
    paused_ms: int = 0  # `at_ms` of the pause that is obeyed; 0: none


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """Said on every connect."""

    session: str
    boot: int
    at_ms: int
    agent: str  # version of the agent
    runtime: str  # onnxruntime and python
    machine: str
    stream: str
    model: ModelState
    outbox: OutboxState
    clock: Literal["synced", "unknown"] = "unknown"
    interval_s: float = 30.0  # between heartbeats


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """The will. A server ignores one that is not of the current session: it may overtake the next birth."""

    session: str


class StreamCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of every sample, since `boot`. read = scored + invalid; scored = selected + unsent.

    The server reads the sums over every scored sample. Those over unsent ones say to whoever listens to heartbeats
    alone what a device passes over; they stay, as released servers and programs may read them.
    """

    read: int
    scored: int
    invalid: int  # not finite, or logits not finite: counted, never selected
    selected: dict[str, int]  # by reason
    unsent_confidence_sum: float = 0.0  # of scored samples that were not selected
    unsent_utility_histogram: tuple[int, ...] = ()  # of the same; equal bins over 0..1
    unsent_classes: tuple[int, ...] = ()  # of the same, predicted class counts
    stream: str = ""  # empty: an older agent, whose counts cannot be told apart by samples
    through_seq: int = -1  # of the last sample counted; the counts are of all up to it since `boot`
    model_version: int = 0  # whose samples were counted last
    epoch: int = 0  # models that gave way since `boot`: counts of one epoch are of one model
    utility_histogram: tuple[int, ...] = ()  # of every scored sample, in the same bins
    confidence_sums: tuple[float, ...] = ()  # of the samples in each bin
    classes: tuple[int, ...] = ()  # predicted, of every scored sample; not counted where a model has more than 2,000
    signals: tuple[int, ...] = ()  # samples, then sums over them, in 1/4096: confidence, energy, distance, z_1 .. z_K
    recalled: int = 0  # sent on request out of the recent ring; when they were read they counted as unsent


class DriftState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the stream is as it was. An alarm goes when `statistic` reaches `threshold`, both in samples.

    The offsets say how far the stream's own level is from what the manifest expects, so that drift shows which was
    there from the beginning; `differs` names the signals for which that is sure and large enough to matter.
    """

    epoch: int  # counts levels: after a model change or an alarm a new one is learned
    watching: bool  # False while a level is learned, when nothing can be seen
    group_samples: int  # samples that are judged as one
    statistic: float
    threshold: float
    recent: dict[str, float] = {}  # signal -> what it reads of late; embedding (sd), classes: how far from the level
    confidence_offset: float = 0.0  # mean, less the manifest's
    classes_offset: float = 0.0  # total variation, 0..1
    embedding_offset: float = 0.0  # length of the difference, in sd; less what the mix of classes and chance explain
    energy_offset: float = 0.0  # in sd; 0 when the manifest does not state it
    differs: tuple[str, ...] = ()
    watched: int = 0  # samples held against the level so far


class RequestState(msgspec.Struct, frozen=True, kw_only=True):
    """How a device does with a request. `found` counts what it sent for it, `recalled` those out of its ring."""

    id: int
    version: int  # of the model that the sketch belongs to
    looking: bool
    why: str = ""  # it is not looking
    found: int = 0
    recalled: int = 0
    taken: int = 0  # matches that the selector sent of its own accord
    searched: int | None = None  # recent samples that were compared; None: not yet
    unsearchable: int = 0  # recent samples of other versions, which cannot be


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force: the server's word over the file's. Of `label_share`, over-selection included."""

    label_share: float
    labels_per_day: float = 0.0  # 0: no limit
    bytes_per_day: float = 0.0  # 0: no limit
    complaint: str = ""  # what of the desired cannot be


class SourceState(msgspec.Struct, frozen=True, kw_only=True):
    """How the source does, since the agent's start."""

    kind: str
    skipped: int = 0  # samples that newer ones took the place of, the model being busy
    gaps: int = 0  # pauses of the sensor, after which a new window began
    unreadable: int = 0  # lines, messages, images or requests that held no sample
    restarts: int = 0  # times that it failed and was opened again
    failing: str = ""  # why it gives nothing now; empty: it does


class PaceState(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the device takes samples."""

    max_rate_per_s: float = 0.0  # by its configuration; 0: no limit
    share: float = 1.0  # of its time that it works; less than 1 while the machine is too hot
    why: str = ""  # that is


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Said every `interval_s`: enough to draw a device."""

    session: str
    boot: int
    at_ms: int
    uptime_s: float
    model: ModelState
    counts: StreamCounts
    outbox: OutboxState
    samples_per_s: float
    latency_p50_ms: float = 0.0
    latency_p95_ms: float = 0.0
    label_tokens: float = 0.0
    byte_tokens: float | None = None  # None: no byte budget
    rss_bytes: int = 0
    cpu_share: float = 0.0  # of one core, 0..n
    temperature_c: float | None = None
    messages_bad: int = 0  # from the server, undecodable
    drift: DriftState | None = None  # None: not watched
    cuts: tuple[StreamCounts, ...] = ()  # as they stood when the last models gave way, oldest first
    requests: tuple[RequestState, ...] = ()
    link: LinkState | None = None  # None: an older agent
    budgets: Budgets | None = None  # None: an older agent
    source: SourceState | None = None  # None: an older agent, or somebody's own loop
    pace: PaceState | None = None  # as source


EventKind = Literal["refused", "staged", "trial", "commit", "revert", "alarm", "error", "started", "stopped"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person may want to know. `n` counts on within a boot, so that a gap shows."""

    session: str
    boot: int
    n: int
    at_ms: int
    kind: EventKind
    text: str
    model_version: int = 0
    detail: dict[str, str | int | float] = {}


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    """A device asks for blocks of an artifact by its hash."""

    sha256: str
    blocks: tuple[int, ...]


class SampleHeader(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What stands before a sample's bytes. One larger than BODY_MAX_BYTES goes in `parts`, each with this header.

    A slow link sends more and smaller parts than needed; `part_size` says how large they are.
    """

    id: str
    ref: str
    captured_at_ms: int
    dtype: str
    shape: tuple[int, ...]
    encoding: Encoding | images.Kind  # see edge_agent/contract/encoding.py and images.py
    body_bytes: int  # of the whole body as encoded, all parts
    body_sha256: str  # of the same
    label: int
    confidence: float
    model_version: int
    selection: Selection
    part: int = 0
    parts: int = 1
    transforms: Annotated[tuple[Transform, ...], msgspec.Meta(max_length=TRANSFORMS_MAX)] = ()  # for privacy, in order
    said: Said | None = None  # beyond label and confidence; None: of a classifier
