from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.audit.inclusion import inclusion
from server.audit.interval import limits
from server.audit.yields import Found, compare

N = 20_000
FLOOR = 0.01


def labelled(seed: int, *, audit_share: float, rule_share: float):
    """A stream's labelled samples: their p, whether they came by the floor, and what was selected."""
    rng = np.random.default_rng(seed)
    p = FLOOR + (1 - FLOOR) * rng.beta(0.3, 5, N)
    draw = rng.random(N)
    selected, audit = draw < p, draw < FLOOR
    taken = selected & (rng.random(N) < np.where(audit, audit_share, rule_share))
    return p[taken], audit[taken], int(audit.sum()), int((selected & ~audit).sum())


@pytest.mark.parametrize(("audit_share", "rule_share"), [(1.0, 1.0), (1.0, 0.0), (1.0, 0.3), (0.5, 0.1)])
def test_the_labelled_stand_for_the_stream_however_many_are_missing(audit_share, rule_share):
    totals = []
    for seed in range(30):
        p, audit, by_floor, by_rule = labelled(seed, audit_share=audit_share, rule_share=rule_share)
        found = inclusion(
            p,
            np.full(len(p), FLOOR),
            np.ones(len(p)),
            audit=audit,
            group=np.zeros(len(p), np.int64),
            selected_audit=np.array([by_floor]),
            selected_rule=np.array([by_rule]),
        )
        assert ((found > 0) & (found <= p + 1e-12)).all()
        totals.append((1 / found).sum())
    assert abs(np.mean(totals) / N - 1) < 4 * np.std(totals) / N / 30**0.5


def test_all_labelled_is_p_and_the_audit_alone_is_the_floor():
    p, audit, by_floor, by_rule = labelled(0, audit_share=1.0, rule_share=1.0)
    few = {"group": np.zeros(len(p), np.int64), "selected_audit": np.array([by_floor])}
    whole = inclusion(p, np.full(len(p), FLOOR), np.ones(len(p)), audit=audit, selected_rule=np.array([by_rule]), **few)
    np.testing.assert_allclose(whole, p)
    few["group"] = few["group"][audit]
    alone = inclusion(
        p[audit],
        np.full(by_floor, FLOOR),
        np.ones(by_floor),
        audit=audit[audit],
        selected_rule=np.array([by_rule]),
        **few,
    )
    np.testing.assert_allclose(alone, FLOOR)


def test_the_labelled_stand_for_all_where_some_are_certain():
    """A weight below 1 is none: what it lacks is the others' to bear, so that the sum stays what was selected."""
    asked = np.array([1.0, 1.0, 0.9, 0.5, 0.02])
    found = inclusion(
        np.full(6, 0.5),
        np.zeros(6),
        np.append(asked, 0.01),  # of the audit's it says nothing: when it was asked about is chance alone
        audit=np.array([False] * 5 + [True]),
        group=np.zeros(6, np.int64),
        selected_audit=np.array([2]),
        selected_rule=np.array([20]),
    )
    b = found[:5] / 0.5
    assert (b <= 1.0).all()
    assert (1.0 / b).sum() == pytest.approx(20)
    assert b[0] == b[1] == b[2] == 1.0


def test_a_group_without_a_label_of_its_audit_has_no_probability():
    found = inclusion(
        np.array([0.5, 0.5]),
        np.array([0.1, 0.1]),
        np.ones(2),
        audit=np.array([False, True]),
        group=np.array([0, 1]),
        selected_audit=np.array([1, 1]),
        selected_rule=np.array([1, 0]),
    )
    assert np.isnan(found).tolist() == [True, False]


@given(st.floats(0, 1), st.floats(0, 0.05), st.floats(0, 0.2))
@settings(max_examples=200, deadline=None)
def test_limits_are_around_the_share_and_the_same_seen_from_the_other_side(share, variance, unit):
    low, high = limits(share, variance, unit, confidence_level=0.95)
    assert 0.0 <= low <= share <= high <= 1.0 + 1e-9
    if share != 0.5:
        other = limits(1.0 - share, variance, unit, confidence_level=0.95)
        assert other == pytest.approx((1.0 - high, 1.0 - low), abs=1e-6)


@pytest.mark.parametrize("chance", [0.002, 0.02, 0.3, 0.98])
def test_limits_hold_for_plain_counts_also_where_mistakes_are_rare(chance):
    n = 200
    counts, times = np.unique(np.random.default_rng(0).binomial(n, chance, 4000), return_counts=True)
    shares = counts / n
    found = [limits(p, p * (1 - p) / (n - 1), 1 / n, confidence_level=0.95) for p in shares.tolist()]
    covered = [low <= chance <= high for low, high in found]
    assert 0.93 <= np.average(covered, weights=times) <= 0.995


def test_ratios_hold_what_they_promise_and_say_when_random_found_nothing():
    rng = np.random.default_rng(0)
    for p, q, n, m in ((0.4, 0.12, 800, 100), (0.3, 0.02, 500, 80), (0.1, 0.1, 300, 300)):
        pairs = zip(rng.binomial(n, p, 4000).tolist(), rng.binomial(m, q, 4000).tolist(), strict=True)
        found = [compare(Found(a, n), Found(b, m)) for a, b in pairs]
        assert np.mean([one.low <= p / q and (one.high is None or p / q <= one.high) for one in found]) >= 0.935
    nothing = compare(Found(10, 100), Found(0, 50))
    assert (nothing.ratio, nothing.high) == (None, None)
    assert nothing.low > 1.0
    assert compare(Found(0, 0), Found(1, 5)) == (Found(0, 0), Found(1, 5), None, None, None)
