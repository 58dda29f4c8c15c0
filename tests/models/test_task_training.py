"""Do nets learn several classes, numbers and boxes, go on from a champion, and ship as what they are?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract import score
from edge_agent.contract.artifact import decode_manifest, encode_manifest
from edge_agent.contract.errors import IncompatibleError
from edge_agent.contract.task import Task
from models import evaluate, focal, testing
from models.checkpoint import Checkpoint
from models.data import require_truth
from models.detector import Detector
from models.errors import DataError
from models.export import to_onnx
from models.kinds.kind import Outputs, kind_of
from models.kinds.several import Multilabel
from models.kinds.values import Regression
from models.package import Packaged, package
from models.recipes.catalogue import build
from models.testing import check_trainer
from models.train import Beside, Net, Settings, fit
from models.trainer import settings_of

VALUED: tuple[Task, ...] = ("multilabel", "regression", "detection")
SHAPES = {"multilabel": (6,), "regression": (6,), "detection": (16, 16)}
QUICK = {"epochs": 3, "batch_size": 16}


@dataclass(frozen=True)
class Given:
    """Of the contract's own making: brightness, or a square by its brightness."""

    task: Task
    x: np.ndarray
    y: np.ndarray
    classes: int = 3

    def settings(self, **told: object) -> Settings:
        made: Settings = settings_of({**QUICK, **told}, self.x.shape[1:], str(self.x.dtype), task=self.task)
        return made

    def fit(self, folder: Path | None = None, parent: Net | None = None, **told: object) -> Net:
        beside = Beside(known=np.arange(len(self.x)) % 2 == 0, probability=np.linspace(0.1, 1.0, len(self.x)))
        before = parent.weights() if parent else None
        return fit(
            self.x, self.y, classes=self.classes, settings=self.settings(**told), task=self.task, parent=before,
            folder=folder, beside=beside,
        )  # fmt: skip


def of(task: Task, classes: int = 3) -> Given:
    level, shape = np.arange(120) % classes, SHAPES[task]
    dtype = "uint8" if task == "detection" else "float32"
    if task == "detection":
        x, y = testing._scenes(level, shape, dtype)
    else:
        x, y = testing._samples(level, shape, dtype), testing._truth(level, task)
    return Given(task, x, y, classes)


@pytest.fixture(scope="module", params=VALUED)
def task(request: pytest.FixtureRequest) -> Given:
    return of(request.param)


@pytest.fixture(scope="module")
def net(task: Given) -> Net:
    return task.fit()


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("multilabel", {"epochs": 3, "batch_size": 16, "heads": 2}),
        ("regression", {"epochs": 6, "batch_size": 16, "heads": 2}),
        ("detection", {"epochs": 12, "batch_size": 16}),
    ],
)
def test_the_contract_of_a_trainer_is_kept(task: Task, told: dict[str, object], tmp_path: Path) -> None:
    dtype = "uint8" if task == "detection" else "float32"
    check_trainer("", tmp_path, shape=SHAPES[task], dtype=dtype, told=told, task=task)


class KilledError(Exception):
    """Where a test stops a training."""


def test_one_that_was_killed_ends_with_the_very_same_weights(task: Given, tmp_path: Path, monkeypatch) -> None:
    told = {"importance_clip": 3.0, "replay": 0.5, "patience": 3, "ema": 0.9}
    parent = task.fit(epochs=1)
    whole = task.fit(parent=parent, **told)
    monkeypatch.setattr("models.learn.CHECKPOINT_STEPS", 1)
    saves, save = [], Checkpoint.save

    def until_third(self: Checkpoint, state: dict) -> None:
        save(self, state)
        saves.append(state["step"])
        if len(saves) == 3:
            raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", until_third)
        with pytest.raises(KilledError):
            task.fit(tmp_path, parent=parent, **told)
    assert task.fit(tmp_path, parent=parent, **told).weights() == whole.weights()


def test_what_is_new_leaves_what_was_said_of_the_old(task: Given, net: Net) -> None:
    grown, x = Net.load(net.weights()).module, torch.tensor(task.x[:20])
    grown.grow(5)
    grown.eval()
    with torch.no_grad():
        old, new = net.module(x), grown(x)
    torch.testing.assert_close(new[0][..., :3], old[0], atol=1e-4, rtol=1e-4)
    if task.task == "detection":
        assert (new[0][..., 3:].sigmoid() < 0.2).all()  # it begins as rare
        torch.testing.assert_close(new[2], old[2], atol=1e-5, rtol=1e-4)
    child = Given(task.task, task.x, task.y, 3).fit(parent=net)
    assert child.classes == 3
    with pytest.raises(DataError, match="classes are only ever added"):
        Given(task.task, task.x, task.y[..., :1] * 0 if task.task != "detection" else task.y * 0 - 1, 1).fit(parent=net)


def test_another_task_s_champion_and_what_is_for_classes_alone_are_told(task: Given, net: Net) -> None:
    other = of("regression" if task.task != "regression" else "multilabel")
    with pytest.raises(DataError, match=r"truth of|taught|samples are|recipe"):
        other.fit(parent=net)
    with pytest.raises(DataError, match=f"distil = 0.5: is for classification, this is {task.task}"):
        task.fit(distil=0.5)
    wrong = "fcos" if task.task != "detection" else "cnn"
    with pytest.raises(DataError, match=f"recipe '{wrong}' is not for {task.task}"):
        build(wrong, (32, 32), classes=3, seed=0, task=task.task)


@pytest.mark.parametrize(
    ("task", "y"),
    [
        ("multilabel", np.full((4, 2), 0.5, np.float32)),
        ("multilabel", np.zeros((4, 3), np.float32)),
        ("regression", np.full((4, 2), np.nan, np.float32)),
        ("regression", np.full((4, 2), np.inf, np.float32)),
        ("detection", np.array([[[2, 0.1, 0.1, 0.5, 0.5, 1]]] * 4, np.float32)),
        ("detection", np.array([[[0, 0.6, 0.1, 0.5, 0.5, 1]]] * 4, np.float32)),
        ("detection", np.zeros((4, 5), np.float32)),
    ],
)
def test_truth_that_is_none_is_told(task: Task, y: np.ndarray) -> None:
    with pytest.raises(DataError, match=rf"truth of {task} is float32 .*, expected float \(4, "):
        require_truth(y, task, samples=4, classes=2)


# --- as shipped ---


@pytest.fixture(scope="module")
def made(task: Given, net: Net) -> Packaged:
    told = {"name": "m", "names": ["a", "b", "c"], "version": 1, "calibration": task.x[:80]}
    return package(net, holdout=(task.x, task.y), **told)


def test_the_manifest_states_what_a_device_needs(task: Given, made: Packaged) -> None:
    manifest = decode_manifest(encode_manifest(made.manifest))
    more = {"multilabel": "", "regression": "spread", "detection": "boxes"}[task.task]
    assert manifest.task == task.task
    assert manifest.answer is not None
    assert (manifest.answer.boxes or manifest.answer.spread) == more
    assert list(manifest.golden.outputs) == ([more] if more else [])
    if task.task == "regression":
        np.testing.assert_allclose(manifest.answer.scale, task.y.std(axis=0), rtol=1e-4)
        assert manifest.metrics["scale/1"] == pytest.approx(task.y[:, 1].std(), rel=1e-4)
    assert len(manifest.reference.class_share) == len(manifest.outcomes)
    assert sum(manifest.reference.class_share) == pytest.approx(1.0)
    assert 0.0 <= manifest.reference.confidence_mean <= 1.0
    names = [manifest.logits, *manifest.golden.outputs]
    found = evaluate.run_outputs(evaluate.open_session(made.onnx), manifest.golden.inputs.array(), names)
    for one, stated in zip(found, (manifest.golden.logits, *manifest.golden.outputs.values()), strict=True):
        assert np.abs(one - stated.array()).max() <= manifest.golden.tolerance
    shapes = {out.name: [d.dim_value for d in out.type.tensor_type.shape.dim][1:] for out in graph(made).output}
    assert all(all(shape) for shape in shapes.values()), shapes  # a device binds memory of a fixed size


def graph(made: Packaged) -> onnx.GraphProto:
    return onnx.load_model_from_string(made.onnx).graph


def test_int8_says_what_float_says(task: Given, net: Net, made: Packaged) -> None:
    assert made.int8_agreement > 0.9
    assert "QuantizeLinear" in {node.op_type for node in graph(made).node}
    if task.task != "multilabel":  # the last layer stays float: its weights are no int8 codes
        last = next(node for node in graph(made).node if node.name in {"/head/Gemm", "/head.0/head.0.6/Conv"})
        assert not any(name.endswith("_DequantizeLinear_Output") for name in last.input[1:])
    assert len(made.onnx) < 0.6 * len(to_onnx(net))


def test_the_temperature_of_numbers_makes_their_spread_true() -> None:
    rng = np.random.default_rng(0)
    mean, true = rng.normal(0, 3, (400, 2)), rng.normal(0, 1, (400, 2))
    kind = Regression(("a", "b"), of_scale := testing.Answer(spread="spread", scale=(1.0, 1.0)))
    said = Outputs(mean, np.zeros((400, 4)), np.full((400, 2), 2.0 * np.log(0.25)))  # claims a quarter of the sd
    temperature = kind.temperature(said, mean + true)
    assert temperature == pytest.approx(4.0, rel=0.1)
    assert kind.metrics(said, mean + true, temperature)["coverage"] == pytest.approx(0.9, abs=0.03)
    assert kind.metrics(said, mean + true, 1.0)["coverage"] < 0.5
    heads = Outputs(np.stack([mean - 1.0, mean + 1.0], axis=1), np.zeros((400, 4)))
    np.testing.assert_allclose(Regression(("a", "b"), of_scale).read(heads)[1], 1.0)  # what they differ by


@given(st.integers(0, 100))
def test_several_heads_are_the_mean_of_their_probabilities(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, (5, 4, 3))
    kind, y = Multilabel(("a", "b", "c"), testing.Answer()), np.ones((5, 3))
    chance = (1 / (1 + np.exp(-logits))).mean(axis=1)
    np.testing.assert_allclose(kind.score(Outputs(logits, logits), y), (chance >= 0.5).mean(axis=1))


def test_outputs_of_another_shape_or_not_finite_are_told() -> None:
    logits, boxes = np.zeros((2, 9, 3)), np.tile(np.array([0.1, 0.1, 0.9, 0.9]), (2, 9, 1))
    kind = kind_of("detection", ["a", "b", "c"], testing.Answer(boxes="boxes"))
    kind.check(Outputs(logits, logits, boxes))
    for bad in (
        Outputs(logits, logits),
        Outputs(logits[..., :2], logits, boxes),
        Outputs(logits, logits, boxes[:, 1:]),
    ):
        with pytest.raises(IncompatibleError, match="has shape"):
            kind.check(bad)
    boxes[0, 0, 0] = np.nan
    truth = score.stacked([np.zeros((0, 6)), np.array([[0, 0.1, 0.1, 0.9, 0.9, 1.0]])])
    found = kind.score(Outputs(logits, logits, boxes), truth)
    assert found[0] == 0.0  # nothing there and nothing said, but what is said cannot be read
    with pytest.raises(IncompatibleError, match="second output of log variances"):
        kind_of("regression", ["a"]).check(Outputs(np.zeros((2, 1)), logits))


# --- where boxes are ---


def test_every_box_is_learned_somewhere_and_places_decode_what_they_are_taught() -> None:
    net = build("fcos", (64, 48), classes=2, seed=0, task="detection")
    assert isinstance(net, Detector)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        low = rng.uniform(0.0, 0.8, 2)
        size = rng.uniform(0.03, 1.0, 2) * (1.0 - low)
        rows.append([rng.integers(2), *low, *(low + np.maximum(size, 0.03)), 1.0])
    y = torch.tensor(np.array(rows, np.float32))[:, None]
    due = focal.assign(net, y)
    assert (due.label >= 0).any(dim=1).all()
    taught = due.label >= 0
    torch.testing.assert_close(due.box[taught], y[:, 0, 1:5].repeat_interleave(taught.sum(dim=1), dim=0))
    step = torch.stack([net.place[:, 2], net.place[:, 2] * net.ratio], dim=1)
    away = torch.cat([net.place[:, :2] - due.box[..., :2], due.box[..., 2:] - net.place[:, :2]], dim=-1)
    reach = away / torch.cat([step, step], dim=-1)
    inside = taught & (reach > 0.0).all(dim=2)
    raw = torch.cat([torch.zeros(*due.label.shape, 2), reach.clamp(min=1e-6).log()], dim=2)
    said = net.boxes(raw)
    torch.testing.assert_close(said[inside], due.box[inside], atol=1e-4, rtol=1e-4)
    assert focal.giou(said[inside], due.box[inside]).min() > 0.999


def test_nothing_to_find_is_learned_too() -> None:
    net = build("fcos", (32, 32), classes=2, seed=0, task="detection")
    assert isinstance(net, Detector)
    y = torch.zeros(3, 1, 6)
    y[..., 0] = -1.0
    raw = net.raw(torch.zeros(3, 32, 32))[0]
    blamed = focal.detection(net, raw, y, torch.ones(3, 1))
    blamed.backward()
    assert 0.0 < float(blamed) < 10.0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())


def test_photographs_are_searched_by_a_pretrained_net() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    x = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    net = build("ssdlite", (64, 64, 3), classes=3, seed=0, task="detection").eval()
    shipped = to_onnx(Net(net, "ssdlite", (64, 64, 3), "uint8", 3, "detection"))
    found = evaluate.run_outputs(evaluate.open_session(shipped), x, ["logits", "embedding", "boxes"])
    places = 8**2 + 4**2 + 2**2
    assert [one.shape for one in found] == [(2, places, 3), (2, 320), (2, places, 4)]
    with torch.no_grad():
        own = net(torch.tensor(x))
    for one, other in zip(found, own, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    with pytest.raises(DataError, match="recipe 'ssdlite' takes"):
        build("ssdlite", (32, 32), classes=3, seed=0, task="detection")
