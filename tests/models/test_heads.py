"""Do several heads on one body work from training to the file, and do server and device understand them alike?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edge_agent.choose.acquisition import Scorer
from edge_agent.choose.committee import bald
from edge_agent.contract.artifact import write_artifact
from edge_agent.model import Model
from models import evaluate
from models.bring import bring
from models.data import Labelled
from models.export import to_onnx
from models.package import About, Packaged, package
from models.train import Net, Settings, fit

Fashion = tuple[Labelled, Labelled]
HEADS = 4


@pytest.fixture(scope="module")
def net(fashion: Fashion) -> Net:
    train, _ = fashion
    return fit(train.x[:1500], train.y[:1500], classes=10, settings=Settings(epochs=4, heads=HEADS))


@pytest.fixture(scope="module")
def made(net: Net, fashion: Fashion) -> Packaged:
    train, test = fashion
    held = (test.x[:800], test.y[:800])
    return package(net, name="clothes", names=train.names, version=1, calibration=train.x[:300], holdout=held)


def raw(onnx_bytes: bytes, x: np.ndarray) -> np.ndarray:
    return evaluate.run_session(evaluate.open_session(onnx_bytes), x, logits="logits", embedding="embedding")[0]


def test_the_file_has_a_head_for_every_member_and_they_differ_where_it_is_hard(
    made: Packaged, fashion: Fashion
) -> None:
    test = fashion[1]
    logits = raw(made.onnx, test.x)
    assert made.manifest.members == HEADS
    assert logits.shape == (2000, HEADS, 10)
    said = evaluate.as_one(logits, made.manifest.temperature)
    right = said.argmax(axis=1) == test.y
    assert right.mean() > 0.75
    disputed = bald(np.ascontiguousarray(logits.transpose(1, 0, 2)))
    assert disputed[~right].mean() > 1.3 * disputed[right].mean()


def test_the_device_takes_the_file_and_says_what_the_server_says(
    made: Packaged, fashion: Fashion, tmp_path: Path
) -> None:
    write_artifact(tmp_path, made.manifest, made.onnx)
    model = Model(tmp_path)
    model.check_golden()
    x, temperature = fashion[1].x[:300], made.manifest.temperature
    device = Scorer("bald", temperature=temperature, members=HEADS).score(model.predict(x))
    server, _ = evaluate.run_onnx(made.onnx, x, temperature=temperature)
    assert (device.label == server.argmax(axis=1)).all()
    np.testing.assert_allclose(device.confidence, evaluate.softmax(server).max(axis=1), rtol=1e-4)
    assert device.energy is not None
    assert float(np.mean(device.energy)) == pytest.approx(made.manifest.reference.energy_mean, abs=0.3)


def test_what_is_measured_is_of_the_committee_as_one(made: Packaged, fashion: Fashion) -> None:
    test = fashion[1]
    x, y = test.x[:800], test.y[:800]
    said, _ = evaluate.run_onnx(made.onnx, x)
    assert made.accuracy == evaluate.accuracy(said, y)
    assert made.manifest.metrics["nll"] == pytest.approx(
        evaluate.nll(raw(made.onnx, x), y, made.manifest.temperature), rel=1e-4
    )
    for temperature in np.geomspace(0.2, 5, 15):
        assert made.manifest.metrics["nll"] <= evaluate.nll(raw(made.onnx, x), y, float(temperature)) + 1e-3
    assert made.int8_agreement > 0.95
    golden = made.manifest.golden
    np.testing.assert_allclose(raw(made.onnx, golden.inputs.array()), golden.logits.array(), atol=golden.tolerance)


def test_no_head_s_logits_are_rounded_to_eight_bits(made: Packaged, fashion: Fashion) -> None:
    logits = raw(made.onnx, fashion[1].x)
    assert all(len(np.unique(logits[:, head])) > 10_000 for head in range(HEADS))
    graph = onnx.load_model_from_string(made.onnx).graph
    assert sum(node.op_type == "Gemm" for node in graph.node) == 1  # one product for all of them


def test_heads_and_classes_grow_and_old_logits_stay(net: Net, clothes_net: Net, fashion: Fashion) -> None:
    x = torch.tensor(fashion[1].x[:100])
    for parent, heads in ((net, HEADS), (net, 2), (clothes_net, 3)):
        grown = Net.load(parent.weights()).module
        grown.grow(12, heads=heads)
        with torch.no_grad():
            old, new = parent.module(x)[0].reshape(100, -1, 10), grown(x)[0]
        assert new.shape == (100, heads, 12)
        kept = min(heads, old.shape[1])
        torch.testing.assert_close(new[:, :kept, :10], old[:, :kept], atol=1e-4, rtol=1e-4)


def test_one_head_becomes_several_that_come_to_differ(clothes_net: Net, fashion: Fashion) -> None:
    train, test = fashion
    settings = Settings(epochs=2, heads=3)
    child = fit(train.x[:1000], train.y[:1000], classes=10, settings=settings, parent=clothes_net.weights())
    logits = raw(to_onnx(child), test.x[:500])
    assert bald(np.ascontiguousarray(logits.transpose(1, 0, 2))).mean() > 1e-4
    assert Net.load(child.weights()).module.heads == 3


def test_somebody_s_own_committee_is_wrapped(net: Net, fashion: Fashion, tmp_path: Path) -> None:
    train, test = fashion
    given = {"data": test.x[:400], "y": test.y[:400], "precision": "int8"}
    done = bring(to_onnx(net), About(name="own", names=train.names, version=1), **given).packaged
    assert done.manifest.members == HEADS
    write_artifact(tmp_path, done.manifest, done.onnx)
    model = Model(tmp_path)
    model.check_golden()
    assert model.predict(test.x[:2]).shape == (2, HEADS, 10)
