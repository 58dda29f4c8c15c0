"""Does a fine-tuned model keep what it can of its parent's bytes, and no more than it may?"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from models import package as packaging
from models.evaluate import agreement, run_onnx
from models.export import to_onnx
from models.package import ParentFile, package
from models.quantize import WORTH_SHARE, forms, to_int8
from models.train import Net, Settings, fit


@pytest.fixture(scope="module")
def task():
    """x (N, 12, 12) uint8 and y: which quarter is lit, dimly."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 900)
    x = rng.normal(60, 40, (900, 12, 12))
    for row, c in enumerate(y):
        x[row, c // 2 * 6 :, c % 2 * 6 :][:6, :6] += 30
    return np.clip(x, 0, 255).astype(np.uint8), y


@pytest.fixture(scope="module")
def parent(task) -> Net:
    return fit(task[0][:400], task[1][:400], classes=4, settings=Settings(epochs=4))


@pytest.fixture(scope="module")
def parent_onnx(task, parent) -> bytes:
    return to_int8(to_onnx(parent), task[0][:200])


def moved(net: Net, by: float) -> Net:
    """The net after a training that moved every weight of its body by some of `by`."""
    copy = Net.load(net.weights())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in copy.module.body.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return copy


def constants(data: bytes) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(data).graph.initializer}


def same_share(a: bytes, b: bytes) -> float:
    """Of the int8 weights of two models."""
    pairs = [
        (w[: len(v)], v[: len(w)])
        for name, w in constants(a).items()
        if name.endswith("_quantized") and w.dtype == np.int8 and (v := constants(b).get(name)) is not None
    ]
    return sum(int((w == v).sum()) for w, v in pairs) / sum(w.size for w, _ in pairs)


def test_the_same_weights_give_the_same_bytes_though_they_are_calibrated_on_others(task, parent, parent_onnx):
    x = task[0][50:250]
    own = to_int8(to_onnx(parent), x)
    assert own != parent_onnx
    first, second, last = forms(to_onnx(parent), x, parent=parent_onnx)
    assert first == second == parent_onnx
    assert last == own


def test_a_head_that_learns_alone_leaves_the_body_as_it_was(task, parent, parent_onnx):
    x, y = task
    child = fit(x, y, classes=4, settings=Settings(epochs=2, part="head"), parent=parent.weights())
    before, after = parent.module.state_dict(), child.module.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}
    kept = forms(to_onnx(child), x[50:250], parent=parent_onnx)[0]
    changed = {name for name, a in constants(kept).items() if not np.array_equal(a, constants(parent_onnx)[name])}
    assert changed <= {name for name in constants(kept) if name.startswith("head.")}


def test_new_classes_leave_the_rest_as_it_was(task, parent, parent_onnx):
    x, y = task
    child = fit(
        x, y + (np.arange(900) % 7 == 0), classes=5, settings=Settings(epochs=1, part="head"), parent=parent.weights()
    )
    kept = forms(to_onnx(child), x[50:250], parent=parent_onnx)[0]
    assert constants(kept)["head.weight_quantized"].shape == (5, 64)
    body = [name for name in constants(kept) if name.startswith("onnx::Conv")]
    assert body
    assert all(np.array_equal(constants(kept)[name], constants(parent_onnx)[name]) for name in body)


def test_weights_that_moved_little_keep_their_codes_and_the_model_what_it_says(task, parent, parent_onnx):
    x = task[0]
    child = to_onnx(moved(parent, 1e-4))
    held, rounded, own = forms(child, x[50:250], parent=parent_onnx)
    shares = [same_share(form, parent_onnx) for form in (held, rounded, own)]
    assert shares[0] > shares[1] > shares[2]
    assert shares[0] > 0.95
    logits, _ = run_onnx(child, x)
    for form in (held, rounded, own):
        assert agreement(run_onnx(form, x)[0], logits) > 0.97


def test_a_net_that_has_changed_much_takes_ranges_of_its_own(task, parent, parent_onnx):
    for by in (0.05, 1.0):
        (only,) = forms(to_onnx(moved(parent, by)), task[0][:200], parent=parent_onnx)
        assert same_share(only, parent_onnx) < WORTH_SHARE


def test_a_parent_of_another_kind_is_no_parent(task, parent):
    vectors = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    other = fit(vectors, np.arange(200) % 3, classes=3, settings=Settings(epochs=1))
    (only,) = forms(to_onnx(parent), task[0][:200], parent=to_int8(to_onnx(other), vectors))
    assert only == to_int8(to_onnx(parent), task[0][:200])


def test_a_range_that_would_clip_is_not_kept(task, parent, parent_onnx):
    """One channel grows: it alone has a new scale, and the ranges behind it follow."""
    child = Net.load(parent.weights())
    norm = child.module.body[1]
    with torch.no_grad():
        norm.weight[0] *= 1.5
    kept = forms(to_onnx(child), task[0][:200], parent=parent_onnx)[0]
    first = min(
        name
        for name in constants(kept)
        if name.startswith("onnx::Conv") and name.endswith("_scale") and not name.endswith("quantized_scale")
    )
    scale, before = constants(kept)[first], constants(parent_onnx)[first]
    assert scale[0] == pytest.approx(1.5 * before[0], rel=1e-3)
    assert np.array_equal(scale[1:], before[1:])


def shipped(task, net: Net, **how) -> bytes:
    x, y = task
    return package(
        net, name="m", names="abcd", version=2, calibration=x[50:250], holdout=(x[:300], y[:300]), **how
    ).onnx


def test_what_is_shipped_keeps_the_parent_unless_that_costs_agreement(task, parent, parent_onnx, monkeypatch):
    child = moved(parent, 1e-4)
    held, _, own = forms(to_onnx(child), task[0][50:250], parent=parent_onnx)
    assert shipped(task, child, parent_file=ParentFile(parent_onnx)) == held
    assert shipped(task, child) == own
    monkeypatch.setattr(packaging, "KEEPING_COSTS_MAX", -1.0)  # nothing is good enough
    assert shipped(task, child, parent_file=ParentFile(parent_onnx)) == own
    monkeypatch.undo()
    assert shipped(task, child, parent_file=ParentFile(parent_onnx, min_agreement=1.1)) == own


def test_gently_moves_all_but_nothing_far_and_leaves_batch_normalisation_its_figures(task, parent):
    x, y = task
    before = parent.module.state_dict()
    far = {}
    for part in ("whole", "gently"):
        child = fit(x, y, classes=4, settings=Settings(epochs=1, part=part), parent=parent.weights())
        after = child.module.state_dict()
        moved = {name: float((after[name] - before[name]).abs().mean()) for name in before if "weight" in name}
        assert min(moved.values()) > 0
        far[part] = moved["body.0.weight"]
        kept = [torch.equal(after[name], before[name]) for name in before if "running" in name]
        assert all(kept) == (part == "gently")
    assert far["gently"] < far["whole"] / 5


def test_a_first_model_learns_whole_whatever_is_said(task):
    x, y = task
    nets = [fit(x, y, classes=4, settings=Settings(epochs=1, part=part)) for part in ("whole", "head")]
    assert nets[0].weights() == nets[1].weights()
