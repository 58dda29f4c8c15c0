"""Does a regressor of scikit-learn, or of torch, say on a device what it says at home, and how sure it is?"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from test_exports import ROWS, by_torchscript
from torch import nn

from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.choose.rules import Rules
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.contract.artifact import write_artifact
from edge_agent.contract.errors import IncompatibleError
from edge_agent.contract.types import Reading
from edge_agent.intake import Intake
from edge_agent.loop import Cursor, Loop
from edge_agent.model import Model
from edge_agent.outgoing import Identity
from edge_agent.send.writer import Handover
from models.bring import Brought, bring
from models.errors import DataError
from models.kinds.kind import Outputs, kind_of, run
from models.numbers import STEADY
from models.package import About
from models.taps import Taps

RNG = np.random.default_rng(8)
NAMES = ("flow", "wear")
NOISE = np.where(ROWS[:, 2] > 0, 2.0, 0.1)  # where a model cannot know
NUMBERS = np.stack([20 + 3 * ROWS[:, 0] + NOISE * RNG.normal(size=len(ROWS)), ROWS[:, 1] ** 2], axis=1)
KNOWN = slice(0, 200)  # taught; all are brought with


def linear() -> Any:
    return pytest.importorskip("sklearn.linear_model").LinearRegression()


def ridge() -> Any:
    return pytest.importorskip("sklearn.linear_model").Ridge()


def scaled(model: Any) -> Any:
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
    return pytest.importorskip("sklearn.pipeline").make_pipeline(scaler, model)


def perceptron() -> Any:
    return pytest.importorskip("sklearn.neural_network").MLPRegressor(
        hidden_layer_sizes=(8,), max_iter=40, random_state=0
    )


def forest() -> Any:
    ensemble = pytest.importorskip("sklearn.ensemble")
    return ensemble.RandomForestRegressor(12, max_depth=5, random_state=0)


def boosted() -> Any:
    return pytest.importorskip("sklearn.ensemble").GradientBoostingRegressor(n_estimators=20, random_state=0)


def bagged() -> Any:
    return pytest.importorskip("sklearn.ensemble").BaggingRegressor(ridge(), n_estimators=6, random_state=0)


def tree() -> Any:
    return pytest.importorskip("sklearn.tree").DecisionTreeRegressor(max_depth=3)


def one_each() -> Any:
    return pytest.importorskip("sklearn.multioutput").MultiOutputRegressor(boosted())


def neighbours() -> Any:
    return pytest.importorskip("sklearn.neighbors").KNeighborsRegressor(3)


def exported(model: Any, targets: int, *, opset: int = 17) -> bytes:
    """Taught and exported."""
    skl2onnx = pytest.importorskip("skl2onnx")
    y = NUMBERS[KNOWN, :targets]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(ROWS[KNOWN], y[:, 0] if targets == 1 else y)
    made: bytes = skl2onnx.to_onnx(model, ROWS[:1], target_opset={"": opset, "ai.onnx.ml": 3}).SerializeToString()
    return made


def brought_in(file: bytes, targets: int = 1, **more: Any) -> Brought:
    given = {"data": ROWS, "y": NUMBERS[:, :targets].astype(np.float32)} | more
    return bring(file, About(name="own", names=NAMES[:targets], version=1, task="regression"), **given)


def said(brought: Brought) -> tuple[Outputs, np.ndarray, np.ndarray]:
    """What the file that ships gives of ROWS; means and standard deviations (N, K)."""
    manifest = brought.packaged.manifest
    outputs = run(brought.packaged.onnx, manifest, ROWS)
    kind = kind_of(manifest.task, manifest.classes, manifest.answer)
    return outputs, *kind.read(outputs, manifest.temperature)  # type: ignore[attr-defined]


def runs_on_the_device(brought: Brought, folder: Path) -> None:
    """The agent's own loader takes it, and says what the file says."""
    write_artifact(folder, brought.packaged.manifest, brought.packaged.onnx)
    model = Model(folder)
    model.check_golden()
    model.run(0, ROWS[0])
    np.testing.assert_allclose(model.logits[0], said(brought)[0].logits[0], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "targets", "heads", "width"),
    [
        (linear, 1, 1, 6),
        (ridge, 2, 1, 6),
        (lambda: scaled(ridge()), 1, 1, 6),
        (perceptron, 1, 1, 8),
        (lambda: scaled(perceptron()), 2, 1, 8),
        (tree, 1, 1, 0),
        (forest, 1, 12, 0),
        (lambda: scaled(forest()), 2, 12, 0),
        (boosted, 1, 1, 0),
        (one_each, 2, 1, 0),
        (neighbours, 1, 1, 0),
        (bagged, 1, 6, 6),
        (bagged, 2, 6, 6),
    ],
)
def test_scikit_learn(make: Callable[[], Any], targets: int, heads: int, width: int, tmp_path: Path) -> None:
    model = make()
    brought = brought_in(exported(model, targets), targets)
    outputs, mean, sd = said(brought)
    np.testing.assert_allclose(mean, model.predict(ROWS).reshape(mean.shape), rtol=1e-4, atol=1e-4)
    manifest = brought.packaged.manifest
    assert (manifest.members, manifest.task) == (heads, "regression")
    assert (manifest.embedding == "") == (width == 0)
    assert width in (0, outputs.embedding.shape[1])
    assert (np.ptp(sd, axis=0) > 0.0).tolist() == [heads > 1] * targets  # one is surer of some than of others
    assert any(note.startswith(STEADY[:20]) for note in manifest.notes) == (heads == 1)
    assert manifest.metrics["coverage"] > 0.75
    runs_on_the_device(brought, tmp_path)


def test_a_forest_is_as_unsure_as_its_trees_differ() -> None:
    model = forest()
    brought = brought_in(exported(model, 2), 2)
    outputs, _, sd = said(brought)
    trees = np.stack([one.predict(ROWS) for one in model.estimators_], axis=1)
    np.testing.assert_allclose(outputs.logits, trees, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sd, trees.std(axis=1) * brought.packaged.manifest.temperature, rtol=1e-3, atol=1e-3)
    off = np.abs(model.predict(ROWS)[200:, 0] - NUMBERS[200:, 0])  # of rows that it never saw
    unsure = sd[200:, 0] > np.median(sd[200:, 0])
    assert off[unsure].mean() > 1.3 * off[~unsure].mean()


@pytest.mark.parametrize("opset", [17, 18])
def test_bagged_models_differ_as_they_do_at_home(opset: int) -> None:
    model = bagged()
    outputs, _, _ = said(brought_in(exported(model, 1, opset=opset)))
    each = np.stack([one.predict(ROWS) for one in model.estimators_], axis=1)
    np.testing.assert_allclose(outputs.logits[:, :, 0], each, rtol=1e-4, atol=1e-4)


def test_boosted_trees_are_no_forest_though_nothing_in_the_file_says_so() -> None:
    """As LightGBM's converter leaves them: without a base value."""
    model = boosted().set_params(n_estimators=100)
    file = onnx.load_model_from_string(exported(model, 1))
    (trees,) = file.graph.node
    base = next(one for one in trees.attribute if one.name == "base_values")
    trees.attribute.remove(base)
    y = NUMBERS[:, :1] - helper.get_attribute_value(base)[0]
    assert brought_in(file.SerializeToString(), y=y.astype(np.float32)).packaged.manifest.members == 1


def test_without_a_spread_that_of_its_errors_stands_for_every_sample() -> None:
    """Measured on the rows that calibrate."""
    model = ridge()
    brought = brought_in(exported(model, 2), 2)
    outputs, _, _ = said(brought)
    off = (model.predict(ROWS) - NUMBERS)[::2]
    np.testing.assert_allclose(outputs.more, np.log(np.square(off).mean(axis=0))[None].repeat(300, axis=0), rtol=1e-3)
    answer = brought.packaged.manifest.answer
    assert answer is not None
    assert answer.scale == pytest.approx(NUMBERS[::2].std(axis=0), rel=1e-5)


def test_a_device_then_asks_at_random_within_its_budget(tmp_path: Path) -> None:
    """Trees have no embedding, and nothing is more uncertain than anything else."""
    runs_on_the_device(brought_in(exported(boosted(), 1)), tmp_path)
    model, handed = Model(tmp_path), list[Handover]()
    loop = Loop(
        model,
        NoveltyQuantile(Rules(label_share=0.2, depth_labels=5.0), SplitMix64(3)),
        identity=Identity("pump", "main", 1),
        acquisition="margin",
        cursor=Cursor(),
        flush_s=10.0,
        hand_over=handed.append,
    )
    stream = np.random.default_rng(5).normal(size=(2000, 6)).astype(np.float32)
    Intake(loop).run((Reading(x, seq) for seq, x in enumerate(stream)), threading.Event())
    chosen = [sample for item in handed for sample in item.samples]
    assert 0.17 * 2000 < len(chosen) <= 0.2 * 2000 + 5
    assert len({sample.selection.utility for sample in chosen}) == 1
    taken = stream[[sample.id.seq for sample in chosen]]
    assert np.abs(taken.mean(axis=0)).max() < 0.2  # 4 standard errors: no part of the stream is preferred


class MeanAndLogVariance(nn.Module):
    """As Nix and Weigend have it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.spread = nn.Linear(6, 5), nn.Linear(5, 2), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.relu(self.body(x))
        return self.mean(seen), self.spread(seen)


def test_an_output_of_log_variances_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = MeanAndLogVariance().eval()
    file = by_torchscript(net, torch.from_numpy(ROWS[:2]))
    mean, spread = (entry.name for entry in onnx.load_model_from_string(file).graph.output)
    with pytest.raises(IncompatibleError, match=f"the outputs are {mean}, {spread}: name the one of means"):
        brought_in(file, 2)
    brought = brought_in(file, 2, more=spread)
    outputs, _, _ = said(brought)
    with torch.no_grad():
        expected = [one.numpy() for one in net(torch.from_numpy(ROWS))]
    np.testing.assert_allclose(outputs.logits, expected[0], atol=0.1)
    np.testing.assert_allclose(outputs.more, expected[1], atol=0.1)
    assert outputs.embedding.shape == (300, 5)
    runs_on_the_device(brought, tmp_path)


@pytest.mark.parametrize(
    ("targets", "more", "error", "match"),
    [
        (1, {"y": None}, DataError, "brought with its truths"),
        (1, {"y": NUMBERS.astype(np.float32)}, DataError, r"expected float \(300, 1\) of numbers"),
        (2, {}, IncompatibleError, "has 1 numbers a sample, expected 2: one a name"),
        (1, {"more": "nope"}, IncompatibleError, "no tensor 'nope'"),
        (1, {"named": Taps("", "nope")}, IncompatibleError, "no tensor 'nope'"),
    ],
)
def test_what_does_not_fit_is_told(targets: int, more: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        brought_in(exported(linear(), 1), targets, **more)


def test_a_forest_of_more_targets_is_refused() -> None:
    with pytest.raises(
        IncompatibleError, match=r"shape \(150, 12, 2\), expected \(N, 1\): .*or \(N, T, 1\) of T heads"
    ):
        brought_in(exported(forest(), 2), 1)
