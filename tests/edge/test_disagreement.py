"""Are labels asked for where two models differ, with a probability that makes the comparison fair?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.choose.disagreement import DEPTH, Disagreement, Share, disagreement
from edge_agent.choose.splitmix import SplitMix64
from edge_agent.contract.errors import ConfigError


def rule(
    *, seen: float = 0.5, labels: float = 0.02, seed: int = 1, version: int = 2, saved: bytes = b""
) -> Disagreement:
    return Disagreement(version, Share(seen, labels), SplitMix64(seed), saved=saved)


def play(rule: Disagreement, utility: np.ndarray, sizes: list[int]) -> dict[int, float]:
    """Row -> probability of what is taken."""
    taken, at, turn = {}, 0, 0
    while at < len(utility):
        count = min(sizes[turn % len(sizes)], len(utility) - at)
        rows, draws = rule.draws(count)
        for row in range(count):
            rule.earn()
            if row in rows and (selection := rule.offer(float(utility[at + row]), float(draws[row]))):
                taken[at + row] = selection.probability
        at, turn = at + count, turn + 1
    return taken


def differences(count: int, *, seed: int, share: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(count) < share, 1.0, rng.random(count) ** 8 * 0.2)


def probabilities(rows: int, classes: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), rows).astype(np.float32)


@given(st.integers(0, 1000), st.integers(2, 6), st.integers(2, 6))
def test_disagreement_is_symmetric_bounded_and_1_where_labels_differ(seed: int, few: int, many: int) -> None:
    a, b = probabilities(50, few, seed=seed), probabilities(50, many, seed=seed + 1)
    there, back = disagreement(a, b), disagreement(b, a)
    np.testing.assert_allclose(there, back, atol=1e-5)
    assert ((there >= 0.0) & (there <= 1.0)).all()
    differ = a.argmax(axis=1) != b.argmax(axis=1)
    assert (there[differ] == 1.0).all()
    assert disagreement(a, a).max() < 1e-6


def test_a_row_that_says_nothing_is_never_taken() -> None:
    a, b = probabilities(3, 4, seed=1), probabilities(3, 4, seed=2)
    b[1] = np.nan
    utility = disagreement(a, b)
    assert np.isnan(utility).tolist() == [False, True, False]
    assert rule(seen=1.0, labels=1.0).offer(float("nan"), 0.0) is None


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 1000))
def test_the_same_decisions_for_any_chunking_and_after_a_restart(sizes: list[int], seed: int) -> None:
    utility = differences(600, seed=seed)
    whole = play(rule(), utility, [32])
    assert play(rule(), utility, sizes) == whole
    first = rule()
    before = play(first, utility[:320], [32])
    after = play(rule(seed=99, saved=first.save()), utility[320:], [32])
    assert before | {row + 320: p for row, p in after.items()} == whole


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_no_window_exceeds_its_share(share: float) -> None:
    rows = sorted(play(rule(seen=1.0, labels=share), differences(4000, seed=1, share=0.5), [32]))
    assert len(rows) > 0.7 * share * 4000
    for i, first in enumerate(rows):
        assert all(j - i + 1 <= share * (last - first) + DEPTH + 1e-6 for j, last in enumerate(rows) if j >= i)


def test_labels_go_where_the_models_differ() -> None:
    utility = differences(20_000, seed=1)
    taken = np.array(sorted(play(rule(seen=0.5, labels=0.02), utility, [32])))
    assert len(taken) > 200
    assert (utility[taken] == 1.0).mean() > 0.8  # of the stream 10 %


@pytest.mark.chance
def test_the_difference_of_accuracies_is_estimated_without_bias() -> None:
    """Sum of (candidate right - champion right) / p over what is taken, against the truth of the whole stream."""
    rng = np.random.default_rng(5)
    utility = differences(3000, seed=2)
    gain = np.where(utility == 1.0, rng.choice([1.0, 0.0, -1.0], 3000, p=[0.5, 0.2, 0.3]), 0.0)
    estimates = [
        sum(gain[row] / p for row, p in play(rule(seen=0.5, labels=0.05, seed=seed), utility, [100]).items()) / 3000
        for seed in range(100)
    ]
    error = np.std(estimates) / 10
    assert abs(np.mean(estimates) - gain.mean()) < 4 * error
    assert np.std(estimates) < 0.01  # a uniform draw of as many labels has 0.025


def test_another_candidate_begins_anew() -> None:
    first = rule(version=2)
    play(first, differences(500, seed=1), [32])
    assert rule(version=2, saved=first.save()).state.seen == first.state.seen > 0
    assert rule(version=3, saved=first.save()).state.seen == 0
    with pytest.raises(ConfigError, match="shadow trial"):
        rule(saved=b"\xc1")
