"""A tiny real model for tests: which quadrant of an 8x8 grey image is lit? See golden/artifact-1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.contract.artifact import MODEL, Manifest, OnnxFile, Tensor, read_artifact, sha256_hex, write_artifact
from edge_agent.runtime import open_session

ARTIFACT = Path(__file__).parent / "golden" / "artifact-1"
CLASSES = 4


def images(count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x (N, 8, 8) uint8, y (N,) int64. Dim ones are hard."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count)
    lit = np.zeros((CLASSES, 8, 8))
    for c in range(CLASSES):
        top, left = c // 2 * 4, c % 2 * 4
        lit[c, top : top + 4, left : left + 4] = 200
    x = lit[y] * rng.uniform(0.05, 1.0, (count, 1, 1)) + rng.normal(0, 25, (count, 8, 8))
    return np.clip(x, 0, 255).astype(np.uint8), y


def artifact(folder: Path, **changes: object) -> Manifest:
    """Write the artifact to `folder`, its manifest changed as told."""
    manifest, _ = read_artifact(ARTIFACT)
    manifest = msgspec.structs.replace(manifest, **changes)
    write_artifact(folder, manifest, (ARTIFACT / MODEL).read_bytes())
    return manifest


def another(folder: Path, *, version: int, seed: int = 0, noise: float = 0.3) -> Manifest:
    """Write an artifact of the same kind that sees things a little differently: its weights are disturbed."""
    rng = np.random.default_rng(seed)

    def disturbed(weights: np.ndarray) -> np.ndarray:
        return weights + noise * weights.std() * rng.standard_normal(weights.shape)

    return _changed(folder, disturbed, version=version, golden=read_artifact(ARTIFACT)[0].golden.inputs.array())


def committee(folder: Path, *, version: int, heads: int = 2) -> Manifest:
    """Write an artifact of the same kind whose heads all say what the one says."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_model_from_string((ARTIFACT / MODEL).read_bytes())
    said = read_artifact(ARTIFACT)[0].logits
    for node in graph.graph.node:
        node.output[:] = ["one" if name == said else name for name in node.output]
        node.input[:] = ["one" if name == said else name for name in node.input]
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "second axis"))
    graph.graph.node.append(onnx.helper.make_node("Unsqueeze", ["one", "second axis"], ["head"]))
    graph.graph.node.append(onnx.helper.make_node("Concat", ["head"] * heads, [said], axis=1))
    (output,) = (one for one in graph.graph.output if one.name == said)
    shape = onnx.helper.make_tensor_value_info(said, onnx.TensorProto.FLOAT, ["n", heads, CLASSES])
    output.CopyFrom(shape)
    golden = read_artifact(ARTIFACT)[0].golden.inputs.array()
    return _written(folder, graph.SerializeToString(), version=version, golden=golden, members=heads)


def overflowing(folder: Path, *, version: int) -> Manifest:
    """Write an artifact that passes its golden test, and gives no finite logits for whatever is lit."""
    dark = np.zeros_like(read_artifact(ARTIFACT)[0].golden.inputs.array())
    return _changed(folder, lambda weights: weights * 1e30, version=version, golden=dark)


def _changed(folder: Path, change: Callable[[np.ndarray], np.ndarray], *, version: int, golden: np.ndarray) -> Manifest:
    """Write the artifact with other weights, and a golden test that it passes."""
    onnx = pytest.importorskip("onnx")  # the agent's own environment has none
    graph = onnx.load_model_from_string((ARTIFACT / MODEL).read_bytes())
    for tensor in graph.graph.initializer:
        weights = onnx.numpy_helper.to_array(tensor)
        if weights.ndim == 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array(change(weights).astype(np.float32), tensor.name))
    return _written(folder, graph.SerializeToString(), version=version, golden=golden)


def _written(folder: Path, data: bytes, *, version: int, golden: np.ndarray, **changes: object) -> Manifest:
    manifest, _ = read_artifact(ARTIFACT)
    logits = open_session(data).run([manifest.logits], {manifest.input.name: golden})[0]
    manifest = msgspec.structs.replace(
        manifest,
        version=version,
        files={"cpu-fp32": OnnxFile(sha256=sha256_hex(data), bytes=len(data))},
        golden=msgspec.structs.replace(manifest.golden, inputs=Tensor.of(golden), logits=Tensor.of(logits)),
        **changes,
    )
    write_artifact(folder, manifest, data)
    return manifest
