from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.choose.acquisition import BUILT_IN, Scorer, energy, entropy, least_confidence, margin, top
from edge_agent.choose.targets import OF_COMMITTEES
from edge_agent.contract.errors import ConfigError

LOGITS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.integers(1, 30)),
    elements=st.floats(-80, 80, width=32),
)


def reference(logits: np.ndarray) -> dict[str, np.ndarray]:
    """Float64, straight from the definitions."""
    z = logits.astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    ordered = np.sort(p, axis=1)
    second = ordered[:, -2] if p.shape[1] > 1 else np.zeros(len(p))
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = -np.where(p > 0, p * np.log(p), 0.0).sum(axis=1)
    top = z.max(axis=1)
    return {
        "margin": 1 - (ordered[:, -1] - second),
        "least_confidence": 1 - ordered[:, -1],
        "entropy": nats / np.log(p.shape[1]) if p.shape[1] > 1 else np.zeros(len(p)),
        "energy": -(top + np.log(np.exp(z - top[:, None]).sum(axis=1))),
    }


@given(LOGITS)
def test_scores_equal_their_definitions_in_float64(logits: np.ndarray) -> None:
    for name, expected in reference(logits).items():
        scored = Scorer(name).score(logits)
        np.testing.assert_allclose(scored.utility, expected, atol=3e-6, rtol=2e-6, err_msg=name)


@given(LOGITS)
def test_bounded_scores_lie_in_0_1_and_the_label_is_the_arg_max(logits: np.ndarray) -> None:
    for score in (margin, least_confidence, entropy):
        utility = score(logits)
        assert ((utility >= -1e-6) & (utility <= 1 + 1e-6)).all()
    scored = Scorer("margin").score(logits)
    assert (logits[np.arange(len(logits)), scored.label] == logits.max(axis=1)).all()


@given(LOGITS, st.permutations(range(7)))
def test_scores_do_not_depend_on_the_order_of_classes(logits: np.ndarray, order: list[int]) -> None:
    seven = np.resize(logits, (len(logits), 7))
    for score in (margin, least_confidence, entropy, energy):
        np.testing.assert_allclose(score(seven), score(seven[:, order]), atol=1e-5)


def test_closed_forms() -> None:
    uniform, sure = np.zeros((1, 5), np.float32), np.array([[50, 0, 0, 0, 0]], np.float32)
    assert margin(uniform)[0] == pytest.approx(1.0)
    assert entropy(uniform)[0] == pytest.approx(1.0)
    assert least_confidence(uniform)[0] == pytest.approx(0.8)
    for score in (margin, entropy, least_confidence):
        assert score(sure)[0] == pytest.approx(0.0, abs=1e-6)
    assert energy(uniform)[0] > energy(sure)[0]


@pytest.mark.parametrize("name", BUILT_IN)
def test_unusable_logits_score_nan_and_masked_classes_do_not(name: str) -> None:
    logits = np.array([[1, np.nan, 0], [np.inf, 0, 0], [-np.inf, -np.inf, -np.inf], [1.0, -np.inf, 0.0]], np.float32)
    utility = Scorer(name).score(logits).utility
    assert np.isnan(utility[:3]).all()
    assert np.isfinite(utility[3])
    alone = Scorer(name).score(np.array([[np.nan], [np.inf], [-np.inf], [1.0]], np.float32)).utility
    assert np.isnan(alone).tolist() == [True, True, True, False]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e19, 1e30, 3e38])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 4.0])
@pytest.mark.parametrize("classes", [3, 40])
def test_logits_of_any_finite_size_score_as_what_they_are(size: float, temperature: float, classes: int) -> None:
    """Sure; sure against a huge one; two huge ones that are equal. Squares and differences of these leave float32."""
    logits = np.zeros((3, classes), np.float32)
    logits[0, 1], logits[1, :2], logits[2, :2] = size, (-size, size), size
    for name, halves in (("margin", 1.0), ("least_confidence", 0.5), ("entropy", math.log(2) / math.log(classes))):
        scored = Scorer(name, temperature=temperature).score(logits.copy())
        assert scored.utility.tolist() == pytest.approx([0.0, 0.0, halves], abs=1e-6)
        assert scored.label.tolist() == [1, 1, 0]
    energies = Scorer("energy", temperature=temperature).score(logits.copy()).utility
    assert energies.tolist() == pytest.approx([-min(size / temperature, float(np.finfo(np.float32).max))] * 3)
    assert [top(row, inverse_temperature=1.0 / temperature) for row in logits] == [(1, 1.0), (1, 1.0), (0, 0.5)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["margin", *OF_COMMITTEES])
def test_a_committee_of_huge_logits_scores_as_one_of_large_ones(name: str) -> None:
    """A member each for two classes, all for one, all for two."""
    logits = np.zeros((3, 2, 4), np.float32)
    logits[0, 0, 0] = logits[0, 1, 1] = logits[1, :, 2] = logits[2, :, :2] = 100.0
    large, huge = (Scorer(name, members=2).score(logits * np.float32(by)) for by in (1.0, 1e36))
    assert huge.utility.tolist() == pytest.approx(large.utility.tolist(), abs=1e-6)


@given(LOGITS)
def test_a_row_scores_alike_whatever_else_is_in_its_block(logits: np.ndarray) -> None:
    beside = np.zeros((3, logits.shape[1]), np.float32)
    beside[0, 0], beside[1, 0], beside[2] = np.nan, -np.inf, 1e30  # the last: finite, and its square is not
    for name in BUILT_IN:
        alone, among = Scorer(name).score(logits), Scorer(name).score(np.concatenate([logits, beside]))
        assert among.utility[: len(logits)].tobytes() == alone.utility.tobytes()
        assert np.isfinite(among.utility[-1])


def test_temperature_softens() -> None:
    logits = np.array([[4.0, 0.0, 0.0]], np.float32)
    cold, warm = Scorer("margin").score(logits), Scorer("margin", temperature=4.0).score(logits)
    assert warm.utility[0] > cold.utility[0]
    assert warm.confidence[0] < cold.confidence[0]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'margin'"):
        Scorer("margn")
    with pytest.raises(ConfigError, match="no_such"):
        Scorer("no_such.module:score")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("def f(z: return", "SyntaxError: invalid syntax"),
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import no_such", "No module named 'no_such'"),
        ("", "has no attribute 'f'"),
        ("f = 1", "not a function"),
    ],
)
def test_whatever_the_module_of_a_plug_in_raises_is_a_mistake_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, said: str
) -> None:
    (tmp_path / "broken_plug_in.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_plug_in", raising=False)
    with pytest.raises(ConfigError, match=f"acquisition 'broken_plug_in:f': .*{said}"):
        Scorer("broken_plug_in:f")


@pytest.mark.parametrize("name", [".relative:f", ":f"])
def test_a_place_that_is_none_is_a_mistake_of_the_configuration(name: str) -> None:
    with pytest.raises(ConfigError, match=f"acquisition '{name}'"):
        Scorer(name)


def test_a_plug_in_is_a_function_of_logits() -> None:
    scored = Scorer("edge_agent.choose.acquisition:least_confidence").score(np.zeros((2, 4), np.float32))
    assert scored.utility.tolist() == pytest.approx([0.75, 0.75])
