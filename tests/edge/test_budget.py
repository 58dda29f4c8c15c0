from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.choose.budget import DAY_S, Bucket, Energy, scarcity, thrift


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
    assert energy.tokens == pytest.approx(-1000.0)
    energy.earn(DAY_S)
    assert not energy.allows(energy.cost(1))
    energy.earn(DAY_S / 2)
    assert energy.allows(energy.cost(1000))
    saved = Energy(limit_j=1000.0, per_byte_j=0.001, per_sample_j=1.0, tokens=-5.0)
    assert saved.tokens == -5.0


def test_scarcity_is_that_of_the_scarcest() -> None:
    half, low, empty = (Bucket(rate=1.0, depth=10.0, tokens=tokens) for tokens in (5.0, 2.5, 0.0))
    assert (scarcity(), scarcity(half), scarcity(half, low), scarcity(half, low, empty)) == (0.0, 0.0, 0.5, 1.0)
    assert scarcity(Bucket(rate=1.0, depth=10.0, tokens=-5.0)) == 1.0


@given(st.floats(1.0, 1e7), st.floats(1.0, 1e7), st.floats(1.0, 1e7), st.floats(0.0, 1.0))
def test_a_larger_sample_is_never_worth_more(size: float, other: float, usual: float, scarce: float) -> None:
    small, large = sorted((size, other))
    factors = [thrift(b, usual_bytes=usual, scarcity=scarce) for b in (small, large)]
    assert 0.0 < factors[1] <= factors[0]
    assert thrift(size, usual_bytes=usual, scarcity=0.0) == thrift(usual, usual_bytes=usual, scarcity=scarce) == 1.0


@pytest.mark.parametrize(("share", "least"), [(0.1, 1.15), (0.01, 0.93)], ids=["bytes bind", "labels bind"])
def test_value_per_byte_brings_more_value_where_bytes_bind_and_hardly_less_elsewhere(
    share: float, least: float
) -> None:
    """A running quantile of the value, as the selector's, and hard buckets; value and size have nothing in common."""
    rng = np.random.default_rng(0)
    values, sizes = rng.uniform(size=20_000), rng.lognormal(9.0, 0.5, 20_000)
    usual = float(np.median(sizes))

    def brought(*, thrifty: bool) -> float:
        data, labels = Bucket(rate=0.02 * sizes.mean(), depth=20 * sizes.mean()), Bucket(rate=share, depth=20.0)
        theta, spread, total = 0.5, 0.2, 0.0
        for value, size in zip(values.tolist(), sizes.tolist(), strict=True):
            data.earn(1.0)
            labels.earn(1.0)
            worth = value * (thrift(size, usual_bytes=usual, scarcity=scarcity(data)) if thrifty else 1.0)
            if worth > theta and labels.allows(1.0) and data.allows(size):
                labels.take(1.0)
                data.take(size)
                total += value
            theta += 0.05 * spread * (1.0 - share if worth > theta else -share)
            spread += 0.01 * (abs(worth - theta) - spread)
        return total

    assert brought(thrifty=True) > least * brought(thrifty=False)
