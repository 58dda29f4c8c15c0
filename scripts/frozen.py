"""What does a frozen graph of TensorFlow 1 hold, without TensorFlow?

Its file is a GraphDef: protocol buffers, of which a few fields matter here. Detectors of the Object Detection API are
convolutions with their normalisation, Relu6, sums and reshapes; those are written down as ONNX, channels first, the
normalisation folded into the convolution before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5  # wire types
FLOAT, INT32 = 1, 3  # of a TensorProto


class Node(NamedTuple):
    """One operation. attributes: as they stand in the file."""

    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, memoryview]


def read(data: bytes) -> dict[str, Node]:
    """The nodes of a GraphDef by their names."""
    return dict(_node(said) for number, said in _fields(memoryview(data)) if number == 1)


def constant(node: Node) -> Array:
    """The value of a Const of floats or 32-bit integers."""
    (tensor,) = (said for number, said in _fields(node.attributes["value"]) if number == 8)
    parts = list(_fields(tensor))
    dtype = np.float32 if dict(parts)[1] == FLOAT else np.int32
    (shape,) = (said for number, said in parts if number == 2)
    sizes = tuple(dict(_fields(size)).get(1, 0) for number, size in _fields(shape) if number == 2)
    content = b"".join(bytes(said) for number, said in parts if number == 4)
    if content:
        return np.frombuffer(content, dtype).reshape(sizes)
    return np.full(sizes, _only(parts, dtype), dtype)


def _only(parts: list[tuple[int, Any]], dtype: type) -> Any:
    """The one value that fills a tensor: field 5 of floats, 7 of integers, alone or packed."""
    (said,) = (said for number, said in parts if number == (5 if dtype is np.float32 else 7))
    if isinstance(said, int):
        return said
    return struct.unpack("<f", said)[0] if dtype is np.float32 else _varint(said, 0)[0]


def _node(data: memoryview) -> tuple[str, Node]:
    name, op, inputs, attributes = "", "", [], {}
    for number, said in _fields(data):
        if number == 1:
            name = str(said, "utf-8")
        elif number == 2:
            op = str(said, "utf-8")
        elif number == 3:
            inputs.append(str(said, "utf-8").partition(":")[0])
        elif number == 5:
            entry = dict(_fields(said))
            attributes[str(entry[1], "utf-8")] = entry[2]
    return name, Node(op, tuple(inputs), attributes)


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        size = {EIGHT: 8, FOUR: 4}.get(key & 7)
        if size is None:
            size, at = _varint(data, at)
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


class Translated:
    """ONNX nodes and weights of what is asked for, channels first; `side` pixels wide and high at `entry`."""

    def __init__(self, nodes: dict[str, Node], entry: str, side: int) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._frozen = nodes
        self._sides = {entry: side}  # of each tensor that was made

    def tensor(self, name: str) -> str:
        """Make it, and what it comes from; its name in ONNX."""
        node = self._frozen.get(name)
        if name not in self._sides and node is not None:
            getattr(self, f"_{node.op.lower()}")(name, node)
        return name

    def value(self, name: str) -> Array:
        """Of a constant, behind its `Identity`s."""
        node = self._frozen[name]
        return constant(node) if node.op == "Const" else self.value(node.inputs[0])

    def _emit(self, op: str, inputs: list[str], name: str, side: int, **told: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **told))
        self._sides[name] = side

    def _weight(self, name: str, value: Array) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def _identity(self, name: str, node: Node) -> None:
        self._emit("Identity", [self.tensor(node.inputs[0])], name, self._sides[self.tensor(node.inputs[0])])

    def _relu6(self, name: str, node: Node) -> None:
        before = self.tensor(node.inputs[0])
        limits = [self._weight(f"{name}/{limit}", np.array(limit)) for limit in (0.0, 6.0)]
        self._emit("Clip", [before, *limits], name, self._sides[before])

    def _add(self, name: str, node: Node) -> None:
        before = [self.tensor(one) for one in node.inputs]
        self._emit("Add", before, name, self._sides[before[0]])

    def _fusedbatchnorm(self, name: str, node: Node) -> None:
        gamma, beta, mean, variance = (self.value(one).astype(np.float64) for one in node.inputs[1:])
        (epsilon,) = struct.unpack("<f", dict(_fields(node.attributes["epsilon"]))[4])
        scale = gamma / np.sqrt(variance + epsilon)
        self._convolution(name, self._frozen[node.inputs[0]], scale, beta - mean * scale)

    def _biasadd(self, name: str, node: Node) -> None:
        bias = self.value(node.inputs[1])
        self._convolution(name, self._frozen[node.inputs[0]], np.ones(len(bias)), bias)

    def _convolution(self, name: str, node: Node, scale: Array, bias: Array) -> None:
        """Kernels stand as (height, width, in, out); of a depthwise one `out` is of each channel."""
        before, kernel = self.tensor(node.inputs[0]), self.value(node.inputs[1])
        groups = 1
        if node.op == "DepthwiseConv2dNative":
            groups = kernel.shape[2]
            kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
        kernel = (kernel * scale).transpose(3, 2, 0, 1)
        strides = list(_packed(node.attributes["strides"]))[1:3]
        side, width = -(-self._sides[before] // strides[0]), kernel.shape[2]
        total = max((side - 1) * strides[0] + width - self._sides[before], 0)  # SAME: the odd one at the end
        pads = [total // 2, total // 2, total - total // 2, total - total // 2]
        names = [self._weight(f"{name}/kernel", kernel), self._weight(f"{name}/bias", bias)]
        self._emit("Conv", [before, *names], name, side, strides=strides, pads=pads, group=groups)

    def rows(self, name: str, width: int) -> str:
        """A head's (N, anchors * width, side, side) as (N, rows, width), anchors of a place behind each other."""
        before = self.tensor(name)
        self._emit("Transpose", [before], f"{name}/last", 0, perm=[0, 2, 3, 1])
        shape = f"{name}/shape"
        self.weights.append(numpy_helper.from_array(np.array([0, -1, width]), shape))
        self._emit("Reshape", [f"{name}/last", shape], f"{name}/rows", 0)
        return f"{name}/rows"


def _packed(attribute: memoryview) -> Iterator[int]:
    """The integers of a list."""
    (found,) = (said for _, said in _fields(attribute))
    numbers = dict(_fields(found))[3]
    at = 0
    while at < len(numbers):
        value, at = _varint(numbers, at)
        yield value
