from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.choose.budget import DAY_S, Bucket


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
