from __future__ import annotations

import math

import numpy as np
import pytest

from edge_agent.choose.tally import BINS, bin_of
from server.audit.estimators import FEWEST, Estimate, Stream, _free, _Part, difference, hajek, post_stratified

N = 4000


def population(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who is right, how confident the model is, and the probabilities of a rule that asks for the unsure."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(5, 1, N)
    right = rng.random(N) < confidence
    return right, confidence, np.clip(0.02 + 0.6 * (1 - confidence), 0.02, 1.0)


def stratified(
    right: np.ndarray, confidence: np.ndarray, p: np.ndarray, *, utility: np.ndarray, whole: np.ndarray
) -> Estimate:
    """`utility` and `whole`, the confidences, of the stream; the others of what was taken at random by p."""
    bins = bin_of(utility)
    stream = Stream(np.bincount(bins, minlength=BINS).astype(float), np.bincount(bins, whole, minlength=BINS))
    taken = np.flatnonzero(~np.isnan(p))
    return post_stratified(right[taken], confidence[taken], p[taken], bins[taken], stream=stream)


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


def test_in_strata_it_is_unbiased_and_better_where_confidence_misleads() -> None:
    right, confidence, p = population(0)
    boast = 1 - 0.5 * confidence  # the wrong way round
    whole, strata = [], []
    for seed in range(300):
        taken = np.random.default_rng([seed, 9]).random(N) < p
        whole.append(difference(right[taken], boast[taken], p[taken], stream_confidence=boast.mean()))
        asked = np.where(taken, p, np.nan)
        strata.append(stratified(right, boast, asked, utility=1 - confidence, whole=boast))
    truth = right.mean()
    values = np.array([e.value for e in strata])
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values))
    assert values.std() < 0.9 * np.std([e.value for e in whole])
    assert 0.92 <= np.mean([e.low <= truth <= e.high for e in strata]) <= 0.98


@pytest.mark.parametrize("rate", [0.004, 0.02])
def test_intervals_hold_where_mistakes_are_rare_and_few_were_found(rate: float) -> None:
    """A normal interval of the same estimate holds the truth in a third of such draws."""
    rng = np.random.default_rng(1)
    confidence = 1 - rng.beta(0.5, 0.5 / rate, N)
    right = rng.random(N) < confidence
    hard = np.argsort(confidence)[: N // 25]
    p = np.full(N, 0.008)
    p[hard] = 0.9
    covered, normal = [], []
    for seed in range(300):
        taken = np.random.default_rng([seed, 5]).random(N) < p
        boast = np.where(confidence > 0.9, 0.9999, confidence)
        found = stratified(right, boast, np.where(taken, p, np.nan), utility=1 - confidence, whole=boast)
        covered.append(found.low <= right.mean() <= found.high)
        y, w = right[taken], 1 / p[taken]
        mean = w @ y / w.sum()
        half = 1.96 * ((1 - p[taken]) @ (w * (y - mean)) ** 2) ** 0.5 / w.sum()
        normal.append(abs(mean - right.mean()) <= half)
    assert np.mean(covered) >= 0.93
    assert np.mean(normal) < 0.8


def test_degrees_of_freedom_are_those_of_the_quadratic_form() -> None:
    """The sums of `_free` against the matrices that they stand for; of n alike they are n - 1."""
    rng = np.random.default_rng(0)
    pull, share = rng.random(12), rng.dirichlet(np.full(12, 0.3))
    centred = np.eye(12) - np.outer(np.ones(12), share)
    form = centred.T @ np.diag(pull) @ centred
    assert _free(pull, share) == pytest.approx(np.trace(form) ** 2 / np.trace(form @ form))
    assert _free(np.ones(12), np.full(12, 1 / 12)) == pytest.approx(11.0)


def test_the_variance_is_right_where_few_labels_carry_the_weight() -> None:
    """n / (n - 1) of the effective labels makes up for two thirds of what is missing here."""
    rng = np.random.default_rng(2)
    p = np.where(np.arange(40) < 4, 0.005, 0.2)
    values = rng.normal(size=(4000, len(p)))
    parts = [_Part.of(one, p) for one in values]
    share = 1 / p / (1 / p).sum()
    truth = float((1 - p) @ share**2)
    spread = np.std([part.variance for part in parts]) / np.sqrt(len(parts))
    assert abs(np.mean([part.variance for part in parts]) - truth) < 4 * spread
    assert parts[0].free < 5.0  # of 40 labels


def test_missing_labels_would_be_enough() -> None:
    right, _, p = population(0)
    taken = np.flatnonzero(np.random.default_rng(3).random(N) < p)
    few = taken[:20]
    found = hajek(right[few], p[few])
    assert not found.enough
    assert hajek(right[taken[: 20 + 2 * found.missing]], p[taken[: 20 + 2 * found.missing]]).enough


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


@pytest.mark.parametrize("n", [10, 20, 40])
def test_of_few_labels_the_interval_holds_about_as_often_as_it_says(n):
    """Exactly: every count of mistakes by how likely it is, a mean over shares, as a count jumps."""
    shares = np.linspace(0.05, 0.95, 91)
    found = [hajek(np.arange(n) < right, np.full(n, 0.001)) for right in range(n + 1)]
    likely = [[math.comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(n + 1)] for p in shares.tolist()]
    held = [[one.low <= p <= one.high for one in found] for p in shares.tolist()]
    coverage = (np.array(likely) * np.array(held)).sum(1)
    assert 0.95 <= coverage.mean() <= 0.9725
    assert coverage.min() > 0.92
