"""How does a fine-tuned model keep the bytes of its parent?

A weight that training hardly moved has the code that it had, if the scale is what it was: so ranges are taken over from
the parent wherever they still fit, tensor by tensor and channel by channel, and a code is held while the weight is near
it. Only what was learned is then left to travel (server/store/parcels.py). The order of tensors and nodes is the
exporter's, and does not change from version to version.

A range fits when little of the child's own is clipped by it, and its steps are not much coarser. Whether the result
still says what the float model says is for the caller to measure: it has another form to fall back on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx as onnx_format
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

CLIPPED_MAX = 0.05  # of the child's own range: more clips what it learned (at .2 agreement fell by a point), less lets
# go of scales whose extremes only wandered from one calibration to the next
COARSER_MAX = 1.5  # of its steps over the child's own: 2 would be a bit of precision less
LARGEST = 127  # code of a weight; -128 would have no counterpart

Array = NDArray[Any]


class Kept(NamedTuple):
    """A quantised model, and the share of its weights that have the code of the parent's."""

    onnx: bytes
    share: float


def keep(child: bytes, plain: ModelProto, parent: bytes, *, hold_steps: float) -> Kept:
    """The child with scales, zero points and codes of the parent wherever they fit.

    Args:
        child: quantised with ranges of its own, as models/quantize.py does it.
        plain: the float model that it was quantised from; it has the weights under the names they have there.
        parent: of the same graph, quantised in the same way; a tensor that it does not have is left as it is.
        hold_steps: a code is held while the weight is no further from it; 0.5 is rounding, 1.0 lets go of what moved by
            half a step at least.
    """
    model = onnx_format.load_model_from_string(child)
    graph = _Constants(model.graph)
    before, floats = _Constants(onnx_format.load_model_from_string(parent).graph), _Constants(plain.graph)
    same = total = 0
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            _keep_range(node, graph, before)
        elif node.op_type == "DequantizeLinear" and (codes := graph.get(node.input[0])) is not None:
            total += codes.size if codes.dtype == np.int8 else 0
            same += _keep_codes(node, graph, before, floats, hold_steps) if codes.dtype == np.int8 else 0
    for node in model.graph.node:
        _rescale_bias(node, graph, floats)
    frozen: bytes = model.SerializeToString()
    return Kept(frozen, same / max(total, 1))


class _Constants:
    """The constants of a graph, by name."""

    def __init__(self, graph: GraphProto) -> None:
        self._tensors: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.made_by: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output}

    def get(self, name: str) -> Array | None:
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def put(self, name: str, array: Array) -> None:
        """Other values of the same shape and type, written down in the same way: another one would be other bytes."""
        tensor = self._tensors[name]
        if tensor.raw_data:
            tensor.raw_data = numpy_helper.from_array(np.ascontiguousarray(array), name).raw_data
        elif tensor.float_data:
            tensor.float_data[:] = array.ravel().tolist()
        else:
            tensor.int32_data[:] = array.ravel().tolist()


def _keep_range(node: NodeProto, graph: _Constants, before: _Constants) -> None:
    """Of an activation: scale and zero point of the parent's, if they fit."""
    scale, zero = (graph.get(name) for name in node.input[1:3])
    scale_before, zero_before = (before.get(name) for name in node.input[1:3])
    if scale is None or zero is None or scale_before is None or zero_before is None:
        return
    if scale.size != 1 or scale_before.shape != scale.shape or zero_before.dtype != zero.dtype:
        return
    low, high = _range(scale, zero)
    low_before, high_before = _range(scale_before, zero_before)
    clipped = max(0.0, low_before - low) + max(0.0, high - high_before)
    if clipped <= CLIPPED_MAX * (high - low) and high_before - low_before <= COARSER_MAX * (high - low):
        graph.put(node.input[1], scale_before)
        graph.put(node.input[2], zero_before)


def _range(scale: Array, zero: Array) -> tuple[float, float]:
    codes = np.iinfo(zero.dtype)
    low, high = (float((code - int(zero)) * float(scale)) for code in (codes.min, codes.max))
    return low, high


def _keep_codes(node: NodeProto, graph: _Constants, before: _Constants, floats: _Constants, hold_steps: float) -> int:
    """Of a weight: scales of the parent's where they fit, and its codes where they are near; how many are the same."""
    codes, scale = graph.get(node.input[0]), graph.get(node.input[1])
    codes_before, scale_before = before.get(node.input[0]), before.get(node.input[1])
    weight = floats.get(node.input[0].removesuffix("_quantized"))
    if codes is None or scale is None or codes_before is None or scale_before is None or weight is None:
        return 0
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if scale.ndim != 1 or scale_before.ndim != 1 or codes_before.ndim != codes.ndim or weight.shape != codes.shape:
        return 0
    rows, rows_before = np.moveaxis(weight, axis, 0), np.moveaxis(codes_before, axis, 0)
    if rows.shape[1:] != rows_before.shape[1:]:
        return 0
    common = min(len(scale), len(scale_before))  # channels are only ever added, at the end: new classes
    span = np.abs(rows[:common]).reshape(common, -1).max(axis=1)
    reach = LARGEST * scale_before[:common]
    fits = (span <= (1 + CLIPPED_MAX) * reach) & (COARSER_MAX * span >= reach)
    scale = scale.copy()
    scale[:common][fits] = scale_before[:common][fits]
    steps = rows / scale.reshape(-1, *[1] * (rows.ndim - 1))
    new = np.clip(np.rint(steps), -LARGEST, LARGEST).astype(np.int8)
    near = np.abs(steps[:common] - rows_before[:common]) <= hold_steps
    near[~fits] = False
    new[:common][near] = rows_before[:common][near]
    graph.put(node.input[0], np.moveaxis(new, 0, axis))
    graph.put(node.input[1], scale)
    return int(np.count_nonzero(new[:common] == rows_before[:common]))


def _rescale_bias(node: NodeProto, graph: _Constants, floats: _Constants) -> None:
    """A bias counts in products of a step of the data and one of the weight, whatever those are by now."""
    sources = [graph.made_by.get(name) for name in node.input[:3]]
    data, weight, bias = sources if len(sources) == 3 else (None, None, None)
    if data is None or weight is None or bias is None:
        return
    if {source.op_type for source in (data, weight, bias)} != {"DequantizeLinear"}:
        return
    codes, value = graph.get(bias.input[0]), floats.get(bias.input[0].removesuffix("_quantized"))
    step, steps = graph.get(data.input[1]), graph.get(weight.input[1])
    if codes is None or codes.dtype != np.int32 or value is None or step is None or steps is None:
        return
    scale = np.broadcast_to(step * steps, codes.shape).astype(np.float32)
    limits = np.iinfo(np.int32)
    new = np.clip(np.rint(value.astype(np.float64) / scale), limits.min, limits.max)
    graph.put(bias.input[0], new.astype(np.int32))
    graph.put(bias.input[1], scale)
