"""What is in an ONNX file, and which devices can run it?

Reads it and runs nothing. What onnxruntime loads was tried: one node stamped with each opset and IR, given to each
release (2026-11-26); what is said of other providers is their documentation's.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from edge_agent.contract.errors import IncompatibleError
from edge_agent.contract.graph import DOMAINS
from models import taps
from models.graph import opset_of, parse, reads, walk

RUNTIMES = (("1.20", 21, 10), ("1.21", 22, 10), ("1.23", 23, 11), ("1.24", 25, 13), ("1.32", 26, 14))
"""onnxruntime from this release on loads up to this opset and this IR; 1.22 loads what 1.21 does."""
LAYERS = 12  # largest that are listed
NO_TENSORRT = {"LSTM", "GRU", "RNN", "NonZero", "NonMaxSuppression", "Loop", "If", "Scan", "StringNormalizer"}


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output. shape: a number, or the name of an axis that is free; empty: not said."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A node that has weights, and what they take."""

    name: str
    kind: str
    bytes: int


class Anatomy(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. logits, embedding: names; why: how they were found, or why not."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    logits: str
    embedding: str
    why: str
    operators: dict[str, int]
    domains: tuple[str, ...]
    opset: int
    ir_version: int
    bytes: int
    parameters: int
    int8_share: float  # of the parameters
    layers: tuple[Layer, ...]
    runtime: str  # oldest onnxruntime that loads it; "" when none that was tried does
    caveats: tuple[str, ...]


def anatomy(onnx: bytes, *, named: taps.Taps | None = None) -> Anatomy:
    """Look into a model; IncompatibleError when it is none. `named`: where a manifest says its taps are."""
    model = parse_any(onnx)
    graph = model.graph
    constant = {tensor.name for tensor in graph.initializer}
    nodes = list(walk(graph.node))
    found, why = _taps(model, named)
    small, large = _parameters(graph.initializer)
    return Anatomy(
        inputs=tuple(_port(entry) for entry in graph.input if entry.name not in constant),
        outputs=tuple(_port(entry) for entry in graph.output),
        logits=found.logits,
        embedding=found.embedding,
        why=why,
        operators=dict(Counter(_kind(node) for node in nodes).most_common()),
        domains=tuple(sorted({node.domain for node in nodes} - {"", "ai.onnx"})),
        opset=opset_of(model),
        ir_version=int(model.ir_version),
        bytes=len(onnx),
        parameters=small + large,
        int8_share=small / max(small + large, 1),
        layers=_layers(model),
        runtime=_runtime(opset_of(model), int(model.ir_version)),
        caveats=tuple(_caveats(model, nodes)),
    )


def parse_any(onnx: bytes) -> ModelProto:
    """Also a file that states no shape of its outputs, as those that we tap do."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import load_model_from_string

    try:
        model = load_model_from_string(onnx)
    except DecodeError as error:
        raise IncompatibleError(f"not an ONNX model: {error}") from error
    if not model.graph.node:
        parse(onnx)  # which says what is wrong
        raise IncompatibleError("not an ONNX model: it has no nodes")
    return model


def _taps(model: ModelProto, named: taps.Taps | None) -> tuple[taps.Taps, str]:
    if named is not None:
        return named, "as the manifest says"
    try:
        found = taps.find(model.graph)
    except IncompatibleError as error:
        return taps.Taps("", ""), str(error)
    return found.taps, found.why


def _port(entry: Any) -> Port:
    if entry.type.WhichOneof("value") != "tensor_type":
        return Port(name=entry.name, dtype=str(entry.type.WhichOneof("value")).removesuffix("_type"), shape=())
    tensor = entry.type.tensor_type
    shape = tuple(int(dim.dim_value) or dim.dim_param or "n" for dim in tensor.shape.dim)
    return Port(name=entry.name, dtype=TensorProto.DataType.Name(tensor.elem_type).lower(), shape=shape)


def _kind(node: NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _parameters(tensors: Any) -> tuple[int, int]:
    """How many numbers are of 8 bits, and how many are longer; scales and shapes count among the latter."""
    small = large = 0
    for tensor in tensors:
        count = int(np.prod(tensor.dims, dtype=np.int64))
        if tensor.data_type in (TensorProto.INT8, TensorProto.UINT8):
            small += count
        else:
            large += count
    return small, large


def _layers(model: ModelProto) -> tuple[Layer, ...]:
    """Those with the most bytes of weights, also where these are dequantised first."""
    sizes = {tensor.name: tensor.ByteSize() for tensor in model.graph.initializer}
    behind = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    layers = []
    for node in model.graph.node:
        if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            continue
        taken = {name for own in reads(node) for name in (reads(behind[own]) if own in behind else {own})}
        size = sum(sizes.get(name, 0) for name in taken) + sum(attribute.ByteSize() for attribute in node.attribute)
        layers.append(Layer(name=node.name or node.output[0], kind=_kind(node), bytes=size))
    return tuple(sorted(layers, key=lambda layer: -layer.bytes)[:LAYERS])


def _runtime(opset: int, ir_version: int) -> str:
    return next((release for release, up_to, ir in RUNTIMES if opset <= up_to and ir_version <= ir), "")


def _caveats(model: ModelProto, nodes: list[NodeProto]) -> list[str]:
    """What whoever runs it elsewhere than on the CPU, or on an old one, should know."""
    kinds, said = {node.op_type for node in nodes}, []
    if strange := sorted({node.domain for node in nodes} - DOMAINS):
        said.append(f"operators of {', '.join(strange)}: agents refuse them")
    if any(node.domain == "ai.onnx.ml" for node in nodes):
        said.append("operators of ai.onnx.ml run on the CPU alone: not with TensorRT, CoreML, XNNPACK or OpenVINO")
    if "QuantizeLinear" in kinds:
        said += _of_int8(model, nodes)
    if {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"} & kinds:
        said.append("it is quantised as it runs, by batch: agents give it one sample at a time, TensorRT refuses it")
    if loops := sorted(kinds & NO_TENSORRT):
        said.append(f"{', '.join(loops)}: with TensorRT in part on the CPU, or not at all")
    batch = model.graph.input[0].type.tensor_type.shape.dim
    if len(batch) and not batch[0].dim_value:
        said.append("its batch axis is free: TensorRT wants a profile of shapes (trt_profile_min_shapes and others)")
    return said


def _of_int8(model: ModelProto, nodes: list[NodeProto]) -> list[str]:
    said = ["int8 gains little on a CPU without dot products of bytes: ARMv8.2 (Pi 5, Orin; not Pi 4), x86 with VNNI"]
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    unsigned = any(
        node.op_type == "QuantizeLinear" and len(node.input) > 2 and types.get(node.input[2]) == TensorProto.UINT8
        for node in nodes
    )
    if unsigned:
        said.append("activations are unsigned: x86 with AVX2 alone may saturate; TensorRT wants signed, symmetric ones")
    return said
