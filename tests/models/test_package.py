from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edge_agent.contract.artifact import check_bytes, decode_manifest, encode_manifest
from edge_agent.contract.errors import IncompatibleError
from models import data
from models.errors import DataError
from models.evaluate import accuracy, agreement, run_onnx, softmax
from models.export import to_onnx
from models.package import Packaged, package
from models.quantize import to_int8
from models.train import Net, Settings, fit

Fashion = tuple[data.Labelled, data.Labelled]


def test_int8_agrees_with_float(packaged: Packaged, clothes_net: Net, fashion: Fashion) -> None:
    _, test = fashion
    assert len(test.x) >= 2000
    float_logits, _ = run_onnx(to_onnx(clothes_net), test.x)
    logits, _ = run_onnx(packaged.onnx, test.x)
    assert agreement(float_logits, logits) == packaged.int8_agreement >= 0.99
    assert packaged.accuracy == pytest.approx(accuracy(logits, test.y))
    assert packaged.fp32_accuracy == pytest.approx(accuracy(float_logits, test.y))
    assert accuracy(logits, test.y) > 0.78
    top = -np.partition(-logits, 1, axis=1)
    assert np.count_nonzero(top[:, 0] == top[:, 1]) == 0  # the tail is float: no margin ties at 0


def test_file_loads_on_older_runtimes(packaged: Packaged) -> None:
    model = onnx.load_model_from_string(packaged.onnx)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version <= 8
    assert (packaged.manifest.opset, packaged.manifest.ir_version) == (17, model.ir_version)
    assert {node.op_type for node in model.graph.node} >= {"QuantizeLinear", "Conv"}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    last = next(node for node in model.graph.node if "logits" in node.output)
    assert last.op_type == "Gemm"


def test_preparation_is_not_quantised(packaged: Packaged) -> None:
    model = onnx.load_model_from_string(packaged.onnx)
    made_by = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("Sub", "Mul"):
            assert made_by[node.input[0]].op_type in ("Cast", "Sub")


def test_batches_of_any_size_give_the_same(packaged: Packaged, fashion: Fashion) -> None:
    _, test = fashion
    one, one_embedding = run_onnx(packaged.onnx, test.x[:32], batch=1)
    all_, all_embedding = run_onnx(packaged.onnx, test.x[:32], batch=32)
    assert np.allclose(one, all_, atol=1e-5)
    assert np.allclose(one_embedding, all_embedding, atol=1e-5)


def test_golden_inputs_reproduce_in_a_fresh_session(packaged: Packaged) -> None:
    manifest = decode_manifest(encode_manifest(packaged.manifest))
    check_bytes(packaged.onnx, manifest.files["cpu-int8"], where="test")
    inputs, expected = manifest.golden.inputs.array(), manifest.golden.logits.array()
    assert inputs.shape == (8, *manifest.input.shape)
    assert inputs.dtype == manifest.input.dtype
    assert (inputs[0] == 0).all()
    session = ort.InferenceSession(packaged.onnx, providers=["CPUExecutionProvider"])
    (logits,) = session.run([manifest.logits], {manifest.input.name: inputs})
    assert np.abs(logits - expected).max() <= manifest.golden.tolerance
    assert 0.05 <= manifest.golden.tolerance < np.ptp(expected) / 20
    # The tolerance tells another model from this one.
    assert np.abs(np.roll(logits, 1, axis=1) - expected).max() > manifest.golden.tolerance


def test_manifest_says_what_was_told_and_measured(packaged: Packaged, fashion: Fashion) -> None:
    train, test = fashion
    manifest = packaged.manifest
    told = (manifest.name, manifest.version, manifest.parent, manifest.snapshot, manifest.input.unit)
    assert told == ("clothes", 3, 2, "abc", "grey level 0..255")
    assert manifest.classes == train.names
    assert 0.1 < manifest.temperature < 10
    logits, _ = run_onnx(packaged.onnx, test.x)
    assert manifest.metrics["accuracy"] == pytest.approx(accuracy(logits, test.y))
    assert manifest.metrics["ece"] < 0.06
    assert manifest.metrics["samples"] == 2000


def test_reference_is_of_what_training_has_not_seen(packaged: Packaged, fashion: Fashion) -> None:
    _, test = fashion
    manifest = packaged.manifest
    logits, embedding = run_onnx(packaged.onnx, test.x)
    probs = np.sort(softmax(logits, manifest.temperature), axis=1)
    reference = manifest.reference
    assert reference.samples == 2000
    assert np.allclose(reference.embedding_mean.array(), embedding.mean(axis=0), atol=1e-4)
    assert (reference.embedding_sd.array() > 0).all()
    assert sum(reference.class_share) == pytest.approx(1.0)
    assert reference.confidence_mean == pytest.approx(probs[:, -1].mean())
    energy = -np.log(np.exp(logits / manifest.temperature).sum(axis=1))
    assert reference.energy_mean == pytest.approx(energy.mean(), rel=1e-5)
    quantiles = np.array(reference.utility_quantiles)
    assert len(quantiles) == 21
    assert (np.diff(quantiles) >= 0).all()
    assert 0 <= quantiles[0] <= quantiles[-1] <= 1
    assert quantiles[10] == pytest.approx(np.median(1 - (probs[:, -1] - probs[:, -2])))
    label = int(logits.argmax(axis=1)[0])
    centre = embedding[logits.argmax(axis=1) == label].mean(axis=0)
    assert np.allclose(reference.class_centres.array()[label], centre, atol=1e-4)


def test_too_few_held_out_leave_the_reference_to_the_calibration_data(clothes_net: Net, fashion: Fashion) -> None:
    train, test = fashion
    told = {"name": "clothes", "names": train.names, "version": 1, "int8": False}
    made = package(clothes_net, calibration=train.x[:300], holdout=(test.x[:50], test.y[:50]), **told)
    _, embedding = run_onnx(made.onnx, train.x[:300])
    assert made.manifest.reference.samples == 300
    assert np.allclose(made.manifest.reference.embedding_mean.array(), embedding.mean(axis=0), atol=1e-4)


def test_float_can_be_shipped(clothes_net: Net, fashion: Fashion) -> None:
    train, test = fashion
    shipped = package(
        clothes_net,
        name="clothes",
        names=train.names,
        version=1,
        calibration=train.x[:100],
        holdout=(test.x[:300], test.y[:300]),
        int8=False,
    )
    assert list(shipped.manifest.files) == ["cpu-fp32"]
    assert shipped.int8_agreement == 1.0
    assert shipped.accuracy == shipped.fp32_accuracy


def test_data_that_does_not_fit_is_told(clothes_net: Net, fashion: Fashion) -> None:
    train, test = fashion
    told = {"name": "clothes", "version": 1, "int8": False}
    with pytest.raises(IncompatibleError, match=r"expected \(N, 2\): one for each name"):
        package(clothes_net, names=["a", "b"], calibration=train.x[:50], holdout=(test.x, test.y), **told)
    with pytest.raises(DataError, match=r"calibration is float32 \(50, 28, 28\), the model takes uint8 \(N, 28, 28\)"):
        package(
            clothes_net,
            names=train.names,
            calibration=train.x[:50].astype(np.float32),
            holdout=(test.x, test.y),
            **told,
        )


def test_watch_series_with_the_one_dimensional_network() -> None:
    watch = data.load_watch()
    assert watch.device is not None
    known, new = watch.take(watch.device <= 4), watch.take(watch.device > 4)
    net = fit(known.x, known.y, classes=7, settings=Settings(epochs=5))
    shipped = package(
        net,
        name="watch",
        names=watch.names,
        version=1,
        unit=data.WATCH_UNIT,
        calibration=known.x[::4],
        holdout=(new.x, new.y),
    )
    assert net.recipe == "cnn1d"
    assert shipped.int8_agreement >= 0.985  # on people it was not calibrated on
    assert shipped.accuracy is not None
    assert shipped.accuracy > 0.6  # seven classes, a wearer never seen
    golden = shipped.manifest.golden
    logits, _ = run_onnx(shipped.onnx, golden.inputs.array())
    assert np.abs(logits - golden.logits.array()).max() <= golden.tolerance


def test_model_that_cannot_be_quantised_is_told() -> None:
    node = onnx.helper.make_node("NoSuchOperator", ["input"], ["logits"])
    entry = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [None, 3]) for n in ("input", "logits")]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", entry[:1], entry[1:]))
    with pytest.raises(IncompatibleError, match="cannot be quantised"):
        to_int8(model.SerializeToString(), np.zeros((8, 3), np.float32))


def test_truth_that_does_not_fit_is_told(clothes_net: Net, fashion: Fashion) -> None:
    train, test = fashion
    for y, said in ((test.y[:5], r"int64 \(5,\)"), (test.y + 1, r"1\.\.10, expected whole numbers 0\.\.9")):
        with pytest.raises(DataError, match=said):
            package(
                clothes_net,
                name="clothes",
                names=train.names,
                version=1,
                calibration=train.x[:50],
                holdout=(test.x, y),
                int8=False,
            )
