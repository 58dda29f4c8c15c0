"""A little detector as a real ONNX file: bright and dark cells of a grey picture, each of 4 x 4 pixels.

Its anchors are the 16 cells of an image (16, 16) uint8; class 0 is "bright", 1 is "dark". The embedding is the mean of
each cell.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edge_agent.contract.artifact import (
    Answer,
    Golden,
    InputSpec,
    Manifest,
    OnnxFile,
    Reference,
    Tensor,
    sha256_hex,
    write_artifact,
)

SIDE, CELL, GREY = 16, 4, 128
CELLS = (SIDE // CELL) ** 2
GAIN = 24.0
ANSWER = Answer(boxes="boxes", score_min=0.3, overlap_max=0.5, most=20)


def corners() -> np.ndarray:
    """(CELLS, 4) float32, a little smaller than the cells, so that the inner ones touch no edge."""
    rows, columns = np.divmod(np.arange(CELLS), SIDE // CELL)
    low = np.stack((columns, rows), axis=1) * CELL
    found: np.ndarray = np.concatenate((low + 0.1, low + CELL - 0.1), axis=1) / SIDE
    return found.astype(np.float32)


def graph(*, shift: float = 0.0) -> bytes:
    """`shift`: of the logits, to make another model of it."""
    onnx = pytest.importorskip("onnx")  # the agent's own environment has none
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = {
        "planes": np.array([-1, 1, SIDE, SIDE]),
        "rows": np.array([-1, CELLS, 1]),
        "flat": np.array([-1, CELLS]),
        "gain": np.array([[[GAIN / 255.0, -GAIN / 255.0]]], np.float32),
        "bias": np.array([[[-0.75 * GAIN + shift, 0.25 * GAIN + shift]]], np.float32),
        "none": np.zeros(1, np.float32),
        "anchors": corners()[None],
    }
    nodes = [
        ("Cast", ["image"], ["pixels"], {"to": kinds.FLOAT}),
        ("Reshape", ["pixels", "planes"], ["plane"], {}),
        ("AveragePool", ["plane"], ["pooled"], {"kernel_shape": [CELL, CELL], "strides": [CELL, CELL]}),
        ("Reshape", ["pooled", "flat"], ["embedding"], {}),
        ("Reshape", ["pooled", "rows"], ["cells"], {}),
        ("Mul", ["cells", "gain"], ["scaled"], {}),
        ("Add", ["scaled", "bias"], ["logits"], {}),
        ("Mul", ["cells", "none"], ["zeros"], {}),
        ("Add", ["zeros", "anchors"], ["boxes"], {}),
    ]
    outputs = {"logits": ["n", CELLS, 2], "boxes": ["n", CELLS, 4], "embedding": ["n", CELLS]}
    made = helper.make_graph(
        [helper.make_node(kind, ins, outs, **attributes) for kind, ins, outs, attributes in nodes],
        "scenes",
        [helper.make_tensor_value_info("image", kinds.UINT8, ["n", SIDE, SIDE])],
        [helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def detector(folder: Path, *, shift: float = 0.0, **changes: object) -> Manifest:
    """Write it as an artifact."""
    data, x = graph(shift=shift), stream(12, seed=9)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    logits, boxes, embedding = session.run(["logits", "boxes", "embedding"], {"image": x})
    golden = Golden(inputs=Tensor.of(x), logits=Tensor.of(logits), tolerance=0.01, outputs={"boxes": Tensor.of(boxes)})
    reference = Reference(
        embedding_mean=Tensor.of(embedding.mean(axis=0)), embedding_sd=Tensor.of(embedding.std(axis=0) + 1.0),
        class_centres=Tensor.of(np.tile(embedding.mean(axis=0), (3, 1))), class_share=(0.4, 0.4, 0.2),
        confidence_mean=0.8, utility_quantiles=(), samples=12,
    )  # fmt: skip
    known: dict[str, object] = {
        "name": "scenes", "version": 1, "files": {"cpu-fp32": OnnxFile(sha256=sha256_hex(data), bytes=len(data))},
        "input": InputSpec(name="image", shape=(SIDE, SIDE), dtype="uint8"), "classes": ("bright", "dark"),
        "golden": golden, "reference": reference, "task": "detection", "answer": ANSWER,
    }  # fmt: skip
    manifest = Manifest(**(known | changes))
    write_artifact(folder, manifest, data)
    return manifest


def picture(cells: dict[int, float]) -> np.ndarray:
    """(SIDE, SIDE) uint8: grey but for some cells, by number, and their brightness 0..1."""
    x = np.full((SIDE, SIDE), GREY, np.uint8)
    for cell, bright in cells.items():
        row, column = divmod(cell, SIDE // CELL)
        x[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = round(255 * bright)
    return x


def brightness(score: float) -> float:
    """At which a cell is "bright" with that score."""
    return 0.75 + float(np.log(score / (1.0 - score))) / GAIN


def stream(count: int, *, seed: int = 0) -> np.ndarray:
    """(count, SIDE, SIDE): up to three cells of any brightness, now and then none."""
    rng = np.random.default_rng(seed)
    cells = [rng.choice(CELLS, rng.integers(0, 4), replace=False).tolist() for _ in range(count)]
    return np.stack([picture({cell: rng.random() for cell in one}) for one in cells])
