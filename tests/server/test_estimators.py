from __future__ import annotations

import numpy as np
import pytest

from server.audit.estimators import FEWEST, difference, hajek

N = 4000


def population(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who is right, how confident the model is, and the probabilities of a rule that asks for the unsure."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(5, 1, N)
    right = rng.random(N) < confidence
    return right, confidence, np.clip(0.02 + 0.6 * (1 - confidence), 0.02, 1.0)


def draws(count: int = 300):
    right, confidence, p = population(0)
    for seed in range(count):
        taken = np.random.default_rng([seed, 7]).random(N) < p
        yield right[taken], confidence[taken], p[taken]


def test_both_are_unbiased_and_their_intervals_hold_what_they_promise() -> None:
    right, confidence, _ = population(0)
    truth = right.mean()
    plain = [r.mean() for r, _, _ in draws()]
    assert np.mean(plain) < truth - 0.05  # what everybody reports
    for estimates in (
        [hajek(r, p) for r, _, p in draws()],
        [difference(r, c, p, stream_confidence=confidence.mean()) for r, c, p in draws()],
    ):
        values = np.array([e.value for e in estimates])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values))
        assert 0.91 <= np.mean([e.low <= truth <= e.high for e in estimates]) <= 0.98


def test_confidences_of_the_whole_stream_make_it_more_precise() -> None:
    _, confidence, _ = population(0)
    alone = np.std([hajek(r, p).value for r, _, p in draws()])
    helped = np.std([difference(r, c, p, stream_confidence=confidence.mean()).value for r, c, p in draws()])
    assert helped < 0.95 * alone


def test_confidences_that_are_wrong_do_no_harm_to_the_truth() -> None:
    right, confidence, _ = population(0)
    boast = np.minimum(1.0, confidence + 0.3)
    values = []
    for seed in range(300):
        p = population(0)[2]
        taken = np.random.default_rng([seed, 9]).random(N) < p
        values.append(difference(right[taken], boast[taken], p[taken], stream_confidence=boast.mean()).value)
    assert abs(np.mean(values) - right.mean()) < 4 * np.std(values) / np.sqrt(len(values))


def test_too_little_to_say_is_said() -> None:
    nothing = hajek(np.zeros(0, bool), np.zeros(0))
    assert (nothing.low, nothing.high, nothing.enough) == (0.0, 1.0, False)
    few = hajek(np.ones(FEWEST - 1, bool), np.full(FEWEST - 1, 0.1))
    assert not few.enough
    assert hajek(np.ones(FEWEST, bool), np.full(FEWEST, 0.1)).enough


def test_a_census_is_certain() -> None:
    right = np.array([True] * 30 + [False] * 10)
    found = hajek(right, np.ones(40))
    assert found[:3] == pytest.approx((0.75, 0.75, 0.75))
