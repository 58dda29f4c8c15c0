"""How does a sample travel: its header, and its body in parts?"""

from __future__ import annotations

import hashlib
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.contract import images
from edge_agent.contract.encoding import Encoding, pack, unpack
from edge_agent.contract.errors import MessageError
from edge_agent.contract.frame import encode_frame
from edge_agent.contract.limits import (
    ACQUISITION_MAX_CHARS,
    BODY_MAX_BYTES,
    DTYPES,
    PART_MIN_BYTES,
    REF_MAX_CHARS,
    SAMPLE_MAX_BYTES,
    STRATEGY_MAX_CHARS,
)
from edge_agent.contract.reports import SampleHeader
from edge_agent.contract.topics import Address
from edge_agent.contract.types import Sample, SampleId

_ITEM_BYTES = {name: np.dtype(name).itemsize for name in DTYPES}


def encode_sample(sample: Sample, *, codec: images.Codec | None = None) -> tuple[SampleHeader, bytes]:
    """A sample as it is kept in the outbox: its header (of part 0 of 1) and its whole body.

    With a `codec`, what is an image goes as one, unless that is larger than its pixels.
    """
    encoding, body = _pack(sample.data, codec)
    header = SampleHeader(
        id=str(sample.id),
        ref=sample.ref[:REF_MAX_CHARS]
        .encode("utf-8", "replace")
        .decode(),  # a file name need not be UTF-8, the wire must
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


def _text(name: str) -> str:
    return name.encode("utf-8", "replace").decode()  # a file's need not be UTF-8, the wire must


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
    for name, text, most in (
        ("ref", header.ref, REF_MAX_CHARS),
        ("strategy", said.strategy, STRATEGY_MAX_CHARS),
        ("acquisition", said.acquisition, ACQUISITION_MAX_CHARS),
    ):
        if len(text) > most:
            raise MessageError(f"sample {header.id}: {name} of {len(text)} characters, expected {most} at most")
    return sample_id


def decoded_bytes(header: SampleHeader) -> int:
    """Bytes of the array that the header describes."""
    return math.prod(header.shape, start=_ITEM_BYTES[header.dtype])


def decode_body(header: SampleHeader, body: bytes | memoryview) -> NDArray[np.generic]:
    """The array of a whole body. MessageError when length, hash or encoding is off; never inflates past the shape.

    The header is one that check_sample_header let pass: it bounds the shape and knows the dtype.
    """
    check_whole(header, body)
    encoding = header.encoding
    try:
        if encoding == "png" or encoding == "jpeg" or encoding == "webp":  # images.KINDS, in words that mypy reads
            return images.decode_image(bytes(body), encoding, header.shape)
        return unpack(encoding, body, dtype=header.dtype, shape=header.shape)
    except MessageError as error:
        raise MessageError(f"sample {header.id}: {error}") from error


def check_whole(header: SampleHeader, body: bytes | memoryview) -> None:
    """MessageError unless all of the body is there, and none of it changed."""
    if len(body) != header.body_bytes or hashlib.sha256(body).hexdigest() != header.body_sha256:
        raise MessageError(f"sample {header.id}: body of {len(body)} bytes does not match its header's length and hash")
