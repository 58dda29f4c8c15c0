from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from models import evaluate

LOGITS = arrays(np.float32, (12, 4), elements=st.floats(-30, 30, width=32))


@given(LOGITS, st.floats(0.1, 10))
def test_softmax_is_a_distribution_and_keeps_the_order(logits: np.ndarray, temperature: float) -> None:
    probs = evaluate.softmax(logits, temperature)
    assert np.allclose(probs.sum(axis=1), 1.0)
    top = np.take_along_axis(probs, logits.argmax(axis=1)[:, None], axis=1)
    assert (top[:, 0] >= probs.max(axis=1) - 1e-12).all()


@given(LOGITS, arrays(np.int64, 12, elements=st.integers(0, 3)))
@settings(max_examples=30)
def test_no_temperature_is_likelier_than_the_fitted(logits: np.ndarray, y: np.ndarray) -> None:
    fitted = evaluate.fit_temperature(logits, y)
    best = evaluate.nll(logits, y, fitted)
    for temperature in np.geomspace(evaluate.TEMPERATURE_MIN, evaluate.TEMPERATURE_MAX, 25):
        assert best <= evaluate.nll(logits, y, float(temperature)) + 1e-3 * (1 + abs(best))


@pytest.mark.parametrize(("true_temperature", "worth"), [(0.5, True), (1.0, False), (3.0, True)])
def test_a_temperature_is_kept_only_where_it_pays(true_temperature: float, worth: bool) -> None:
    rng = np.random.default_rng(4)
    kept = []
    for _ in range(20):
        logits = rng.normal(size=(300, 5)) * 4
        y = (logits / true_temperature + rng.gumbel(size=logits.shape)).argmax(axis=1)
        kept.append(evaluate.worthwhile_temperature(logits, y))
    assert (np.mean(np.array(kept) != 1.0) > 0.9) if worth else (np.mean(np.array(kept) == 1.0) > 0.7)


def test_a_few_samples_are_no_evidence_for_a_temperature() -> None:
    assert evaluate.worthwhile_temperature(np.eye(3) * 9, np.array([1, 2, 0])) == 1.0


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(true_temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    noise = rng.gumbel(size=logits.shape)
    y = (logits / true_temperature + noise).argmax(axis=1)  # a draw from softmax(logits / temperature)
    assert evaluate.fit_temperature(logits, y) == pytest.approx(true_temperature, rel=0.05)
    assert evaluate.ece(evaluate.softmax(logits, true_temperature), y) < 0.015
    assert evaluate.ece(evaluate.softmax(logits, true_temperature / 4), y) > 0.1


def test_scores_on_a_small_table() -> None:
    logits = np.eye(3)[[0, 0, 1, 1, 2, 0]]
    y = np.array([0, 0, 1, 0, 1, 1])
    assert evaluate.accuracy(logits, y) == pytest.approx(3 / 6)
    # class 0: 2 hits of 3 predicted, 3 true; class 1: 1 hit of 2 predicted, 3 true; class 2 does not occur
    assert evaluate.macro_f1(logits, y) == pytest.approx((4 / 6 + 2 / 5) / 2)
    assert evaluate.agreement(logits, np.roll(logits, 1, axis=0)) == pytest.approx(3 / 6)
    assert evaluate.nll(np.zeros((4, 8)), np.arange(4)) == pytest.approx(math.log(8))


@given(st.integers(0, 200), st.integers(1, 200), st.floats(0.5, 0.999))
def test_wilson_holds_the_share_and_mirrors(k: int, n: int, confidence: float) -> None:
    k = min(k, n)
    low, high = evaluate.wilson_interval(k, n, confidence=confidence)
    assert 0.0 <= low <= k / n + 1e-12
    assert k / n - 1e-12 <= high <= 1.0
    mirrored = evaluate.wilson_interval(n - k, n, confidence=confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low))


def test_wilson_of_nothing_is_everything() -> None:
    assert evaluate.wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_a_graph_with_a_fixed_batch_takes_any_number_of_samples(count: int) -> None:
    w = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    x = np.random.default_rng(2).normal(size=(count, 6)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["embedding"]),
        helper.make_node("Relu", ["embedding"], ["logits"]),
    ]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 6])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 3]) for name in ("logits", "embedding")]
    graph = helper.make_graph(nodes, "fixed", [entry], ends, [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    logits, embedding = evaluate.run_onnx(model.SerializeToString(), x)
    np.testing.assert_allclose(embedding, x @ w, atol=1e-5)
    np.testing.assert_allclose(logits, np.maximum(x @ w, 0.0), atol=1e-5)


def test_a_calibrated_model_keeps_the_temperature_that_it_has() -> None:
    changed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        logits = rng.normal(0.0, 2.0, (200, 4)).astype(np.float32)
        y = (evaluate.softmax(logits).cumsum(axis=1) > rng.random((200, 1))).argmax(axis=1)
        changed += evaluate.worthwhile_temperature(logits, y) != 1.0
    assert changed <= 2  # of those whose gain is just above 0 it would be ten
