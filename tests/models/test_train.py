from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edge_agent.contract.errors import ArtifactError
from models import data, samples
from models.errors import DataError
from models.evaluate import accuracy, run_onnx
from models.export import to_onnx
from models.net import EMBEDDING, Parts, Prepare
from models.recipes.catalogue import build, choose
from models.train import Net, Settings, fit

Blobs = Callable[..., tuple[np.ndarray, np.ndarray]]
QUICK = Settings(epochs=3, batch_size=16)


def logits_of(net: Net, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return net.module(torch.tensor(x))[0].numpy()


@pytest.mark.parametrize(
    ("shape", "dtype", "recipe"),
    [
        ((8, 8), "uint8", "cnn"),
        ((8, 8), "float32", "cnn"),
        ((28, 28), "uint8", "cnn"),
        ((13, 31, 3), "uint8", "cnn"),
        ((20, 200), "uint8", "cnn"),
        ((100, 6), "float32", "cnn1d"),
        ((100, 6), "uint8", "cnn1d"),
        ((5, 2), "float32", "cnn1d"),
        ((1500, 12), "float32", "cnn1d"),
        ((30,), "float32", "mlp"),
    ],
)
def test_every_shape_learns_and_runs_as_onnx(shape: tuple[int, ...], dtype: str, recipe: str, blobs: Blobs) -> None:
    x, y = blobs(shape, dtype, n=60)
    net = fit(x, y, classes=3, settings=QUICK)
    assert net.recipe == recipe
    logits, embedding = run_onnx(to_onnx(net), x)
    assert logits.shape == (60, 3)
    assert embedding.shape == (60, EMBEDDING)
    assert np.allclose(logits, logits_of(net, x), atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (96, 96, 3), (224, 224, 3), (224, 64, 3), (100, 6)])
def test_networks_are_small(shape: tuple[int, ...]) -> None:
    module = build(choose(shape, "uint8"), shape, classes=100, seed=0)
    assert sum(p.numel() for p in module.parameters()) <= 200_000
    assert module.eval()(torch.zeros((2, *shape), dtype=torch.uint8))[0].shape == (2, 100)


def test_prepare_standardises_each_channel_of_a_series_and_survives_a_constant_one() -> None:
    x = torch.randn(200, 50, 3) * torch.tensor([1.0, 50.0, 0.0]) + torch.tensor([0.0, 7.0, 3.0])
    prepare = Prepare("series", (50, 3))
    prepare.measure(x)
    out = prepare(x)
    assert out.shape == (200, 3, 50)
    assert torch.allclose(out.mean((0, 2)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(out.std((0, 2), correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3)


def test_same_call_gives_the_same_weights_and_leaves_the_world_alone(blobs: Blobs) -> None:
    x, y = blobs((28, 28), "uint8")
    torch.manual_seed(5)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    said: list[float] = []
    one = fit(x, y, classes=3, settings=QUICK, progress=lambda share, *_: said.append(share))
    torch.manual_seed(6)
    two = fit(x, y, classes=3, settings=QUICK)
    other = fit(x, y, classes=3, settings=Settings(epochs=3, batch_size=16, seed=1))
    assert one.weights() == two.weights() != other.weights()
    assert said == pytest.approx([1 / 3, 2 / 3, 1])
    torch.manual_seed(5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads


def test_weights_come_back(blobs: Blobs) -> None:
    x, y = blobs((20, 4), "float32")
    net = fit(x, y, classes=3, settings=QUICK)
    back = Net.load(net.weights())
    assert (back.recipe, back.shape, back.dtype, back.classes) == ("cnn1d", (20, 4), "float32", 3)
    assert np.array_equal(logits_of(back, x), logits_of(net, x))


@pytest.mark.parametrize("damage", [b"", b"no weights", None])
def test_weights_that_are_none_are_refused(damage: bytes | None, blobs: Blobs) -> None:
    if damage is None:
        x, y = blobs((5,), "float32")
        damage = fit(x, y, classes=3, settings=QUICK).weights()[:-500]
    with pytest.raises(ArtifactError, match=r"weights of \d+ bytes"):
        Net.load(damage)


def test_head_grows_and_old_logits_stay(clothes_net: Net, fashion: tuple[data.Labelled, data.Labelled]) -> None:
    _, test = fashion
    grown = Net.load(clothes_net.weights())
    grown.module.grow(12)
    old, new = logits_of(clothes_net, test.x[:200]), logits_of(grown, test.x[:200])
    assert new.shape == (200, 12)
    assert np.allclose(new[:, :10], old, atol=1e-4)


def test_new_classes_are_learnt_from_the_parent(blobs: Blobs) -> None:
    x, y = blobs((28, 28), "uint8", classes=4, n=240)
    parent = fit(x[y < 2], y[y < 2], classes=2, settings=QUICK)
    child = fit(x, y, classes=4, settings=Settings(epochs=6, batch_size=16), parent=parent.weights())
    assert child.classes == 4
    assert accuracy(logits_of(child, x), y) > 0.9
    assert torch.equal(child.module.prepare.mean, parent.module.prepare.mean)


def test_parent_that_does_not_fit_is_told(blobs: Blobs) -> None:
    x, y = blobs((28, 28), "uint8")
    parent = fit(x, y, classes=3, settings=QUICK).weights()
    with pytest.raises(DataError, match="the parent takes"):
        fit(x[:, :14, :14].copy(), y, classes=3, settings=QUICK, parent=parent)
    with pytest.raises(DataError, match="parent knows 3"):
        fit(x, np.minimum(y, 1), classes=2, settings=QUICK, parent=parent)
    with pytest.raises(DataError, match="the parent is a 'cnn'"):
        fit(x, y, classes=3, settings=Settings(recipe="mlp"), parent=parent)


@pytest.mark.parametrize(
    ("x", "y", "classes", "said"),
    [
        (np.zeros((4, 8, 8)), np.arange(4), 4, "x is float64"),
        (np.zeros((4, 8, 8), np.uint8), np.arange(3), 4, r"y is int64 \(3,\)"),
        (np.zeros((4, 8, 8), np.uint8), np.arange(4), 3, r"y holds 0..3, expected 0..2"),
        (np.full((4, 30), np.nan, np.float32), np.arange(4), 4, "4 of 4 samples hold NaN"),
        (np.zeros((4, 2, 2, 2, 2), np.uint8), np.arange(4), 4, "no recipe"),
        (np.zeros((4, 4, 4, 3), np.uint8), np.arange(4), 4, "images from 8x8"),
    ],
)
def test_data_that_does_not_fit_is_told(x: np.ndarray, y: np.ndarray, classes: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        fit(x, y, classes=classes, settings=QUICK)


def plugin(shape: tuple[int, ...]) -> Parts:
    return Parts(Prepare("vector", shape), nn.Sequential(nn.Linear(shape[0], 5), nn.Tanh()), 5)


def test_recipe_by_name(blobs: Blobs) -> None:
    x, y = blobs((6,), "float32")
    net = fit(x, y, classes=3, settings=Settings(recipe=f"{__name__}:plugin", epochs=1))
    assert run_onnx(to_onnx(net), x)[1].shape == (len(x), 5)
    with pytest.raises(DataError, match=r"no recipe 'cnn1' \(did you mean 'cnn1d'\?\)"):
        build("cnn1", (8, 8), classes=2, seed=0)
    with pytest.raises(DataError, match="nowhere"):
        build("nowhere:net", (8, 8), classes=2, seed=0)
    with pytest.raises(DataError, match="that would be cnn or cnn1d or lite0 or audio or audio8k$"):
        build("mlp", (8, 8), classes=2, seed=0)
    with pytest.raises(DataError, match="that would be none$"):
        build("fcos", (8,), classes=2, seed=0, task="detection")


@given(st.lists(st.integers(0, 4), min_size=2, max_size=300), st.integers(1, 64), st.integers(0, 9))
def test_an_epoch_sees_each_sample_its_share(labels: list[int], size: int, seed: int) -> None:
    shares = samples.shares(torch.tensor(labels))
    batches = samples.batches(shares, size, torch.Generator().manual_seed(seed))
    assert all(len(batch) >= 2 for batch in batches)
    rows = torch.cat(batches)
    left_out = len(labels) - len(rows)
    assert 0 <= left_out < max(2, size // 4)
    times = torch.bincount(rows, minlength=len(labels))
    assert (times <= torch.ceil(shares + 1e-9)).all()
    assert int((torch.floor(shares + 1e-9) - times).clamp(min=0).sum()) <= left_out + len(labels) * 1e-6


def test_one_thread_learns_clothes(clothes_net: Net, fashion: tuple[data.Labelled, data.Labelled]) -> None:
    _, test = fashion
    assert accuracy(logits_of(clothes_net, test.x), test.y) > 0.78
