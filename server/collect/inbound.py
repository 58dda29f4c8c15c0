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
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from edge_agent.contract import task
from edge_agent.contract.errors import MessageError
from edge_agent.contract.images import KINDS
from edge_agent.contract.types import SampleId
from edge_agent.contract.wire import (
    Address,
    SampleHeader,
    check_sample_header,
    check_whole,
    decode_body,
    decode_frame,
    parse_topic,
    part_size,
)
from server.collect.words import CLASSES_MAX, INT8, Word, check_integers, word_of

ID_MAX_CHARS = 190


Body = bytes | memoryview
"""A view is of the message that it came in: to copy 20 KB takes as long as to hash them, where memory is new."""


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
    body: Body


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
        return Said(message, address.device, word_of(address.kind, message.payload))
    except MessageError as error:
        return Bad(message, address.device, str(error))


def check_body(
    message: Message, device: str, sample_id: SampleId, header: SampleHeader, body: Body
) -> Upload | Picture | Bad:
    """Take a whole body in, whatever messages it came by: it is what its header says, every number in it finite."""
    try:
        if header.encoding in KINDS:
            check_whole(header, body)
            return Picture(message, device, sample_id, header, bytes(body))
        array = decode_body(header, body)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise MessageError(f"sample {header.id}: not finite")
    except MessageError as error:
        return Bad(message, device, str(error), header.id)
    return Upload(message, device, sample_id, header, body)


def _hear_sample(message: Message, address: Address) -> Upload | Picture | Piece | Bad:
    try:
        header, data = decode_frame(SampleHeader, message.payload)
    except MessageError as error:
        return Bad(message, address.device, str(error), _readable_id(message.payload))
    try:
        sample_id = _check_header(header, address)
        if header.parts > 1:
            _check_piece(header, data)
            return Piece(message, address.device, sample_id, header, bytes(data))
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
    check_integers(header)
    said = header.selection
    if "\0" in header.ref or "\0" in said.strategy or "\0" in said.acquisition or "\0" in "".join(header.transforms):
        raise MessageError(f"sample {header.id}: a text holds the character NUL")
    if sample_id.boot >= INT8 or sample_id.seq >= INT8:
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
        if one.label >= CLASSES_MAX:
            raise MessageError(f"sample {sample_id}: said: class {one.label}, expected below {CLASSES_MAX}")
    indices = [one.label for one in every if not isinstance(one, task.Box)]
    if len(set(indices)) < len(indices):
        raise MessageError(f"sample {sample_id}: said: a class or target comes twice")


def _check_piece(header: SampleHeader, data: Body) -> None:
    size = part_size(header.body_bytes, header.parts)
    expected = max(0, min(size, header.body_bytes - header.part * size))
    if len(data) != expected:
        raise MessageError(f"sample {header.id}: part {header.part} of {len(data)} bytes, expected {expected}")
