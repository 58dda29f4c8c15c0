"""Are logits and embedding found in what the exporters of others really write, and do they say what the model says?

torch and scikit-learn export here and now; of Keras there are files, made by exports/keras_exports.py.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from edge_agent.contract.artifact import write_artifact
from edge_agent.contract.errors import IncompatibleError
from edge_agent.model import Model
from models.bring import Brought, bring
from models.evaluate import run_onnx, softmax
from models.package import About
from models.preparation import PRESETS, Preparation
from models.taps import PROBABILITY_FLOOR

EXPORTS = Path(__file__).parent / "exports"
NAMES = ("a", "b", "c")
RNG = np.random.default_rng(3)
IMAGES = RNG.normal(size=(48, 3, 16, 16)).astype(np.float32)
ROWS = RNG.normal(size=(300, 6)).astype(np.float32)
THREE = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 0.5)


class SqueezeExcite(nn.Module):
    """Hard-swish, squeeze-and-excite, a depthwise convolution, a dense head behind dropout: MobileNetV3 in small."""

    def __init__(self, *, softmax: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.depthwise, self.down, self.up = nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.drop, self.head, self.softmax = nn.Dropout(0.2), nn.Linear(8, 3), softmax

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.first(x))
        x = x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return torch.flatten(nn.functional.adaptive_avg_pool2d(torch.clamp(x, 0, 6), 1), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.drop(self.embed(x)))
        return torch.softmax(logits, 1) if self.softmax else logits


class FullyConvolutional(nn.Module):
    """As SqueezeNet ends: classes are maps, and the mean over a map is the logit."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 3, 1)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.first(x)).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.head(torch.relu(self.first(x))))
        return torch.flatten(nn.functional.adaptive_avg_pool2d(maps, (1, 1)), 1)


class Recurrent(nn.Module):
    """Windows of 16 steps of 48 numbers; the last state tells the class."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.LSTM(48, 8, batch_first=True), nn.Linear(8, 3)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)[0][:, -1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(x))


def by_torchscript(net: nn.Module, x: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), buffer, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    return buffer.getvalue()


def by_dynamo(net: nn.Module, x: torch.Tensor) -> bytes:
    shapes = ({0: torch.export.Dim("n")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(net, (x,), dynamo=True, external_data=False, dynamic_shapes=shapes, verbose=False)
    return program.model_proto.SerializeToString()


@pytest.mark.parametrize(
    ("make", "x", "export"),
    [
        (lambda: SqueezeExcite(softmax=False), IMAGES, by_torchscript),
        (lambda: SqueezeExcite(softmax=True), IMAGES, by_torchscript),
        (lambda: SqueezeExcite(softmax=True), IMAGES, by_dynamo),
        (FullyConvolutional, IMAGES, by_torchscript),
        (FullyConvolutional, IMAGES, by_dynamo),
        (Recurrent, IMAGES.reshape(48, 16, 48), by_torchscript),
    ],
)
def test_torch(make: Callable[[], Any], x: np.ndarray, export: Callable[..., bytes], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = make().eval()
    brought = brought_in(export(net, torch.from_numpy(x[:2])), x)
    with torch.no_grad():
        expected, embedded = net(torch.from_numpy(x)).numpy(), net.embed(torch.from_numpy(x)).numpy()
    logits, embedding = said(brought, x)
    whole = getattr(net, "softmax", False)
    assert np.allclose(softmax(logits) if whole else logits, expected, atol=1e-5)
    assert np.allclose(embedding, embedded, atol=1e-5)
    runs_on_the_device(brought, x, tmp_path)


@pytest.mark.parametrize(("name", "layout"), [("plain", "NHWC"), ("pointwise", "NCHW")])
def test_keras(name: str, layout: str, tmp_path: Path) -> None:
    file, truth = (EXPORTS / f"keras-{name}.onnx").read_bytes(), np.load(EXPORTS / f"keras-{name}.npz")
    x = truth["x"]
    brought = brought_in(file, x, prepare=PRESETS["bytes"])
    logits, embedding = said(brought, x)
    assert np.allclose(softmax(logits), truth["probabilities"], atol=1e-5)
    assert embedding.shape == (16, {"NHWC": 12, "NCHW": 8}[layout])
    assert brought.packaged.manifest.input.dtype == "uint8"
    assert brought.packaged.manifest.input.shape == (16, 16, 3)
    runs_on_the_device(brought, x, tmp_path)


def forest() -> Any:
    ensemble = pytest.importorskip("sklearn.ensemble")
    return ensemble.RandomForestClassifier(5, max_depth=4, random_state=0)


def logistic() -> Any:
    return pytest.importorskip("sklearn.linear_model").LogisticRegression()


def scaled_logistic() -> Any:
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
    return pytest.importorskip("sklearn.pipeline").make_pipeline(scaler, logistic())


def perceptron() -> Any:
    return pytest.importorskip("sklearn.neural_network").MLPClassifier((8,), max_iter=40, random_state=0)


def boosted() -> Any:
    return pytest.importorskip("sklearn.ensemble").GradientBoostingClassifier(n_estimators=4, random_state=0)


def neighbours() -> Any:
    return pytest.importorskip("sklearn.neighbors").KNeighborsClassifier(3)


def bayes() -> Any:
    return pytest.importorskip("sklearn.naive_bayes").GaussianNB()


def fitted(model: Any, y: np.ndarray, **options: Any) -> bytes:
    """Exported by skl2onnx, with its label and its ZipMap unless they are switched off."""
    skl2onnx = pytest.importorskip("skl2onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(ROWS, y)
    chosen = {id(model): options} if options else None
    target = {"": 17, "ai.onnx.ml": 3}
    return skl2onnx.to_onnx(model, ROWS[:1], target_opset=target, options=chosen).SerializeToString()


@pytest.mark.parametrize("options", [{}, {"zipmap": False}])
@pytest.mark.parametrize(
    ("make", "width"),
    [(logistic, 6), (scaled_logistic, 6), (perceptron, 8), (forest, 0), (boosted, 0), (neighbours, 0), (bayes, 0)],
)
@pytest.mark.parametrize("classes", [2, 3])
def test_scikit_learn(
    make: Callable[[], Any], width: int, options: dict[str, Any], classes: int, tmp_path: Path
) -> None:
    model, y = make(), np.minimum(THREE, classes - 1)
    brought = brought_in(fitted(model, y, **options), ROWS, names=NAMES[:classes])
    logits, embedding = said(brought, ROWS)
    expected = np.maximum(model.predict_proba(ROWS), PROBABILITY_FLOOR)
    assert np.allclose(softmax(logits), expected / expected.sum(axis=1, keepdims=True), atol=1e-4)
    assert embedding.shape[1] == width
    assert (brought.packaged.manifest.embedding == "") == (width == 0)
    assert not {"ZipMap", "ArgMax"} & {
        node.op_type for node in onnx.load_model_from_string(brought.packaged.onnx).graph.node
    }
    runs_on_the_device(brought, ROWS[:48], tmp_path)


def test_classes_that_are_text_are_left_out_of_the_file(tmp_path: Path) -> None:
    brought = brought_in(fitted(forest(), np.array(NAMES)[THREE]), ROWS)
    runs_on_the_device(brought, ROWS[:48], tmp_path)


def test_an_old_export_of_scikit_learn_is_raised(tmp_path: Path) -> None:
    file = onnx.load_model_from_string(fitted(forest(), THREE))
    for entry in file.opset_import:
        entry.version = 9 if entry.domain == "" else 1
    brought = brought_in(file.SerializeToString(), ROWS)
    assert brought.packaged.manifest.opset == 17
    runs_on_the_device(brought, ROWS[:48], tmp_path)


def test_scores_that_are_no_probabilities_are_refused() -> None:
    svm = pytest.importorskip("sklearn.svm")
    with pytest.raises(IncompatibleError, match=r"expected\s+probabilities that sum to 1 \(calibrate"):
        brought_in(fitted(svm.LinearSVC(), THREE), ROWS)


def test_one_unit_is_two_classes() -> None:
    torch.manual_seed(1)
    body = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))
    for net in (body, nn.Sequential(body, nn.Sigmoid()), nn.Sequential(body, nn.Flatten(0))):
        brought = brought_in(by_torchscript(net, torch.from_numpy(ROWS[:2])), ROWS, names=("no", "yes"))
        logits, embedding = said(brought, ROWS)
        with torch.no_grad():
            yes = torch.sigmoid(body(torch.from_numpy(ROWS))).numpy()[:, 0]
        assert np.allclose(softmax(logits)[:, 1], yes, atol=1e-5)
        assert embedding.shape == (300, 5)


def test_a_sigmoid_for_each_class_is_several_labels_at_once() -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.Sigmoid())
    with pytest.raises(IncompatibleError, match="may have several of them, or none"):
        brought_in(by_torchscript(net, torch.from_numpy(ROWS[:2])), ROWS)


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("preset", ["bytes", "unit", "signed", "imagenet"])
def test_what_is_put_in_front_does_what_torchvision_does(preset: str, colour: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, raw = SqueezeExcite(softmax=False).eval(), RNG.integers(0, 256, (32, 16, 16, 3)).astype(np.uint8)
    said_so = {"imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 255.0), "unit": ([0.0], [1.0], 255.0)}
    said_so |= {"signed": ([127.5], [127.5], 1.0), "bytes": ([0.0], [1.0], 1.0)}
    mean, sd, scale = said_so[preset]
    pixels = raw if colour == "RGB" else raw[..., ::-1]
    floats = ((pixels / scale - np.array(mean)) / np.array(sd)).astype(np.float32).transpose(0, 3, 1, 2)
    with torch.no_grad():
        expected = net(torch.from_numpy(np.ascontiguousarray(floats))).numpy()
    preparation = Preparation(**{**structured(PRESETS[preset]), "colour": colour})
    brought = brought_in(by_torchscript(net, torch.from_numpy(floats[:2])), raw, prepare=preparation)
    assert np.allclose(said(brought, raw)[0], expected, rtol=1e-3, atol=1e-4)
    runs_on_the_device(brought, raw, tmp_path)


def structured(preparation: Preparation) -> dict[str, Any]:
    return {name: getattr(preparation, name) for name in preparation.__struct_fields__}


def brought_in(file: bytes, x: np.ndarray, **more: Any) -> Brought:
    given = {"data": x, "precision": "float"} | more
    return bring(file, About(name="own", names=given.pop("names", NAMES), version=1), **given)


def said(brought: Brought, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and embedding (N, 0 where there is none) by the file that ships."""
    manifest = brought.packaged.manifest
    names = {"logits": manifest.logits, "embedding": manifest.embedding or manifest.logits}
    logits, embedding = run_onnx(brought.packaged.onnx, x, **names)
    return logits, embedding if manifest.embedding else embedding[:, :0]


def runs_on_the_device(brought: Brought, x: np.ndarray, folder: Path) -> None:
    """The agent's own loader takes it, and its ring says what the file says."""
    write_artifact(folder, brought.packaged.manifest, brought.packaged.onnx)
    model = Model(folder)
    model.check_golden()
    model.run(0, x[0])
    assert np.allclose(model.logits[0], said(brought, x[:1])[0][0], atol=1e-5)
    assert (model.embedding is None) == (brought.packaged.manifest.embedding == "")
    assert ort.__version__
