"""Is it time to teach? The rules, and the bet on errors of the audit's labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import Teach
from server.teach.harm import BET_MAX_SHARE, BETS, Harm, allowed_error, bet
from server.teach.when import Look, due

RULES = Teach(labels_per_round=200, max_age_days=30.0)
HARM = Harm(version=3, labels=80, errors=40, allowed=0.2, evidence=9000.0, alarm_at=70)
QUIET = HARM._replace(alarm_at=None)


@pytest.mark.parametrize(
    ("look", "rule"),
    [
        (Look(199, 1.0), None),
        (Look(200, 1.0), "labels"),
        (Look(0, 99.0, HARM), None),  # nothing new to learn from
        (Look(1, 99.0), "age"),
        (Look(1, 1.0, HARM), "harm"),
        (Look(1, 1.0, QUIET), None),
        (Look(19, 99.0, HARM, tried=True), None),  # a round has come to nothing: one label more would as well
        (Look(20, 99.0, HARM, tried=True), "harm"),
        (Look(20, 99.0, tried=True), "age"),
        (Look(200, 1.0, tried=True), "labels"),
        (Look(0, 1.0, erased="version 3", tried=True), "erasure"),
        (Look(0, 1.0, erased="version 3 learned from erasure 1"), "erasure"),
        (Look(300, 99.0, HARM, erased="version 3 learned from erasure 1"), "erasure"),
        (Look(0, 1.0, asked_by="ada", asked_why="new lenses"), "hand"),
        (Look(300, 99.0, HARM, erased="version 3", asked_by="ada", asked_why="new lenses"), "hand"),
    ],
)
def test_the_first_rule_that_holds_says_why(look, rule):
    found = due(RULES, look)
    assert (found.rule if found else None) == rule


def test_age_matters_only_where_it_is_told_to():
    assert due(Teach(labels_per_round=200), Look(1, 9999.0)) is None


def play(rate: float, labels: int, seed: int, *, allowed: float, threshold: float, floor=None) -> Harm:
    rng = np.random.default_rng(seed)
    floors = np.full(labels, 0.005) if floor is None else rng.choice(floor, labels)
    return bet(1, rng.random(labels) < rate, floors, allowed=allowed, threshold=threshold)


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.sampled_from([0.05, 0.3, 0.6]))
def test_the_evidence_is_of_all_moments_at_which_the_harm_may_have_begun(errors, allowed):
    """The recursion is the sum, over those moments, of what betting from then on has come to."""
    floor = np.linspace(0.01, 0.03, len(errors))
    most = 0.0
    for k in range(1, len(errors) + 1):
        fortunes = [
            sum(np.prod([1.0 + size * 0.01 / floor[i] * (errors[i] - allowed) for i in range(j, k)]) for j in range(k))
            for size in np.minimum(BETS, BET_MAX_SHARE / allowed)
        ]
        most = max(most, float(np.mean(fortunes)))
    found = bet(1, np.array(errors, np.bool_), floor, allowed=allowed, threshold=1e9)
    assert found.evidence == pytest.approx(most)


def test_false_alarms_are_as_rare_as_stated():
    """At an error just allowed, the worst case: a run of c labels alarms with a chance of at most 1 - 1/e or so."""
    first = [play(0.1, 3000, seed, allowed=0.1, threshold=500.0).alarm_at or 3000 for seed in range(60)]
    assert np.mean(first) >= 500.0  # cut off at 3,000: an underestimate


@pytest.mark.parametrize("floor", [None, (0.002, 0.01)])
def test_a_rise_of_the_error_is_found(floor):
    delays = [play(0.35, 400, seed, allowed=0.12, threshold=5000.0, floor=floor).alarm_at for seed in range(20)]
    assert None not in delays
    assert np.median(delays) <= (60 if floor is None else 120)


def test_a_stream_that_is_looked_at_more_often_does_not_count_more():
    """Cameras whose floor is high send most labels. Theirs are right, and the fleet is harmed all the same."""
    rng = np.random.default_rng(0)
    often = rng.random(3000) < 0.8  # 4 of 5 labels come from streams with a floor four times as high
    errors = rng.random(3000) < np.where(often, 0.02, 0.6)
    floor = np.where(often, 0.02, 0.005)
    assert bet(1, errors, floor, allowed=0.2, threshold=1e6).alarm_at is not None  # weighted: .31; unweighted: .14
    assert bet(1, errors, np.full(3000, 0.01), allowed=0.2, threshold=1e6).alarm_at is None


@given(st.lists(st.booleans(), max_size=200), st.floats(0.0, 0.999), st.floats(1.0, 1e6))
def test_evidence_is_finite_and_never_negative(errors, allowed, threshold):
    found = bet(1, np.array(errors, np.bool_), np.full(len(errors), 0.01), allowed=allowed, threshold=threshold)
    assert np.isfinite(found.evidence)
    assert found.evidence >= 0.0
    assert (found.alarm_at is not None) == (found.evidence >= threshold)


@given(st.floats(0.01, 0.9), st.sampled_from(BETS))
def test_no_bet_gains_on_average_while_the_error_is_allowed(allowed, size):
    """One step, by the two outcomes: the mean of its factor is at most 1, and none is negative."""
    size = min(size, 0.9 / allowed)
    lose, win = 1.0 - size * allowed, 1.0 + size * (1.0 - allowed)
    assert lose > 0.0
    assert (1.0 - allowed) * lose + allowed * win <= 1.0 + 1e-9


@given(st.floats(0.0, 1.0), st.integers(1, 10_000), st.floats(0.0, 0.2))
def test_the_allowed_error_is_above_the_reference_and_nearer_with_more_labels(error, labels, tolerance):
    allowed = allowed_error(error, labels, tolerance)
    assert error + tolerance <= allowed + 1e-9 or allowed == 1.0
    assert allowed_error(error, 4 * labels, tolerance) <= allowed + 1e-9


def test_without_a_reference_nothing_is_harm():
    assert allowed_error(0.0, 0, 0.02) == 1.0
    assert play(1.0, 100, 0, allowed=1.0, threshold=10.0).alarm_at is None
