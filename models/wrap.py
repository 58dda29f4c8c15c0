"""How does somebody's own ONNX classifier become an artifact?

Its logits and its embedding are found by walking back from the outputs, made outputs under the names they have, and
whatever only served the old outputs (a final softmax, an argmax) is cut off. Needs no torch. A graph in which they
cannot be found for certain is refused, and the message lists what could be named instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import onnx as onnx_format
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, version_converter

from edge_agent.contract.errors import IncompatibleError
from models.errors import DataError
from models.package import About, Packaged, describe

OPSET, OPSET_MIN, IR_VERSION = 17, 13, 8  # below 13 there are no scales per channel
THROUGH = {"Softmax", "LogSoftmax", "Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "ArgMax"}
RESHAPING = {"Reshape", "Flatten", "Squeeze"}
TRANSPARENT = {"Identity", "Dropout"}
HEADS = {"Gemm", "MatMul"}
SAMPLES_MIN = 16


class Taps(NamedTuple):
    """Names of two tensors: float logits (N, C), or (N, T, C) of T heads, and the embedding (N, D) behind them."""

    logits: str
    embedding: str


def wrap(
    onnx: bytes,
    *,
    name: str,
    names: Sequence[str],
    version: int,
    data: NDArray[Any],
    y: NDArray[Any] | None = None,
    logits: str = "",
    embedding: str = "",
    int8: bool = False,
    unit: str = "",
    snapshot: str = "",
    created_at: str = "",
    licence: str = "",
) -> Packaged:
    """Make an artifact of an ONNX classifier.

    Args:
        onnx: the model, weights inside; one float32 or uint8 input, whose batch axis is free or 1.
        name: of the model; stays the same from version to version.
        names: of its C classes, in the order of its logits.
        version: of this artifact.
        data: (N, *shape) raw samples as the model takes them, at least 16, like the stream's.
        y: (N,) their classes where known: then the even rows calibrate, and the odd ones give temperature and metrics.
        logits: name of the tensor, needed when it cannot be found.
        embedding: likewise.
        int8: quantise it, unless it is quantised already.
        unit: of the input, for people.
        snapshot: id of the data it was trained on.
        created_at: RFC 3339.
        licence: of the model.

    Raises:
        DataError: data or y do not fit the model.
        IncompatibleError: not a model of this kind; says why, and what the candidates are.
    """
    _check_data(data, y)
    tapped, taps = tap(onnx, Taps(logits, embedding))
    quantised = any(node.op_type == "QuantizeLinear" for node in onnx_format.load_model_from_string(tapped).graph.node)
    about = About(
        name=name,
        names=tuple(names),
        version=version,
        snapshot=snapshot,
        unit=unit,
        created_at=created_at,
        licence=licence,
        logits=taps.logits,
        embedding=taps.embedding,
    )
    return describe(
        tapped,
        about,
        calibration=data if y is None else data[::2],
        holdout=None if y is None else (data[1::2], y[1::2]),
        int8=int8 and not quantised,
        variant="cpu-int8" if quantised else "cpu-fp32",
    )


def tap(onnx: bytes, named: Taps, *, more: str = "") -> tuple[bytes, Taps]:
    """The model with logits and embedding for its only outputs, and their names; an empty name is to be found.

    `more`: name of a tensor that is an output as well, of boxes or spreads.

    IncompatibleError: not a model of this kind; says why, and what the candidates are.
    """
    model = _load(onnx)
    taps = find_taps(model.graph, logits=named.logits, embedding=named.embedding)
    if more and more not in {name for node in model.graph.node for name in node.output}:
        raise IncompatibleError(f"the graph has no tensor {more!r}")
    return _retap(model, taps, more), taps


def _check_data(data: NDArray[Any], y: NDArray[Any] | None) -> None:
    if len(data) < SAMPLES_MIN:
        raise DataError(f"data has {len(data)} samples, expected at least {SAMPLES_MIN}")
    if y is not None and y.shape != (len(data),):
        raise DataError(f"y has shape {y.shape}, expected ({len(data)},): one for each sample of data")


def _load(onnx: bytes) -> ModelProto:
    try:
        model = onnx_format.load_model_from_string(onnx)
        _refuse_external(model)
        onnx_format.checker.check_model(model)
    except (DecodeError, onnx_format.checker.ValidationError) as error:
        raise IncompatibleError(f"not an ONNX model: {error}") from error
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < OPSET_MIN:
        try:
            model = version_converter.convert_version(model, OPSET)
        except RuntimeError as error:
            raise IncompatibleError(f"opset {opset} cannot be raised to {OPSET}: {error}; export it anew") from error
    _check_input(model.graph)
    return model


def _refuse_external(model: ModelProto) -> None:
    outside = [tensor.name for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    if outside:
        raise IncompatibleError(
            f"{len(outside)} tensors ({outside[0]}, ...) are kept in a second file: export with external_data=False"
        )


def _check_input(graph: GraphProto) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in constants]
    if len(inputs) != 1:
        got = ", ".join(entry.name for entry in inputs)
        raise IncompatibleError(f"the model has {len(inputs)} inputs ({got}), expected one")
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.UINT8):
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise IncompatibleError(f"input {inputs[0].name!r} is {kind}, expected float32 or uint8")
    shape = [dim.dim_value or dim.dim_param or "?" for dim in tensor.shape.dim]
    free = [not dim.dim_value for dim in tensor.shape.dim]
    if len(shape) < 2 or any(free[1:]) or not (free[0] or shape[0] == 1):
        raise IncompatibleError(
            f"input {inputs[0].name!r} has shape {shape}, expected a free (or 1) batch axis, then fixed"
        )


def find_taps(graph: GraphProto, *, logits: str = "", embedding: str = "") -> Taps:
    """Find logits and embedding, or take the names given; IncompatibleError lists the candidates.

    The last dense layer (Gemm, or MatMul and its bias) is looked for behind every output, through softmax, casts,
    reshapes and quantisation.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    fixed = _constants(graph)
    tensors = made_by.keys() | {entry.name for entry in graph.input}
    for given in (logits, embedding):
        if given and given not in tensors:
            raise IncompatibleError(f"the graph has no tensor {given!r}; candidates: {_candidates(graph, fixed)}")
    if logits and embedding:
        return Taps(logits, embedding)
    starts = [logits] if logits else [entry.name for entry in graph.output]
    found = {taps for start in starts if (taps := _walk(start, made_by, fixed)) is not None}
    if len(found) != 1:
        what = "several outputs have" if found else "no output has"
        raise IncompatibleError(f"{what} a last dense layer; name the logits; candidates: {_candidates(graph, fixed)}")
    taps = found.pop()
    return Taps(logits or taps.logits, embedding or taps.embedding)


def _walk(start: str, made_by: dict[str, NodeProto], fixed: set[str]) -> Taps | None:
    """From an output back to the dense layer behind it; None when there is none."""
    at = logits = start
    reshaped = False
    while (node := made_by.get(at)) is not None:
        moving = [name for name in node.input if name and name not in fixed]
        if len(moving) != 1:
            return None
        if node.op_type in HEADS and node.input[0] == moving[0]:
            return Taps(logits, _source(moving[0], made_by))
        if node.op_type not in THROUGH | RESHAPING | {"Add"}:
            return None
        at = moving[0]
        # A reshape or a bias still belongs to the logits; what stands behind them does not.
        reshaped = reshaped or node.op_type in RESHAPING | {"Add"}
        logits = logits if reshaped else at
    return None


def _source(name: str, made_by: dict[str, NodeProto]) -> str:
    while name in made_by and made_by[name].op_type in TRANSPARENT:
        name = made_by[name].input[0]
    return name


def _constants(graph: GraphProto) -> set[str]:
    """Tensors that do not depend on the input."""
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # in topological order
        if all(name in fixed or not name for name in node.input):
            fixed.update(node.output)
    return fixed


def _candidates(graph: GraphProto, fixed: set[str]) -> str:
    pairs = [
        f"logits={node.output[0]!r} with embedding={node.input[0]!r}"
        for node in graph.node
        if node.op_type in HEADS and node.input[1] in fixed
    ]
    return "; ".join(pairs[-5:]) or "none (no dense layer with constant weights)"


def _retap(model: ModelProto, taps: Taps, more: str = "") -> bytes:
    """Make the taps the only outputs and drop what they do not need."""
    graph = model.graph
    del graph.output[:]
    # Of logits no shape is said: those of several heads have three axes.
    graph.output.append(helper.make_tensor_value_info(taps.logits, TensorProto.FLOAT, None))
    graph.output.append(helper.make_tensor_value_info(taps.embedding, TensorProto.FLOAT, [None, None]))
    if more:
        graph.output.append(helper.make_tensor_value_info(more, TensorProto.FLOAT, None))
    needed = {*taps, more}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    kept.reverse()
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    inputs = [entry for entry in graph.input if entry.name not in {tensor.name for tensor in graph.initializer}]
    for field, values in ((graph.node, kept), (graph.initializer, weights), (graph.input, inputs)):
        del field[:]
        field.extend(values)
    model.ir_version = max(IR_VERSION, helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True))
    tapped: bytes = model.SerializeToString()
    return tapped
