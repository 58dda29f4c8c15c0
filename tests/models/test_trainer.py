"""Do our trainer and somebody's own keep the contract of the seam, and is a bad one told?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from models import evaluate, trainer
from models.curve import Point
from models.errors import DataError
from models.net import Parts, Prepare
from models.testing import check_trainer
from models.trainer import Champion, Task, Trained

HERE = __name__


def centres(task: Task) -> Trained:
    """A trainer without torch: the nearest class mean, as one product."""
    x = task.x.reshape(len(task.x), -1).astype(np.float32)
    means = np.stack([x[task.y == k].mean(axis=0) for k in range(len(task.names))])
    weights = {"m": means.T.copy(), "b": -0.5 * (means**2).sum(axis=1), "s": np.array([0, -1])}
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["f", "s"], ["flat"]),
        helper.make_node("MatMul", ["flat", "m"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["z"]),
        helper.make_node("Softmax", ["z"], ["shares"]),
    ]
    kind = TensorProto.UINT8 if task.x.dtype == np.uint8 else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "centres",
        [helper.make_tensor_value_info("x", kind, ["n", *task.x.shape[1:]])],
        [helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["n", len(task.names)])],
        [numpy_helper.from_array(np.asarray(array, array.dtype if array.dtype == np.int64 else np.float32), name)
         for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Trained(model.SerializeToString(), weights=means.tobytes())


def levels(task: Task) -> Trained:
    """Several classes by one dense layer, least squares on the mean; its outputs are sigmoids, and unnamed."""
    x = task.x.reshape(len(task.x), -1).astype(np.float32)
    mean = np.stack([x.mean(axis=1), np.ones(len(x))], axis=1)
    slope, offset = np.linalg.lstsq(mean, 8.0 * task.y - 4.0, rcond=None)[0]
    weights = {"m": np.tile(slope / x.shape[1], (x.shape[1], 1)), "b": offset, "s": np.array([0, -1])}
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["f", "s"], ["flat"]),
        helper.make_node("Gemm", ["flat", "m", "b"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["shares"]),
    ]
    graph = helper.make_graph(
        nodes,
        "levels",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", *task.x.shape[1:]])],
        [helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["n", len(task.names)])],
        [numpy_helper.from_array(array if name == "s" else array.astype(np.float32), name)
         for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Trained(model.SerializeToString(), weights=b"")


def writes(task: Task) -> Trained:
    task.x[0] = 0
    return centres(task)


def wanders(task: Task) -> Trained:
    task.y[:] = np.random.default_rng().permutation(task.y)
    return centres(task)


def guesses(task: Task) -> Trained:
    shuffled = np.random.default_rng(0).permutation(task.y)
    return centres(Task(**{**vars(task), "y": shuffled}))


def bytes_alone(task: Task) -> bytes:
    return centres(task).onnx


def tells(task: Task) -> Trained:
    for epoch in (1, 2):
        task.progress(epoch / 2, "so far", Point(epoch=np.int64(epoch), loss=np.float32(0.5), held_accuracy=1))
    return centres(task)


def miscounts(task: Task) -> Trained:
    task.progress(0.0, "so far", Point(epoch=0, loss=0.5))
    return centres(task)


def mumbles(task: Task) -> Trained:
    task.progress(0.0, "so far", Point(epoch=1, loss="low"))
    return centres(task)


def stumbles(task: Task) -> Trained:
    return {}[task.names[0]]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", {"epochs": 4, "batch_size": 16}),
        ("", {"epochs": 4, "batch_size": 16, "heads": 3, "distil": 1.0}),
        (f"{HERE}:centres", {}),
        (f"{HERE}:tells", {}),
    ],
)
def test_the_contract_is_kept(name: str, told: dict[str, object], tmp_path: Path) -> None:
    check_trainer(name, tmp_path, shape=(8, 8), dtype="uint8", told=told)


def test_outputs_are_found_for_the_task_that_was_taught(tmp_path: Path) -> None:
    check_trainer(f"{HERE}:levels", tmp_path, shape=(8, 8), dtype="uint8", task="multilabel")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("writes", "writes into the samples"),
        ("wanders", "writes into the samples|another model"),
        ("guesses", "does not learn"),
        ("bytes_alone", "hands back bytes, expected models.trainer.Trained"),
        ("nobody", "has no attribute 'nobody'"),
        ("stumbles", "stumbles': KeyError: 'level 0'"),
        ("miscounts", "epoch 0, expected 1 for the first"),
        ("mumbles", "loss='low'.*expected a whole epoch and numbers"),
    ],
)
def test_one_that_breaks_it_is_told_how(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=said):
        check_trainer(f"{HERE}:{name}", tmp_path, shape=(8, 8), dtype="uint8")


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(DataError, match="expected package.module:name"):
        trainer.found("mine")


def task_of(folder: Path, said: list[str], weights: bytes, **told: object) -> Task:
    y = np.arange(60) % 3
    x = (60 * y[:, None] + np.random.default_rng(0).normal(0, 5, (60, 6))).astype(np.float32)
    return Task(
        x=x, y=y, names=("a", "b", "c"), device=np.full(60, "d"), order=np.arange(60), known=np.zeros(60, np.bool_),
        probability=np.ones(60), champion=Champion(names=("a", "b"), onnx=b"", weights=weights),
        told={"epochs": 6, "batch_size": 8, **told}, folder=folder, progress=lambda _, text, *_more: said.append(text),
    )  # fmt: skip


def test_a_champion_that_cannot_be_gone_on_from_is_not_and_that_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    task = task_of(tmp_path, said, b"of another")
    made = trainer.run("", task)
    assert "from scratch: the champion is of another trainer" in said[0]
    assert evaluate.accuracy(evaluate.run_onnx(made.onnx, task.x)[0], task.y) > 0.8
    said.clear()
    trainer.run("", task_of(tmp_path, said, made.weights, recipe=f"{HERE}:tiny"))
    assert said[0] == f"from scratch: the champion is a 'mlp', and '{HERE}:tiny' is wanted"
    said.clear()
    trainer.run("", task_of(tmp_path, said, made.weights, recipe="mlp"))
    assert said[0].startswith("epoch 1/6")


def tiny(shape: tuple[int, ...]) -> Parts:
    return Parts(Prepare("vector", shape), nn.Linear(shape[0], 4), 4)


def test_a_trainer_of_trees_has_no_embedding_and_ships_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skl2onnx")
    (tmp_path / "of_trees.py").write_text(
        "import skl2onnx\n"
        "from sklearn.ensemble import RandomForestClassifier\n"
        "from models.trainer import Trained\n"
        "def train(task):\n"
        "    forest = RandomForestClassifier(8, max_depth=5, random_state=0).fit(task.x, task.y)\n"
        "    made = skl2onnx.to_onnx(forest, task.x[:1], target_opset={'': 17, 'ai.onnx.ml': 3})\n"
        "    return Trained(made.SerializeToString(), b'')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    check_trainer("of_trees:train", tmp_path / "work", shape=(6,))
