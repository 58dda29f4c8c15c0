"""What has a header and a body, as one message?

Two bytes of header length (big endian), a msgpack header, a raw body.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from edge_agent.contract.desired import BlockHeader
from edge_agent.contract.errors import MessageError
from edge_agent.contract.limits import FRAME_MAX_BYTES, HEADER_MAX_BYTES
from edge_agent.contract.reports import SampleHeader

H = TypeVar("H", SampleHeader, BlockHeader)

_msgpack_encoder = msgspec.msgpack.Encoder()


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
