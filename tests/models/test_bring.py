from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.contract.errors import IncompatibleError
from models.bring import bring
from models.errors import DataError
from models.evaluate import accuracy, run_onnx
from models.package import About, Packaged
from models.quantize import to_int8
from models.taps import Taps, find

NAMES = ("low", "middle", "high")
RNG = np.random.default_rng(4)
WEIGHTS = {
    "w1": RNG.normal(0, 0.5, (6, 8)).astype(np.float32),
    "b1": RNG.normal(0, 0.1, 8).astype(np.float32),
    "w2": RNG.normal(0, 0.5, (8, 3)).astype(np.float32),
    "b2": np.zeros(3, np.float32),
}
X = RNG.normal(size=(400, 6)).astype(np.float32)
HIDDEN = np.maximum(X @ WEIGHTS["w1"] + WEIGHTS["b1"], 0)
LOGITS = HIDDEN @ WEIGHTS["w2"] + WEIGHTS["b2"]
Y = LOGITS.argmax(axis=1)

Tail = list[tuple[str, list[str], list[str], dict[str, Any]]]
GEMM: Tail = [("Gemm", ["h", "w2", "b2"], ["z"], {})]


def model(
    tail: Tail,
    *,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
    batch: int | str = "n",
    inputs: tuple[str, ...] = ("x",),
    kind: int = TensorProto.FLOAT,
) -> bytes:
    """x -> dense -> relu -> h, and then whatever `tail` says."""
    body: Tail = [("Gemm", ["x", "w1", "b1"], ["a"], {}), ("Relu", ["a"], ["h"], {}), *tail]
    graph = helper.make_graph(
        [helper.make_node(op, i, o, name=f"n{k}", **more) for k, (op, i, o, more) in enumerate(body)],
        "g",
        [helper.make_tensor_value_info(name, kind, [batch, 6]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, None]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return made.SerializeToString()


def wrapped(file: bytes, **more: Any) -> Packaged:
    given = {"data": X, "y": Y, "precision": "float"} | more
    about = About(name="own", names=given.pop("names", NAMES), version=1)
    named = Taps(given.pop("logits", ""), given.pop("embedding", ""))
    return bring(file, about, named=named, **given).packaged


@pytest.mark.parametrize(
    ("tail", "logits"),
    [
        ([("Gemm", ["h", "w2", "b2"], ["y"], {})], "y"),
        ([*GEMM, ("Softmax", ["z"], ["y"], {"axis": 1})], "z"),
        ([*GEMM, ("LogSoftmax", ["z"], ["y"], {"axis": 1})], "z"),
        ([*GEMM, ("Identity", ["z"], ["i"], {}), ("Softmax", ["i"], ["y"], {"axis": 1})], "z"),
        ([*GEMM, ("Flatten", ["z"], ["f"], {}), ("Softmax", ["f"], ["y"], {"axis": 1})], "f"),
        ([("MatMul", ["h", "w2"], ["m"], {}), ("Add", ["m", "b2"], ["z"], {}), ("Softmax", ["z"], ["y"], {})], "z"),
        ([("Dropout", ["h"], ["d"], {}), ("Gemm", ["d", "w2", "b2"], ["y"], {})], "y"),
    ],
)
def test_logits_and_embedding_are_found(tail: Tail, logits: str) -> None:
    done = wrapped(model(tail))
    assert (done.manifest.logits, done.manifest.embedding) == (logits, "h")
    got_logits, got_embedding = run_onnx(done.onnx, X, logits=logits, embedding="h")
    assert np.allclose(got_logits, LOGITS, atol=1e-5)
    assert np.allclose(got_embedding, HIDDEN, atol=1e-5)
    assert done.accuracy == 1.0
    assert list(done.manifest.files) == ["cpu-fp32"]
    ops = {node.op_type for node in onnx.load_model_from_string(done.onnx).graph.node}
    assert not ops & {"Softmax", "LogSoftmax"}


def test_old_opset_is_raised_and_a_fixed_batch_of_one_is_taken() -> None:
    done = wrapped(model([*GEMM, ("Softmax", ["z"], ["y"], {"axis": 1})], opset=11, batch=1))
    assert done.manifest.opset == 17
    assert np.allclose(run_onnx(done.onnx, X[:9], logits=done.manifest.logits, embedding="h")[0], LOGITS[:9], atol=1e-5)


def test_int8_on_request() -> None:
    done = wrapped(model([*GEMM, ("Softmax", ["z"], ["y"], {"axis": 1})]), precision="int8")
    assert list(done.manifest.files) == ["cpu-int8"]
    assert done.int8_agreement > 0.95
    assert done.manifest.metrics["samples"] == 200
    golden = done.manifest.golden
    logits, _ = run_onnx(done.onnx, golden.inputs.array(), logits="z", embedding="h")
    assert np.abs(logits - golden.logits.array()).max() <= golden.tolerance


def test_int8_of_a_model_that_reshapes_by_an_initializer_as_torch_exports_it() -> None:
    made = onnx.load_model_from_string(
        model([("Reshape", ["h", "to"], ["r"], {}), ("Gemm", ["r", "w2", "b2"], ["y"], {})])
    )
    made.graph.initializer.append(numpy_helper.from_array(np.array([-1, 8]), "to"))
    done = wrapped(made.SerializeToString(), precision="int8")
    assert list(done.manifest.files) == ["cpu-int8"]
    assert done.int8_agreement > 0.95


def test_model_that_is_int8_already_is_left_as_it_is() -> None:
    int8 = to_int8(model([("Gemm", ["h", "w2", "b2"], ["y"], {})]), X, logits="nothing of that name")
    done = wrapped(int8, precision="int8")
    assert list(done.manifest.files) == ["cpu-int8"]
    assert done.int8_agreement == 1.0
    assert done.accuracy is not None
    assert done.accuracy > 0.95
    last = next(n for n in onnx.load_model_from_string(done.onnx).graph.node if done.manifest.logits in n.output)
    assert last.op_type == "Gemm"  # its own quantised tail is bypassed


def test_without_labels_there_is_no_accuracy() -> None:
    done = wrapped(model([("Gemm", ["h", "w2", "b2"], ["y"], {})]), y=None)
    assert done.accuracy is None
    assert done.manifest.temperature == 1.0
    assert set(done.manifest.metrics) == {"int8_agreement"}


TWO_HEADS: Tail = [("Gemm", ["h", "w2", "b2"], ["y"], {}), ("MatMul", ["h", "w2"], ["y2"], {})]


def test_two_heads_need_a_name() -> None:
    file = model(TWO_HEADS, outputs=("y", "y2"))
    with pytest.raises(IncompatibleError, match="several outputs .*logits='y' with embedding='h'; logits='y2'"):
        wrapped(file)
    assert wrapped(file, logits="y2").manifest.logits == "y2"
    assert wrapped(file, logits="y2", embedding="a").manifest.embedding == "a"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: b"no model", "not an ONNX model"),
        (lambda: model([("Sin", ["h"], ["y"], {})]), "no output has a last dense layer.*logits='a' with embedding='x'"),
        (lambda: model([*GEMM, ("Add", ["z", "q"], ["y"], {})], inputs=("x", "q")), r"2 inputs \(x, q\), expected one"),
        (lambda: model([*GEMM, ("Relu", ["z"], ["y"], {})], batch=4), r"shape \[4, 6\], expected a free"),
        (lambda: model([*GEMM, ("Relu", ["z"], ["y"], {})], kind=TensorProto.DOUBLE), "is double, expected float32"),
    ],
)
def test_model_of_another_kind_is_refused(make: Callable[[], bytes], said: str) -> None:
    with pytest.raises(IncompatibleError, match=said):
        wrapped(make())


def test_weights_in_a_second_file_are_refused() -> None:
    loaded = onnx.load_model_from_string(model([("Gemm", ["h", "w2", "b2"], ["y"], {})]))
    tensor = loaded.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="model.onnx.data")
    with pytest.raises(IncompatibleError, match=r"1 tensors \(w1, \.\.\.\) are kept in a second file"):
        wrapped(loaded.SerializeToString())


def test_data_or_names_that_do_not_fit_are_told() -> None:
    file = model([("Gemm", ["h", "w2", "b2"], ["y"], {})])
    with pytest.raises(IncompatibleError, match=r"expected \(N, 2\): one for each name"):
        wrapped(file, names=("a", "b"))
    with pytest.raises(DataError, match=r"the model takes float32 \(N, 6\)"):
        wrapped(file, data=X[:, :5], y=None)
    with pytest.raises(DataError, match="at least 16"):
        wrapped(file, data=X[:4], y=None)
    with pytest.raises(DataError, match=r"y has shape \(9,\), expected \(400,\)"):
        wrapped(file, y=Y[:9])
    with pytest.raises(IncompatibleError, match="no tensor 'nope'"):
        wrapped(file, logits="nope")


def test_taps_of_our_own_export_are_its_outputs(packaged: Packaged) -> None:
    assert find(onnx.load_model_from_string(packaged.onnx).graph).taps == ("logits", "embedding")


def test_wrapped_accuracy_is_of_the_odd_rows() -> None:
    y = Y.copy()
    y[::2] = (y[::2] + 1) % 3  # wrong where it calibrates only
    done = wrapped(model([("Gemm", ["h", "w2", "b2"], ["y"], {})]), y=y)
    assert done.accuracy == accuracy(LOGITS[1::2], y[1::2]) == 1.0
