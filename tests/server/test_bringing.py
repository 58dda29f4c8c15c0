"""Does one command make an artifact of a file and some images, and say what is wrong when it cannot?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import scenes
from PIL import Image

from edge_agent.choose.tasks.scoring import answer_of
from edge_agent.contract.artifact import read_artifact, read_manifest
from edge_agent.contract.errors import EXIT_CONFIG
from edge_agent.model import Model
from server.__main__ import main

NET = str(Path(__file__).parent.parent / "models" / "exports" / "keras-plain.onnx")
NAMES = ("red", "green", "blue")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, name in enumerate(NAMES):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 120, (20, 24, 3)).astype(np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "labels.txt").write_text("red\ngreen\n\nblue\n")
    return tmp_path / "photos"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["model", "import", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_from_a_file_and_a_folder_of_images(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [NET, "--data", photos, "--labels", tmp_path / "labels.txt", "--prepare", "bytes", "--out", tmp_path / "a"]
    status, said, _ = run(capsys, *words, "--licence", "MIT", "--version", 3, "--name", "colours")
    assert status == 0
    manifest, _ = read_artifact(tmp_path / "a")
    assert (manifest.name, manifest.version, manifest.licence, manifest.task) == ("colours", 3, "MIT", "classification")
    assert manifest.classes == NAMES
    assert (manifest.input.shape, manifest.input.dtype) == ((16, 16, 3), "uint8")
    assert manifest.metrics["samples"] == 18
    assert manifest.notes[0].startswith("prepared in the graph: uint8 (16, 16, 3) to NHWC, x * 1.0")
    assert "agreement" in said
    Model(tmp_path / "a").check_golden()

    status, said, _ = run(capsys, *words, "--json", "--precision", "float")
    found = json.loads(said)
    assert list(found["files"]) == ["cpu-fp32"]
    assert found["compared"] is None
    assert found["embedding"] == read_artifact(tmp_path / "a")[0].embedding != ""


def test_images_alone_tell_agreement_and_nothing_of_accuracy(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    for number, file in enumerate(sorted(photos.rglob("*.png"))):
        file.rename(alone / f"{number}.png")
    words = [
        NET,
        "--data",
        alone,
        "--labels",
        "red,green,blue",
        "--prepare",
        "bytes",
        "--out",
        tmp_path / "a",
        "--json",
    ]
    status, said, _ = run(capsys, *words)
    assert status == 0
    found = json.loads(said)
    assert found["compared"]["loss"] is None
    assert 0.0 <= found["compared"]["agreement"] <= 1.0
    assert "accuracy" not in found["metrics"]


@pytest.mark.parametrize(
    ("change", "said", "status"),
    [
        ({"--labels": "red,green"}, "names has 'blue', which is none of --labels red,green", 1),
        ({"--labels": "nowhere.txt"}, "expected a text file, one class a line", EXIT_CONFIG),
        ({"--prepare": ""}, "the model takes float32 (16, 16, 3): say how they are prepared", 1),
        ({"--prepare": "byts"}, "no such file (did you mean 'bytes'?)", 1),
        ({"--task": "classifcation"}, "unknown (did you mean 'classification'?)", EXIT_CONFIG),
        ({"--task": "multilabel"}, "has one class for each sample: expected images alone", 1),
        ({"--logits": "nope"}, "the graph has no tensor 'nope'; candidates: logits=", 1),
        ({"net": "nowhere.onnx"}, "expected an ONNX file, or lite0 or minilm", 1),
        ({"--data": "nowhere"}, "nowhere: no such file", 1),
        ({"--labels": "red,red,green,blue"}, "red, red, green, blue, expected two or more, each once", 1),
        ({"--size": "32"}, "--size does not go with an ONNX file", 1),
        ({"net": "lite0"}, "--labels does not go with a ready body", 1),
        (
            {"net": "lite0", "--labels": "", "--prepare": "", "--task": "detection"},
            "--task detection: a head for a ready body tells one class",
            1,
        ),
    ],
)
def test_what_does_not_fit_is_told(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    said: str,
    status: int,
) -> None:
    given = {"net": NET, "--data": str(photos), "--labels": ",".join(NAMES), "--prepare": "bytes"} | change
    words = [given.pop("net"), *(word for pair in given.items() if pair[1] for word in pair), "--out", tmp_path / "a"]
    got, _, error = run(capsys, *words)
    assert (got, said in error) == (status, True), error
    assert not (tmp_path / "a").exists()


def detector_words(folder: Path) -> list[object]:
    (folder / "net.onnx").write_bytes(scenes.graph())
    frames = folder / "frames"
    frames.mkdir()
    for number, frame in enumerate(scenes.stream(40, seed=2)):
        Image.fromarray(frame).save(frames / f"{number:02}.png")
    words = ["--task", "detection", "--data", frames, "--labels", "bright,dark", "--out", folder / "a"]
    return [folder / "net.onnx", *words]


def test_a_detector_is_brought_and_finds_what_its_graph_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*detector_words(tmp_path), "--logits", "logits", "--boxes", "boxes", "--embedding", "embedding"]
    status, said, error = run(capsys, *words)
    assert status == 0, error
    assert "int8" in said
    manifest, _ = read_artifact(tmp_path / "a", variant=next(iter(read_manifest(tmp_path / "a").files)))
    assert (manifest.task, manifest.classes, manifest.embedding) == ("detection", ("bright", "dark"), "embedding")
    assert manifest.answer is not None
    assert manifest.answer.boxes == "boxes"
    model = Model(tmp_path / "a", variant=next(iter(manifest.files)))
    model.check_golden()
    model.run(0, scenes.picture({5: scenes.brightness(0.9)}))
    (box,) = answer_of(manifest, model.logits[0], model.further[0]).said.boxes
    assert (box.label, box.score) == (0, pytest.approx(0.9, abs=0.05))
    np.testing.assert_allclose((box.left, box.top, box.right, box.bottom), scenes.corners()[5], atol=1e-3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "a detector's outputs are named: logits (N, A, C)"),
        (["--logits", "logits", "--boxes", "corners"], "the graph has no tensor 'corners'"),
        (["--logits", "logits", "--boxes", "in_pixels"], "expected left, top, right and bottom in 0..1: divide pixels"),
        (["--logits", "scores", "--boxes", "boxes"], "expected what is before the sigmoid"),
        (["--logits", "logits", "--boxes", "embedding"], "has shape"),
    ],
)
def test_a_detector_of_another_form_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    words = detector_words(tmp_path)
    file = tmp_path / "net.onnx"
    net = onnx.load(file)
    net.graph.initializer.append(onnx.numpy_helper.from_array(np.array([16.0], np.float32), "side"))
    net.graph.node.append(onnx.helper.make_node("Mul", ["boxes", "side"], ["in_pixels"]))
    net.graph.node.append(onnx.helper.make_node("Sigmoid", ["logits"], ["scores"]))
    onnx.save(net, file)
    status, _, error = run(capsys, *words, *given)
    assert (status, said in error) == (1, True), error
    assert not (tmp_path / "a").exists()


@pytest.fixture
def ridge(tmp_path: Path) -> list[object]:
    """Words for a regressor of two targets, and data with a number of one of them missing."""
    x = np.random.default_rng(4).normal(size=(80, 3)).astype(np.float32)
    y = np.stack([x[:, 0] * 2.0 + 5.0, x[:, 1]], axis=1)
    model = pytest.importorskip("sklearn.linear_model").Ridge(alpha=30.0).fit(x, y)
    made = pytest.importorskip("skl2onnx").to_onnx(model, x[:1], target_opset={"": 17, "ai.onnx.ml": 3})
    (tmp_path / "net.onnx").write_bytes(made.SerializeToString())
    y[0, 1] = np.nan
    np.savez(tmp_path / "some.npz", x=x, values=y, names=np.array(["wear", "heat"]))
    np.savez(tmp_path / "classes.npz", x=x, y=np.arange(80) % 2)
    return [tmp_path / "net.onnx", "--task", "regression", "--data", tmp_path / "some.npz", "--out", tmp_path / "a"]


def test_a_regressor_that_says_no_spread_is_brought_and_that_is_told(
    ridge: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said, error = run(capsys, *ridge)
    assert status == 0, error
    assert "2 targets (wear, heat)" in said
    assert "it says no spread: that of its errors on these data stands for every sample" in said
    manifest, _ = read_artifact(tmp_path / "a")
    assert (manifest.task, manifest.classes) == ("regression", ("wear", "heat"))
    assert manifest.metrics["mae/heat"] > 0.0
    model = Model(tmp_path / "a")
    model.check_golden()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--labels", "a,b"], "--labels does not go with --task regression: the data name its targets"),
        (["--boxes", "variable"], "--boxes does not go with --task regression"),
        (["--spread", "nope"], "the graph has no tensor 'nope'"),
        (["--data", "classes.npz"], "expected an .npz of x, names, and one of boxes, applies and values"),
        (["--task", "classification", "--spread", "variable"], "--spread does not go with --task classification"),
    ],
)
def test_what_does_not_go_with_a_regressor_is_told(
    ridge: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    status, _, error = run(capsys, *ridge, *(tmp_path / word if word.endswith(".npz") else word for word in words))
    assert (status, said in error) == (1, True), error
    assert not (tmp_path / "a").exists()
