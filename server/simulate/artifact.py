"""Which model do light devices fetch?

One that nobody runs: a valid ONNX file of the wanted size, its weights drawn at random so that no packing makes it
smaller, and a manifest that says what it is. What the server does with it (checks, parcels, blocks) it does with any.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
from server.simulate.words import CLASSES

INPUTS = 256
VARIANT = "cpu-fp32"


def write(folder: Path, version: int, *, size_bytes: int, rng: np.random.Generator) -> str:
    """Write the artifact folder of a version; returns the hash of its ONNX file."""
    data = _onnx(size_bytes, rng)
    none = Tensor.of(np.zeros((1, CLASSES), np.float32))
    manifest = Manifest(
        name="simulated",
        version=version,
        files={VARIANT: OnnxFile(sha256=sha256_hex(data), bytes=len(data))},
        input=InputSpec(name="x", shape=(INPUTS,), dtype="float32"),
        classes=tuple(f"class-{n}" for n in range(CLASSES)),
        golden=Golden(inputs=Tensor.of(np.zeros((1, INPUTS), np.float32)), logits=none, tolerance=1e-3),
        reference=Reference(
            embedding_mean=Tensor.of(np.zeros(INPUTS, np.float32)),
            embedding_sd=Tensor.of(np.ones(INPUTS, np.float32)),
            class_centres=Tensor.of(np.zeros((CLASSES, INPUTS), np.float32)),
            class_share=(1.0 / CLASSES,) * CLASSES,
            confidence_mean=0.9,
            utility_quantiles=tuple(n / 20 for n in range(21)),
            samples=1000,
        ),
        embedding="",
        notes=("made by winnow-server simulate: nobody can run it",),
    )
    write_artifact(folder, manifest, data)
    return manifest.files[VARIANT].sha256


def _onnx(size_bytes: int, rng: np.random.Generator) -> bytes:
    from onnx import TensorProto, helper

    rows = max(1, size_bytes // (4 * INPUTS))
    weights = rng.standard_normal((INPUTS, rows)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "simulated",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", INPUTS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)],
    )
    opset = helper.make_opsetid("", 17)
    made: bytes = helper.make_model(graph, ir_version=8, opset_imports=[opset]).SerializeToString()
    return made
