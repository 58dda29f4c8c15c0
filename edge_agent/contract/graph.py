"""Does an ONNX file keep to itself?

A graph is code. Before onnxruntime sees one, its bytes are walked, without onnx and without allocating anything:
weights must stand inside the file, operators must be of the runtime's own sets, and no tensor may claim to be larger
than the file that holds it. What a graph then does with time and memory is for the capped child process to find out.

Why the weights: a tensor may name a file instead ("external data"), and onnxruntime reads it with the rights of the
agent; somebody's key as weights is what comes out at the logits. Given bytes, it takes names from the working folder.

An ONNX file is one protobuf message (onnx.proto3 of https://github.com/onnx/onnx; wire format:
https://protobuf.dev/programming-guides/encoding). Only the fields that lead to tensors and operators are followed, but
every occurrence of them: a parser that takes the last and one that takes the first both see what was looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from edge_agent.contract.errors import IncompatibleError

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc"})
"""Operator sets that every onnxruntime brings along; `com.microsoft` has the int8 kernels."""
DEPTH = 64  # of messages within messages: graphs in the branches of graphs; protobuf itself stops at 100
ELEMENTS_PER_BYTE = 4  # int2 is the narrowest type: more elements than that cannot be in the file

_FOLLOWED: dict[str, dict[int, str]] = {  # message -> field -> message
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_DOMAIN = {"node": 7, "opset": 1, "function": 10}  # where the operator set stands
_DIMS, _TENSOR_NAME, _EXTERNAL, _LOCATION = 1, 8, 13, 14  # of a tensor

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_graph(data: bytes | memoryview) -> None:
    """IncompatibleError when the file reaches out of itself, or is no ONNX file."""
    view = memoryview(data)
    if bytes(view[4:8]) == b"ORTM":  # onnxruntime's own format, which it would take as well, is not looked into here
        raise IncompatibleError("the file is in ORT format: expected ONNX")
    try:
        _walk(view, "model", 0, len(view))
    except (IndexError, UnicodeDecodeError) as error:
        raise IncompatibleError(f"the ONNX file cannot be read: {error}") from error


def _walk(view: memoryview, kind: str, depth: int, limit: int) -> None:
    if depth > DEPTH:
        raise IncompatibleError(f"the ONNX file nests more than {DEPTH} deep")
    if kind == "tensor":
        _check_tensor(view, limit)
        return
    followed, domain = _FOLLOWED.get(kind, {}), _DOMAIN.get(kind)
    for field, value in _fields(view):
        if field == domain:
            _check_domain(_text(value))
        elif field in followed:
            _walk(_message(value), followed[field], depth + 1, limit)


def _check_domain(name: str) -> None:
    if name not in DOMAINS:
        raise IncompatibleError(
            f"custom operators of {name[:80]!r}: expected those of {', '.join(sorted(DOMAINS - {''}))} alone"
        )


def _check_tensor(view: memoryview, limit: int) -> None:
    name, dims, outside = "", [], False
    for field, value in _fields(view):
        if field == _EXTERNAL or (field == _LOCATION and value != 0):
            outside = True
        elif field == _DIMS:
            dims += [value] if isinstance(value, int) else list(_packed(value))
        elif field == _TENSOR_NAME:
            name = _text(value)[:80]
    if outside:
        raise IncompatibleError(f"tensor {name!r} is kept in another file: expected the weights inside this one")
    if any(size >= 1 << 63 for size in dims) or math.prod(dims) > ELEMENTS_PER_BYTE * limit:
        shape = "x".join(map(str, dims[:8]))
        raise IncompatibleError(f"tensor {name!r} claims {shape} elements: more than a file of {limit} bytes can hold")


def _fields(view: memoryview) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message: int of a varint, memoryview of bytes; numbers of fixed width are passed over."""
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(view, at)
            yield field, value
        elif wire == _BYTES:
            length, at = _varint(view, at)
            if length > end - at:
                raise IndexError(f"{length} bytes announced, {end - at} are there")
            yield field, view[at : at + length]
            at += length
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:  # groups, which ONNX has none of
            raise IndexError(f"wire type {wire} of field {field}")
    if at != end:
        raise IndexError("it ends within a field")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise IndexError("a number of more than 10 bytes")


def _packed(view: memoryview) -> Iterator[int]:
    at = 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def _message(value: object) -> memoryview:
    if not isinstance(value, memoryview):
        raise IndexError("a number where a message was expected")
    return value


def _text(value: object) -> str:
    return str(_message(value), "utf-8")
