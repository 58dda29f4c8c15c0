"""How does a network become an ONNX file?

One file with its weights inside, raw samples in, two outputs: `logits` and the `embedding` they are made from; `boxes`
or a `spread` where the task has them. The batch axis is free. Opset 17 and IR 8 load in every onnxruntime since 1.12:
boards on Python 3.10 stop at 1.23.
"""

from __future__ import annotations

import copy
import io
import warnings

import numpy as np
import onnx
import torch

from edge_agent.contract.artifact import Answer
from models.net import Network
from models.regressor import Regressor
from models.train import Net

INPUT, LOGITS, EMBEDDING = "input", "logits", "embedding"
OPSET, IR_VERSION = 17, 8


def answer_of(net: Net) -> Answer | None:
    """How what the exported graph gives is read; None of a classifier."""
    if isinstance(net.module, Regressor):
        return Answer(spread=net.module.more, scale=tuple(net.module.scale.tolist()))
    if net.task == "detection":
        return Answer(boxes=net.module.more)
    return None if net.task == "classification" else Answer()


def to_onnx(net: Net, *, opset: int = OPSET) -> bytes:
    """The network as ONNX bytes, batch normalisation folded into the convolutions."""
    module = copy.deepcopy(net.module).cpu().eval()
    names = [LOGITS, EMBEDDING, *([net.module.more] if net.module.more else [])]
    sample = torch.from_numpy(np.zeros((2, *net.shape), dtype=net.dtype))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's note that it is the old one
        # The old exporter on purpose: the new one cannot go below opset 18 (it silently gives 18 when asked for 17),
        # takes 8 s instead of 0.7 s, and writes the weights to a second file unless told not to.
        torch.onnx.export(
            module,
            (sample,),
            buffer,  # type: ignore[arg-type]  # the old exporter takes a buffer, though its types say a path
            input_names=[INPUT],
            output_names=names,
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *names)},
            opset_version=opset,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    _state_shapes(model, module, sample)
    model.ir_version = max(IR_VERSION, onnx.helper.find_min_ir_version_for(list(model.opset_import)))
    onnx.checker.check_model(model)
    exported: bytes = model.SerializeToString()
    return exported


def _state_shapes(model: onnx.ModelProto, module: Network, sample: torch.Tensor) -> None:
    """Name the lengths of the outputs' axes, but for the batch: the exporter loses those behind a slice."""
    with torch.no_grad():
        given = module(sample)
    for output, tensor in zip(model.graph.output, given, strict=True):
        for axis, length in zip(list(output.type.tensor_type.shape.dim)[1:], tensor.shape[1:], strict=True):
            axis.dim_value = length
