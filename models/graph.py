"""What must an ONNX graph be like before anything is done with it?

Whole, weights inside, of an opset that can be quantised by channels and that devices load; one input of a kind and
shape that a sample has. What is older or newer is converted where onnx can.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx as onnx_format
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, version_converter

from edge_agent.contract.errors import IncompatibleError

OPSET, OPSET_MIN, OPSET_MAX, IR_VERSION = 17, 13, 21, 8
"""Written; least (below there are no scales per channel); highest that onnxruntime 1.20 loads, the agent's oldest."""
OWN = ("", "ai.onnx")
DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.UINT8: "uint8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
}
"""Of samples. int16 is sound; whole numbers of more bytes are token ids."""


def load(onnx: bytes) -> ModelProto:
    """Read and check a model; IncompatibleError says what is wrong with it."""
    model = parse(onnx)
    forget_unused_domains(model)
    opset = opset_of(model)
    if opset < OPSET_MIN:
        try:
            model = version_converter.convert_version(model, OPSET)
        except RuntimeError as error:
            raise IncompatibleError(f"opset {opset} cannot be raised to {OPSET}: {error}; export it anew") from error
    elif opset > OPSET_MAX:
        model = _lowered(model)
    check_input(model.graph)
    return model


def parse(onnx: bytes) -> ModelProto:
    """A model that is sound, of whatever kind; IncompatibleError otherwise."""
    try:
        model = onnx_format.load_model_from_string(onnx)
        _refuse_external(model)
        onnx_format.checker.check_model(model)
    except (DecodeError, onnx_format.checker.ValidationError) as error:
        raise IncompatibleError(f"not an ONNX model: {error}") from error
    return model


def opset_of(model: ModelProto) -> int:
    """Of the standard operators; 0 when there are none."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in OWN), default=0)


def _lowered(model: ModelProto) -> ModelProto:
    """To an opset that every agent loads; as it is when that cannot be: some devices load it all the same."""
    try:
        lowered = version_converter.convert_version(model, OPSET_MAX)
        onnx_format.checker.check_model(lowered)
    except (RuntimeError, onnx_format.checker.ValidationError):
        return model
    return lowered


def _refuse_external(model: ModelProto) -> None:
    outside = [tensor.name for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    if outside:
        raise IncompatibleError(
            f"{len(outside)} tensors ({outside[0]}, ...) are kept in a second file: export with external_data=False"
        )


def the_input(graph: GraphProto) -> ValueInfoProto:
    """The one input that is no constant; IncompatibleError when there are others."""
    constant = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in constant]
    if len(inputs) != 1:
        got = ", ".join(entry.name for entry in inputs)
        raise IncompatibleError(f"the model has {len(inputs)} inputs ({got}), expected one")
    found: ValueInfoProto = inputs[0]
    return found


def check_input(graph: GraphProto) -> None:
    """IncompatibleError unless it takes samples of one kind and rank, any number of them or one."""
    entry = the_input(graph)
    tensor = entry.type.tensor_type
    if tensor.elem_type not in DTYPES:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise IncompatibleError(f"input {entry.name!r} is {kind}, expected {', '.join(DTYPES.values())}")
    free = [not dim.dim_value for dim in tensor.shape.dim]
    if len(free) < 2 or not (free[0] or tensor.shape.dim[0].dim_value == 1):
        raise _misshapen(entry)


def check_shape(graph: GraphProto) -> None:
    """IncompatibleError unless every axis of a sample has a length."""
    entry = the_input(graph)
    if not all(dim.dim_value for dim in entry.type.tensor_type.shape.dim[1:]):
        raise _misshapen(entry)


def _misshapen(entry: ValueInfoProto) -> IncompatibleError:
    shape = [dim.dim_value or dim.dim_param or "?" for dim in entry.type.tensor_type.shape.dim]
    return IncompatibleError(
        f"input {entry.name!r} has shape {shape}, expected a free (or 1) batch axis, then fixed: "
        "export it with a fixed size, or say it (--prepare, size)"
    )


def constants(graph: GraphProto) -> set[str]:
    """Tensors that do not depend on the input."""
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # in topological order
        if all(name in fixed or not name for name in node.input):
            fixed.update(node.output)
    return fixed


def reads(node: NodeProto) -> set[str]:
    """What a node needs: its inputs, and what graphs within it (of If, Loop, Scan) take from around them."""
    names = set(node.input)
    for graph in _inner(node):
        names.update(name for within in graph.node for name in reads(within))
        names.update(entry.name for entry in graph.output)
    return names - {""}


def _inner(node: NodeProto) -> list[GraphProto]:
    return [
        graph
        for attribute in node.attribute
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


def walk(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes, and those of the graphs within them."""
    for node in nodes:
        yield node
        for graph in _inner(node):
            yield from walk(graph.node)


def forget_unused_domains(model: ModelProto) -> None:
    """What exporters and pre-processing import without need, or twice: other runtimes would ask for it."""
    used = {node.domain for node in walk(model.graph.node)} | {""}
    used |= {node.domain for function in model.functions for node in walk(function.node)}
    used |= {function.domain for function in model.functions}
    kept: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain in OWN else entry.domain
        if domain in used:
            kept[domain] = max(int(entry.version), kept.get(domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in kept.items())
