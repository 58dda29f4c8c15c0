from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.choose.budget import Energy
from edge_agent.contract.bucket import DAY_S, Bucket


@given(
    st.floats(0.001, 1.0),
    st.floats(1.0, 50.0),
    st.lists(st.tuples(st.floats(0.0, 50.0), st.booleans()), max_size=200),
)
def test_no_window_spends_more_than_rate_times_its_length_plus_depth(
    rate: float, depth: float, steps: list[tuple[float, bool]]
) -> None:
    bucket = Bucket(rate=rate, depth=depth)
    now, spends = 0.0, []
    for wait, wants in steps:
        bucket.earn(wait)
        now += wait
        if wants and bucket.allows(1.0):
            bucket.take(1.0)
            spends.append(now)
    for i, begin in enumerate(spends):
        for j in range(i, len(spends)):
            assert j - i + 1 <= rate * (spends[j] - begin) + depth + 1e-6


@given(st.floats(1.0, 1e9))
def test_a_day_never_spends_more_than_its_limit(limit: float) -> None:
    bucket = Bucket.per_day(limit)
    assert bucket.rate * DAY_S + bucket.depth <= limit * (1 + 1e-9)


@given(
    st.floats(10.0, 1e5),
    st.floats(1e-6, 1e-3),
    st.lists(st.tuples(st.floats(0.0, DAY_S), st.integers(0, 2000), st.integers(100, 10**6)), max_size=60),
)
def test_inferring_and_sending_together_keep_to_the_energy_of_a_day(
    limit_j: float, per_byte_j: float, steps: list[tuple[float, int, int]]
) -> None:
    """As far as it can be kept: inferring goes on regardless, but nothing is sent out of what it overdrew that day."""
    energy = Energy(limit_j=limit_j, per_byte_j=per_byte_j, per_sample_j=limit_j / 20_000)
    now, spent = 0.0, []  # (when, joules, whether sent)
    for wait_s, samples, sample_bytes in steps:
        energy.earn(wait_s)
        now += wait_s
        energy.process(samples)
        spent.append((now, energy.per_sample_j * samples, False))
        if energy.allows(energy.cost(sample_bytes)):
            energy.take(energy.cost(sample_bytes))
            spent.append((now, energy.cost(sample_bytes), True))
    for end, _, sent in spent:
        if sent:
            day = sum(joules for at, joules, _ in spent if end - DAY_S < at <= end)
            assert day <= limit_j * (1 + 1e-9) + sum(j for at, j, _ in spent if at == end)  # of one moment, any order


def test_a_debt_is_a_day_s_limit_at_most_and_is_paid_off_before_anything_is_sent() -> None:
    energy = Energy(limit_j=1000.0, per_byte_j=0.001, per_sample_j=1.0)
    energy.process(10**6)
    assert energy.left == pytest.approx(-1000.0)
    energy.earn(DAY_S)
    assert not energy.allows(energy.cost(1))
    energy.earn(DAY_S / 2)
    assert energy.allows(energy.cost(1000))
    saved = Energy(limit_j=1000.0, per_byte_j=0.001, per_sample_j=1.0, tokens=-5.0)
    assert saved.tokens == -5.0
