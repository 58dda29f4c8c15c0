"""How does a float model become an int8 one?

Static QDQ: unsigned 8-bit activations, signed 8-bit weights with a scale per channel (per tensor collapsed
EfficientNet-Lite0 to .55 agreement; dynamic quantisation is slower than float for convolutions), ranges from data like
the stream's. Logits and embedding stay float outputs, the batch axis stays as it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edge_agent.contract.errors import IncompatibleError
from models.evaluate import ORT_ERRORS
from models.freeze import keep
from models.graph import constants, forget_unused_domains

RESHAPING = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
BATCH = 64
HOLD_STEPS = (1.0, 0.5)  # how far a weight may be from its parent's code: further off, agreement with float suffers
WORTH_SHARE = 0.7  # of weights with their parent's code; below it the difference is no smaller than the file, packed
REFUSALS: tuple[type[Exception], ...] = (*ORT_ERRORS, TypeError, KeyError, IndexError)
"""What the quantiser raises for a graph that it does not understand: it has no error of its own."""


def to_int8(onnx: bytes, calibration: NDArray[Any], *, logits: str = "logits") -> bytes:
    """Quantise a float ONNX model, as `forms` does without a parent."""
    return forms(onnx, calibration, logits=logits)[-1]


def forms(
    onnx: bytes, calibration: NDArray[Any], *, logits: str = "logits", more: str = "", parent: bytes = b""
) -> list[bytes]:
    """Quantise a float ONNX model: those that share the most bytes with the parent first, with its own ranges last.

    Args:
        onnx: the model, one input, opset 13 or higher.
        calibration: (N, *shape) raw samples like the stream's; a few hundred. Calibrated on cleaner data than the
            device sees, the order of the most uncertain samples is lost (top-5 % overlap .57 instead of .93).
        logits: name of the output to keep at full precision.
        more: of a further one, of boxes or spreads. Then the last layer and all behind it stay float: a number or a
            corner at 256 steps is off by a pixel or a percent, and there is next to nothing to gain.
        parent: the quantised model that it was fine-tuned from; empty: none. A form that would share too little with
            it is left out.

    Raises:
        IncompatibleError: the model cannot be quantised.
    """
    own, plain = _quantised(onnx, calibration, logits, more)
    kept = [keep(own, plain, parent, hold_steps=steps) for steps in HOLD_STEPS] if parent else []
    return [*(form.onnx for form in kept if form.share >= WORTH_SHARE), own]


def _quantised(onnx: bytes, calibration: NDArray[Any], logits: str, more: str) -> tuple[bytes, onnx_format.ModelProto]:
    """With ranges of its own, and the prepared float model that it was made of."""
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        source, plain, quantised = (Path(folder) / name for name in ("float.onnx", "plain.onnx", "int8.onnx"))
        source.write_bytes(onnx)  # a model in memory it would move to external data, where Reshape finds no shape
        model = onnx_format.load_model_from_string(onnx)
        try:
            quant_pre_process(source, plain, skip_symbolic_shape=True)  # symbolic shapes would need sympy
            prepared = onnx_format.load(plain)
            quantize_static(
                plain,
                quantised,
                _Reader(_feeds(prepared, calibration)),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                # A range is the mean of the batches' extremes, so that one outlier cannot stretch it (smartwatch data:
                # .990-.997 agreement with float, else .987-.994). Of single samples the mean would be too tight.
                extra_options={"CalibMovingAverage": _fixed_batch(model) == 0},
                **_chosen(prepared, [logits, more] if more else []),
            )
        except REFUSALS as error:
            raise IncompatibleError(f"the model cannot be quantised: {error}") from error
        result = onnx_format.load(quantised)
    _bypass_tail(result.graph, logits)
    forget_unused_domains(result)
    result.ir_version = model.ir_version
    onnx_format.checker.check_model(result)
    int8: bytes = result.SerializeToString()
    return int8, prepared


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    def __init__(self, feeds: Iterator[dict[str, NDArray[Any]]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)


def _feeds(model: onnx_format.ModelProto, x: NDArray[Any]) -> Iterator[dict[str, NDArray[Any]]]:
    """Batches that take every k-th sample, so that each looks like the whole even if x is sorted."""
    batches = -(-len(x) // (_fixed_batch(model) or BATCH))
    for i in range(batches):
        yield {model.graph.input[0].name: np.ascontiguousarray(x[i::batches])}


def _fixed_batch(model: onnx_format.ModelProto) -> int:
    """Length of the batch axis, 0 when it is free."""
    return int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value)


def _last(graph: GraphProto, outputs: Sequence[str]) -> list[str]:
    """Nodes between these outputs and the last weights before them, those included."""
    made_by = {name: node for node in graph.node for name in node.output}
    names, wanted = set[str](), list(outputs)
    while wanted:
        node = made_by.get(wanted.pop())
        if node is None or node.name in names:
            continue
        names.add(node.name)
        wanted += [] if node.op_type in WEIGHTED else node.input
    return sorted(names)


def _chosen(model: onnx_format.ModelProto, outputs: Sequence[str]) -> dict[str, list[str]]:
    """Which nodes are quantised: not the preparation, nor the last layer behind `outputs`; of transformers the weights.

    What attention multiplies and normalises has few large values among many small ones (MiniLM: .98 agreement with
    float and twice its speed; with all of them .94, and 1.5 times).
    """
    excluded = [*_preparation(model), *_last(model.graph, outputs)]
    if not any(node.op_type == "LayerNormalization" for node in model.graph.node):
        return {"nodes_to_exclude": excluded}
    fixed = constants(model.graph)
    products = [node.name for node in model.graph.node if node.op_type == "MatMul" and not fixed & set(node.input)]
    return {"nodes_to_exclude": excluded + products, "op_types_to_quantize": [*sorted(WEIGHTED), "Gather"]}


def _preparation(model: onnx_format.ModelProto) -> list[str]:
    """Nodes that only prepare the input, before any weights: they are few, and 8 bits there lose detail for nothing.

    What leads to a logarithm is preparation, weights or not: of a spectrum, 8 bits are the loudest 24 of its 100 dB.
    """
    spectrum = _before_logarithm(model.graph)
    constant = {tensor.name for tensor in model.graph.initializer} | {""}
    reached = {entry.name for entry in model.graph.input} - constant
    names = []
    for node in model.graph.node:  # in topological order
        moving = set(node.input) - constant
        if not moving:
            constant.update(node.output)
        elif moving <= reached and (node.name in spectrum or not _weighs(node, constant)):
            reached.update(node.output)
            names.append(node.name)
    return names


def _weighs(node: NodeProto, constant: set[str]) -> bool:
    """Vectors of words or of n-grams are weights as any."""
    return node.op_type in WEIGHTED or (node.op_type == "Gather" and node.input[0] in constant)


def _before_logarithm(graph: GraphProto) -> set[str]:
    """Names of the nodes that lead to a logarithm behind which weights come; one at the very end is no preparation."""
    found, wanted, followed = set[str](), set[str](), set[str]()  # nodes; tensors
    for node in reversed(graph.node):
        followed_by_weights = bool(followed.intersection(node.output))
        if (node.op_type == "Log" and followed_by_weights) or wanted.intersection(node.output):
            found.add(node.name)
            wanted.update(node.input)
        if node.op_type in WEIGHTED or followed_by_weights:
            followed.update(node.input)
    return found


def _bypass_tail(graph: GraphProto, output: str) -> None:
    """Drop the last Quantize/Dequantize pairs before an output: they would make 1 % of the margins tie at 0.

    Of several heads there is one before the reshape and one behind it.
    """
    at = output
    while at:
        _bypass_pair(graph, at)
        made = next((node for node in graph.node if at in node.output), None)
        at = made.input[0] if made is not None and made.op_type in RESHAPING else ""
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _bypass_pair(graph: GraphProto, output: str) -> None:
    """Where a pair makes `output`, what goes into the pair takes that name instead."""
    made_by = {name: node for node in graph.node for name in node.output}
    last = made_by.get(output)
    if last is None or last.op_type != "DequantizeLinear" or last.input[0] not in made_by:
        return
    first = made_by[last.input[0]]
    source = first.input[0]
    graph.node.remove(last)
    graph.node.remove(first)
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == source:
                    names[i] = output
