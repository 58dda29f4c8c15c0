"""What did a device say?

Pure: a message in, one of five values out. Nothing that comes by the network is trusted before it passed here, and
nothing that comes can raise.

    Upload   a whole sample whose body was checked
    Picture  a whole sample that came as an image: its header and hash were checked, its pixels not (prover.py)
    Piece    a part of a larger one, its own length checked
    Said     birth, death, heartbeat, event or fetch
    Bad      everything else, with the reason; with a sample id where one was readable, so that it can be refused
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from edge_agent.choose.signals import LARGEST, SCALARS
from edge_agent.choose.tally import BINS
from edge_agent.contract import task
from edge_agent.contract.errors import MessageError
from edge_agent.contract.images import KINDS
from edge_agent.contract.types import SampleId, is_name
from edge_agent.contract.wire import (
    Address,
    Birth,
    Death,
    Event,
    Fetch,
    Heartbeat,
    OutboxState,
    SampleHeader,
    StreamCounts,
    check_sample_header,
    check_whole,
    decode,
    decode_body,
    decode_frame,
    parse_topic,
    part_size,
)
from server.store.devices import LONGEST_BEAT_S

ID_MAX_CHARS = 190
_INT4 = 2**31
_INT8 = 2**63
_LIMITS = {"boot": _INT8, "at_ms": _INT8, "captured_at_ms": _INT8, "n": _INT4, "label": _INT4, "model_version": _INT4}
"""Integers that have a column of their own must fit into it: the decoder takes larger ones."""
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""As JSON writes the character that no text in PostgreSQL may hold; after backslashes in pairs it is none."""
_LONG = re.compile(rb"[0-9]{19}")
"""As many digits as a number of 64 bits may just have: with fewer, none in a message is larger."""
_SESSION_MAX_CHARS = 64
_CLASSES_MAX = 10_000  # more than a heartbeat has room for beside the rest
_SIGNALS_MAX = 1 + len(SCALARS) + LARGEST

Word = Birth | Death | Heartbeat | Event | Fetch


class Message(NamedTuple):
    """As it came from the broker."""

    topic: str
    payload: bytes
    received_ms: int


class Upload(NamedTuple):
    """A whole sample."""

    message: Message
    device: str
    id: SampleId
    header: SampleHeader
    body: bytes


class Picture(NamedTuple):
    """A whole sample whose body says that it is an image."""

    message: Message
    device: str
    id: SampleId
    header: SampleHeader
    body: bytes


class Piece(NamedTuple):
    """A part of a sample."""

    message: Message
    device: str
    id: SampleId
    header: SampleHeader
    data: bytes


class Said(NamedTuple):
    """Anything but a sample."""

    message: Message
    device: str
    word: Word


class Bad(NamedTuple):
    """Not of the wire format. device: "" when not even the topic was. sample_id: "" when there was none."""

    message: Message
    device: str
    reason: str
    sample_id: str = ""


Heard = Upload | Picture | Piece | Said | Bad


def hear(message: Message, *, fleet: str) -> Heard:
    """Take a message apart."""
    try:
        address = parse_topic(message.topic)
        if address.fleet != fleet or address.direction != "up":
            raise MessageError(f"topic: got {message.topic[:120]!r}, expected one of fleet {fleet!r}, upward")
    except MessageError as error:
        return Bad(message, "", str(error))
    if address.kind == "sample":
        return _hear_sample(message, address)
    try:
        return Said(message, address.device, _word(address.kind, message.payload))
    except MessageError as error:
        return Bad(message, address.device, str(error))


def check_body(
    message: Message, device: str, sample_id: SampleId, header: SampleHeader, body: bytes
) -> Upload | Picture | Bad:
    """Take a whole body in, whatever messages it came by: it is what its header says, every number in it finite."""
    try:
        if header.encoding in KINDS:
            check_whole(header, body)
            return Picture(message, device, sample_id, header, body)
        array = decode_body(header, body)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise MessageError(f"sample {header.id}: not finite")
    except MessageError as error:
        return Bad(message, device, str(error), header.id)
    return Upload(message, device, sample_id, header, body)


def _hear_sample(message: Message, address: Address) -> Upload | Picture | Piece | Bad:
    try:
        header, view = decode_frame(SampleHeader, message.payload)
    except MessageError as error:
        return Bad(message, address.device, str(error), _readable_id(message.payload))
    try:
        sample_id = _check_header(header, address)
        data = bytes(view)
        if header.parts > 1:
            _check_piece(header, data)
            return Piece(message, address.device, sample_id, header, data)
        return check_body(message, address.device, sample_id, header, data)
    except MessageError as error:
        return Bad(message, address.device, str(error), header.id if len(header.id) <= ID_MAX_CHARS else "")


class _Named(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(max_length=ID_MAX_CHARS)]


def _readable_id(payload: bytes) -> str:
    """Of a sample whose header is otherwise wrong; "" when there is none. Unanswered, it would come for ever."""
    try:
        return msgspec.msgpack.decode(payload[2 : 2 + int.from_bytes(payload[:2], "big")], type=_Named).id
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ""


def _check_header(header: SampleHeader, address: Address) -> SampleId:
    sample_id = check_sample_header(header, address)
    _check_integers(header)
    texts = (header.ref, header.selection.strategy, header.selection.acquisition, *header.transforms)
    if any("\0" in text for text in texts):
        raise MessageError(f"sample {header.id}: a text holds the character NUL")
    if sample_id.boot >= _INT8 or sample_id.seq >= _INT8:
        raise MessageError(f"sample {header.id}: boot or sequence is too large")
    if not 0.0 <= header.confidence <= 1.0:
        raise MessageError(f"sample {header.id}: confidence {header.confidence}, expected 0..1")
    if header.said is not None:
        _check_said(header.id, header.said)
    return sample_id


def _check_said(sample_id: str, said: task.Said) -> None:
    """Of one task, every number finite, every class a model may have, each at most once but for boxes.

    Lengths and ranges are the decoder's; which classes a version has, only who reads the samples knows.
    """
    every: list[Any] = [*said.boxes, *said.applies, *said.values]
    if len({type(one) for one in every}) > 1:
        raise MessageError(f"sample {sample_id}: said: boxes, applies and values together, expected one of them")
    for one in every:
        numbers = msgspec.structs.astuple(one)
        if not all(map(math.isfinite, numbers)):
            raise MessageError(f"sample {sample_id}: said: {numbers} is not finite")
        if one.label >= _CLASSES_MAX:
            raise MessageError(f"sample {sample_id}: said: class {one.label}, expected below {_CLASSES_MAX}")
    indices = [one.label for one in every if not isinstance(one, task.Box)]
    if len(set(indices)) < len(indices):
        raise MessageError(f"sample {sample_id}: said: a class or target comes twice")


def _check_piece(header: SampleHeader, data: bytes) -> None:
    size = part_size(header.body_bytes, header.parts)
    expected = max(0, min(size, header.body_bytes - header.part * size))
    if len(data) != expected:
        raise MessageError(f"sample {header.id}: part {header.part} of {len(data)} bytes, expected {expected}")


def _word(kind: str, payload: bytes) -> Word:
    word: Word
    if _NUL.search(payload):
        raise MessageError(f"{kind}: a text holds the character NUL")
    if kind == "birth":
        word = decode(Birth, payload)
    elif kind == "death":
        word = decode(Death, payload)
    elif kind == "heartbeat":
        word = decode(Heartbeat, payload)
    elif kind == "event":
        word = decode(Event, payload)
    else:
        word = decode(Fetch, payload)
    _check_integers(word)
    if _LONG.search(payload) and not _fits(msgspec.to_builtins(word)):
        raise MessageError(f"{kind}: a whole number does not fit 64 bits")
    if isinstance(word, Birth | Heartbeat):
        _check_outbox(word.outbox)
        if not 0 <= word.model.version < _INT4:
            raise MessageError(f"{kind}: model.version {str(word.model.version)[:24]}, expected 0..{_INT4 - 1}")
    beat_s = word.interval_s if isinstance(word, Birth) else _promised_s(word)
    if not 0.0 <= beat_s <= LONGEST_BEAT_S:
        raise MessageError(f"{kind}: {beat_s:g} s to the next heartbeat, expected 0..{LONGEST_BEAT_S:g}")
    if isinstance(word, Heartbeat):
        for counts in (*word.cuts, word.counts):
            _check_counts(counts)
    if len(getattr(word, "session", "")) > _SESSION_MAX_CHARS:
        raise MessageError(f"{kind}: session is longer than {_SESSION_MAX_CHARS} characters")
    return word


def _promised_s(word: Word) -> float:
    return word.link.heartbeat_s if isinstance(word, Heartbeat) and word.link is not None else 0.0


def _check_outbox(outbox: OutboxState) -> None:
    """Its counts are held against what is stored."""
    whole = (outbox.rows, outbox.parked, outbox.put_total, outbox.acked_total, outbox.since_boot)
    if not all(0 <= n < _INT8 for n in (*whole, sum(outbox.evicted.values()), *outbox.evicted.values())):
        raise MessageError("outbox: a count is below 0 or does not fit 64 bits")
    purged = outbox.purged
    if purged is not None and not all(0 <= n < _INT8 for n in (purged.id, purged.boot, purged.seq + 1)):
        raise MessageError("outbox: purged: a number is below 0 or does not fit 64 bits")


def _check_counts(counts: StreamCounts) -> None:
    """They are added to what is stored, and to what other devices say: numbers that fit, of a stream that may be."""
    whole = (
        counts.read,
        counts.scored,
        counts.invalid,
        counts.epoch,
        counts.through_seq + 1,
        *counts.selected.values(),
        *counts.utility_histogram,
        *counts.classes,
        *counts.signals[:1],
    )
    if min(whole) < 0 or max(whole) >= _INT8 or not 0 <= counts.model_version < _INT4:
        raise MessageError(f"heartbeat: a count is below 0 or does not fit 64 bits, through_seq {counts.through_seq}")
    if counts.signals and not (min(counts.signals) > -_INT8 and max(counts.signals) < _INT8):
        raise MessageError("heartbeat: a sum of signals does not fit 64 bits")
    if counts.confidence_sums and not (min(counts.confidence_sums) >= 0.0 and max(counts.confidence_sums) < _INT8):
        raise MessageError("heartbeat: confidence_sums: expected finite numbers from 0 on")
    bins, sums = len(counts.utility_histogram), len(counts.confidence_sums)
    if bins != sums or bins > BINS:
        raise MessageError(
            f"heartbeat: {bins} bins in utility_histogram and {sums} in confidence_sums, "
            f"expected as many in both, {BINS} at most"
        )
    for name, limit in (("classes", _CLASSES_MAX), ("signals", _SIGNALS_MAX)):
        if len(getattr(counts, name)) > limit:
            raise MessageError(f"heartbeat: {name} has {len(getattr(counts, name))} entries, expected {limit} at most")
    if counts.stream and not is_name(counts.stream):
        raise MessageError(f"heartbeat: stream {counts.stream[:80]!r} is no name")


def _check_integers(message: msgspec.Struct) -> None:
    for name, limit in _LIMITS.items():
        value = getattr(message, name, 0)
        if not 0 <= value < limit:
            raise MessageError(f"{type(message).__name__}: {name} {str(value)[:24]}, expected 0..{limit - 1}")


def _fits(value: object) -> bool:
    """Whether every whole number in it fits 64 bits; no deeper than the wire's structures are."""
    if isinstance(value, dict):
        return all(_fits(key) and _fits(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(map(_fits, value))
    return not isinstance(value, int) or -_INT8 <= value < _INT8
