"""What do device and server say to each other, byte for byte?

Topics (MQTT 3.1.1 is the floor, nothing depends on more):

    winnow/1/<fleet>/<device>/up/{birth,death,sample,heartbeat,event,fetch}
    winnow/1/<fleet>/<device>/down/{desired,receipt,block}
    winnow/1/<fleet>/server/state

`sample` and `block` are frames: two bytes of header length (big endian), a msgpack header, a raw body.
Everything else is JSON, readable with mosquitto_sub. Unknown fields are ignored (a newer peer may add some);
anything else unexpected is a MessageError. Released formats decode for ever: see tests/golden.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract import images
from edge_agent.contract.encoding import Encoding, pack, unpack
from edge_agent.contract.errors import MessageError
from edge_agent.contract.task import Said
from edge_agent.contract.types import Sample, SampleId, Selection, is_name

ROOT = "winnow/1"
BODY_MAX_BYTES = 96 * 1024  # AWS IoT caps a message at 128 KB; header and topic need the rest
PART_MIN_BYTES = 1024  # smaller parts are mostly header
BLOCK_BYTES = 64 * 1024
HEADER_MAX_BYTES = 16 * 1024
FRAME_MAX_BYTES = 2 + HEADER_MAX_BYTES + BODY_MAX_BYTES
JSON_MAX_BYTES = 64 * 1024
SAMPLE_MAX_BYTES = 64 * 1024 * 1024  # of one decoded sample; a 4k RGB frame is 25 MB
FETCH_MAX_BLOCKS = 64  # of one request
PARCELS_MAX = 16  # of one assignment, for the same reason as REQUESTS_MAX
REQUESTS_MAX = 32  # open for one device: Desired must stay below JSON_MAX_BYTES
REQUEST_MAX_SAMPLES = 1000  # of one request, of each device
PURGES_MAX = 4  # of one order, for the same reason
PURGE_SAMPLES_MAX = 20  # that one of them names
TRANSFORMS_MAX = 16  # of one sample
PARKED_SHOWN = 3  # refused samples that a heartbeat names
DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64")
_ITEM_BYTES = {name: np.dtype(name).itemsize for name in DTYPES}

Transform = Annotated[str, msgspec.Meta(max_length=120)]
"""One that was applied, as the device's configuration names it."""

Up = Literal["birth", "death", "sample", "heartbeat", "event", "fetch"]
Down = Literal["desired", "receipt", "block"]
UP: tuple[Up, ...] = ("birth", "death", "sample", "heartbeat", "event", "fetch")
DOWN: tuple[Down, ...] = ("desired", "receipt", "block")


# --- topics ---------------------------------------------------------------------------------------------------------


class Address(NamedTuple):
    """A topic, taken apart."""

    fleet: str
    device: str
    direction: Literal["up", "down"]
    kind: str


def up_topic(fleet: str, device: str, kind: Up) -> str:
    """The topic on which a device says `kind`.

    >>> up_topic("demo", "cam-1", "sample")
    'winnow/1/demo/cam-1/up/sample'
    """
    return f"{ROOT}/{fleet}/{device}/up/{kind}"


def down_topic(fleet: str, device: str, kind: Down) -> str:
    """The topic on which a device is told `kind`."""
    return f"{ROOT}/{fleet}/{device}/down/{kind}"


def server_state_topic(fleet: str) -> str:
    """Where the server says that it is there (retained, and its will)."""
    return f"{ROOT}/{fleet}/server/state"


def up_filter(fleet: str) -> str:
    """What the server subscribes to."""
    return f"{ROOT}/{fleet}/+/up/+"


def probe_topic(fleet: str, name: str) -> str:
    """Where the server tries what a broker does; nobody else listens there."""
    return f"{ROOT}/{fleet}/server/probe/{name}"


@lru_cache(maxsize=8192)  # of a fleet's server, the same ones all the time
def parse_topic(topic: str) -> Address:
    """Take a device topic apart; MessageError when it is none."""
    parts = topic.split("/")
    if len(parts) == 6 and "/".join(parts[:2]) == ROOT and is_name(parts[2]) and is_name(parts[3]):
        fleet, device, direction, kind = parts[2:]
        if direction == "up" and kind in UP:
            return Address(fleet, device, "up", kind)
        if direction == "down" and kind in DOWN:
            return Address(fleet, device, "down", kind)
    raise MessageError(f"topic: got {topic[:120]!r}, expected {ROOT}/<fleet>/<device>/up|down/<kind>")


# --- device to server -----------------------------------------------------------------------------------------------

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
    classes: tuple[int, ...] = ()  # predicted, of every scored sample
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


class SampleHeader(msgspec.Struct, frozen=True, kw_only=True):
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


# --- server to device -----------------------------------------------------------------------------------------------


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """Fewer bytes that unpack to one of a version's files; what comes out is held against the file's own hash."""

    file_sha256: str  # that it unpacks to
    packing: str  # "zstd", or "bsdiff4" against `base_sha256`; one that a device does not know is passed over
    sha256: str  # of the bytes that travel
    bytes: int
    base_sha256: str = ""  # the file that is needed to unpack it; empty: none


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """The model a device should run: its manifest, by hash. The manifest names the rest."""

    version: int
    manifest_sha256: str
    manifest_bytes: int
    trust_sha256: str = ""  # of the bundle that vouches for the manifest (contract/trust.py); empty: it is not signed
    trust_bytes: int = 0
    url: str = ""  # https: its files can be had at <url>/<sha256>, with Range, as well; empty: as blocks alone
    parcels: tuple[Parcel, ...] = ()  # cheaper ways to its files, for whoever can use them

    def is_for_same(self, other: Assignment | None) -> bool:
        """Whether both want the same model, by whatever way it comes."""
        mine = (self.version, self.manifest_sha256, self.manifest_bytes)
        return other is not None and mine == (other.version, other.manifest_sha256, other.manifest_bytes)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody wants more samples like one; on top of the labels that the device may spend, within a day's limits."""

    id: int
    version: int  # of the model that the sketch belongs to; under another it means nothing
    sketch: tuple[float, ...]  # of the sample's embedding, as choose/wanted.py makes it
    similar: float  # least cosine
    count: int  # samples at most, of each device
    until_ms: int  # wall clock, ms since 1970


class Purge(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody wants something forgotten: it goes from the outbox, and the recent ring is emptied."""

    id: int  # only grows; the device says in its outbox's state up to which it has obeyed
    samples: tuple[str, ...] = ()  # ids; empty: all that the device has


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody wants samples to stay on the device for now. They go on being selected, into the outbox."""

    by: str
    at_ms: int  # wall clock of the server, ms since 1970; the device says by it which pause it obeys
    why: str = ""


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """Retained. What the server wants of a device; None leaves the device's own configuration in force."""

    revision: int  # only grows; a device ignores an older one
    model: Assignment | None = None
    label_share: float | None = None
    labels_per_day: float | None = None
    bytes_per_day: float | None = None
    acquisition: str | None = None
    strategy: str | None = None
    requests: tuple[Request, ...] = ()
    purges: tuple[Purge, ...] = ()
    pause: Pause | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of samples. Only this empties the outbox: a PUBACK speaks for the broker alone.

    refused: id -> reason; permanent, the device parks it and does not send it again. erased: those of them that are to
    be forgotten, and so are not kept parked either.
    """

    accepted: tuple[str, ...] = ()
    duplicate: tuple[str, ...] = ()
    refused: dict[str, str] = {}
    erased: tuple[str, ...] = ()


class BlockHeader(msgspec.Struct, frozen=True, kw_only=True):
    """One block of an artifact, or the reason why there is none."""

    sha256: str
    index: int
    total_bytes: int  # of the whole artifact
    error: str = ""


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """Retained; the will says offline."""

    online: bool
    at_ms: int


JsonMessage = Birth | Death | Heartbeat | Event | Fetch | Desired | Receipt | ServerState
J = TypeVar("J", Birth, Death, Heartbeat, Event, Fetch, Desired, Receipt, ServerState)
H = TypeVar("H", SampleHeader, BlockHeader)

_json_encoder = msgspec.json.Encoder()
_msgpack_encoder = msgspec.msgpack.Encoder()


def encode(message: JsonMessage) -> bytes:
    """Any message but the frames, as JSON."""
    return _json_encoder.encode(message)


def decode(kind: type[J], payload: bytes) -> J:
    """Read a JSON message. MessageError, and nothing else, when it is not one."""
    if len(payload) > JSON_MAX_BYTES:
        raise MessageError(f"{kind.__name__}: {len(payload)} bytes, at most {JSON_MAX_BYTES}")
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MessageError(f"{kind.__name__}: {error}") from error


def encode_frame(header: SampleHeader | BlockHeader, body: bytes | memoryview) -> bytes:
    """Header length, header, body."""
    head = _msgpack_encoder.encode(header)
    return b"".join((len(head).to_bytes(2, "big"), head, body))


def decode_frame(kind: type[H], payload: bytes) -> tuple[H, memoryview]:
    """Read a frame; the body is a view into `payload`. MessageError, and nothing else, when it is not one."""
    size = int.from_bytes(payload[:2], "big")
    if len(payload) > FRAME_MAX_BYTES:
        raise MessageError(f"{kind.__name__}: frame of {len(payload)} bytes, at most {FRAME_MAX_BYTES}")
    if len(payload) < 2 or size > HEADER_MAX_BYTES or size + 2 > len(payload):
        raise MessageError(f"{kind.__name__}: frame of {len(payload)} bytes announces a header of {size}")
    try:
        header = msgspec.msgpack.decode(payload[2 : 2 + size], type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MessageError(f"{kind.__name__}: {error}") from error
    return header, memoryview(payload)[2 + size :]


# --- samples --------------------------------------------------------------------------------------------------------


def encode_sample(sample: Sample, *, codec: images.Codec | None = None) -> tuple[SampleHeader, bytes]:
    """A sample as it is kept in the outbox: its header (of part 0 of 1) and its whole body.

    With a `codec`, what is an image goes as one, unless that is larger than its pixels.
    """
    encoding, body = _pack(sample.data, codec)
    header = SampleHeader(
        id=str(sample.id),
        ref=sample.ref[:200].encode("utf-8", "replace").decode(),  # a file name need not be UTF-8, the wire must
        captured_at_ms=sample.captured_at_ms,
        dtype=str(sample.data.dtype),
        shape=tuple(sample.data.shape),
        encoding=encoding,
        body_bytes=len(body),
        body_sha256=hashlib.sha256(body).hexdigest(),
        label=sample.prediction.label,
        confidence=sample.prediction.confidence,
        model_version=sample.model_version,
        selection=sample.selection,
        transforms=sample.transforms,
        said=sample.prediction.said,
    )
    return header, body


def _pack(data: NDArray[np.generic], codec: images.Codec | None) -> tuple[Encoding | images.Kind, bytes]:
    if codec is not None and images.is_image(data.shape, str(data.dtype), codec.kind):
        image = images.encode_image(data, codec)
        if len(image) < data.nbytes:
            return codec.kind, image
    return pack(data)


def part_size(body_bytes: int, parts: int) -> int:
    """Bytes of every part but the last of a body: as many as fit if there are no more parts than needed, else even.

    >>> part_size(200_000, 3), part_size(200_000, 10)
    (98304, 20000)
    """
    return BODY_MAX_BYTES if parts == -(-body_bytes // BODY_MAX_BYTES) else -(-body_bytes // parts)


def sample_frames(header: SampleHeader, body: bytes, *, part_bytes: int = BODY_MAX_BYTES) -> list[bytes]:
    """The messages that carry a sample: one, or as few as have no more than `part_bytes` of its body each.

    part_bytes: 2 * PART_MIN_BYTES .. BODY_MAX_BYTES.
    """
    parts = max(1, -(-len(body) // part_bytes))
    parts += parts > 1 and part_size(len(body), parts) > part_bytes  # as few as needed would be cut unevenly
    size = part_size(len(body), parts)
    view = memoryview(body)
    return [
        encode_frame(msgspec.structs.replace(header, part=i, parts=parts), view[i * size : (i + 1) * size])
        for i in range(parts)
    ]


def check_sample_header(header: SampleHeader, address: Address) -> SampleId:
    """Hold a header against the topic it came by and against the limits; returns its id. MessageError otherwise."""
    sample_id = SampleId.parse(header.id)
    if sample_id.device != address.device:
        raise MessageError(f"sample {header.id}: came by the topic of device {address.device!r}")
    if header.dtype not in DTYPES:
        raise MessageError(f"sample {header.id}: dtype {header.dtype[:20]!r}, expected one of {', '.join(DTYPES)}")
    if len(header.shape) > 6 or min(header.shape, default=1) < 1 or decoded_bytes(header) > SAMPLE_MAX_BYTES:
        raise MessageError(f"sample {header.id}: shape {header.shape[:8]} of {header.dtype} is empty or too large")
    if header.encoding in images.KINDS and not images.is_image(header.shape, header.dtype, header.encoding):
        raise MessageError(f"sample {header.id}: {header.encoding}, but {header.shape} of {header.dtype} is no image")
    fewest = max(1, -(-header.body_bytes // BODY_MAX_BYTES))
    most = max(fewest, header.body_bytes // PART_MIN_BYTES)
    in_range = fewest <= header.parts <= most and 0 <= header.part < header.parts
    if not (0 < header.body_bytes <= SAMPLE_MAX_BYTES and in_range):
        raise MessageError(
            f"sample {header.id}: part {header.part} of {header.parts} of {header.body_bytes} bytes: expected "
            f"{fewest} to {most} parts"
        )
    said = header.selection
    if not all(map(math.isfinite, (header.confidence, said.utility, said.novelty, said.threshold, said.tokens))):
        raise MessageError(f"sample {header.id}: confidence or selection not finite")
    if not (0.0 < said.probability <= 1.0 and 0.0 <= said.floor <= said.probability):
        raise MessageError(
            f"sample {header.id}: probability {said.probability} with a floor of {said.floor}: expected "
            "0 < probability <= 1 and 0 <= floor <= probability"
        )
    if said.shadow_probability is not None and not 0.0 < said.shadow_probability <= 1.0:
        raise MessageError(f"sample {header.id}: shadow_probability {said.shadow_probability}: expected 0 < it <= 1")
    return sample_id


def decoded_bytes(header: SampleHeader) -> int:
    """Bytes of the array that the header describes."""
    return math.prod(header.shape, start=_ITEM_BYTES[header.dtype])


def decode_body(header: SampleHeader, body: bytes) -> NDArray[np.generic]:
    """The array of a whole body. MessageError when length, hash or encoding is off; never inflates past the shape.

    The header is one that check_sample_header let pass: it bounds the shape and knows the dtype.
    """
    check_whole(header, body)
    encoding = header.encoding
    try:
        if encoding == "png" or encoding == "jpeg" or encoding == "webp":  # images.KINDS, in words that mypy reads
            return images.decode_image(body, encoding, header.shape)
        return unpack(encoding, body, dtype=header.dtype, shape=header.shape)
    except MessageError as error:
        raise MessageError(f"sample {header.id}: {error}") from error


def check_whole(header: SampleHeader, body: bytes) -> None:
    """MessageError unless all of the body is there, and none of it changed."""
    if len(body) != header.body_bytes or hashlib.sha256(body).hexdigest() != header.body_sha256:
        raise MessageError(f"sample {header.id}: body of {len(body)} bytes does not match its header's length and hash")
