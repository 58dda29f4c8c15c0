"""Small real ONNX graphs of float32 inputs, with a manifest that is true of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edge_agent.contract.artifact import (
    Golden,
    InputSpec,
    Manifest,
    OnnxFile,
    Reference,
    Tensor,
    sha256_hex,
    write_artifact,
)

Node = tuple[str, list[str], list[str], dict[str, object]]  # operator, inputs, outputs, attributes
WIDTH = 6  # of an input, called "x"


def artifact(
    folder: Path,
    nodes: list[Node],
    weights: dict[str, np.ndarray],
    *,
    outputs: dict[str, list[object]],
    classes: int,
    batch: str | int = "n",
    embedding: str = "",
    **changes: object,
) -> Manifest:
    """Write the graph x (batch, WIDTH) float32 -> `outputs` (name -> shape) as an artifact."""
    onnx = pytest.importorskip("onnx")  # the agent's own environment has none
    helper, tensor = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(kind, ins, outs, **attributes) for kind, ins, outs, attributes in nodes],
        "graph",
        [helper.make_tensor_value_info("x", tensor, [batch, WIDTH])],
        [helper.make_tensor_value_info(name, tensor, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    x = np.random.default_rng(0).normal(size=(9, WIDTH)).astype(np.float32)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(["logits"], {"x": row[None]})[0] for row in x])
    nothing = Tensor.of(np.zeros(1, np.float32))
    manifest = Manifest(
        **{
            "name": "graph",
            "version": 1,
            "files": {"cpu-fp32": OnnxFile(sha256=sha256_hex(data), bytes=len(data))},
            "input": InputSpec(name="x", shape=(WIDTH,), dtype="float32"),
            "classes": tuple(str(index) for index in range(classes)),
            "golden": Golden(inputs=Tensor.of(x), logits=Tensor.of(logits), tolerance=1e-4),
            "reference": Reference(
                embedding_mean=nothing, embedding_sd=nothing, class_centres=nothing,
                class_share=(1 / classes,) * classes, confidence_mean=0.5, utility_quantiles=(), samples=9,
            ),
            "embedding": embedding,
            **changes,
        }
    )  # fmt: skip
    write_artifact(folder, manifest, data)
    return manifest


def as_onnx(codes: bytes) -> bytes:
    """A file that passes for ONNX: the codes stand for the name of its producer."""
    size, head = len(codes), bytearray(b"\x12")
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*head, size)) + codes
