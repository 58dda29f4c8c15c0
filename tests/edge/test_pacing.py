"""Are readings taken as fast as they may be, and is none lost?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.types import Reading
from edge_agent.pace import IDLE_S, Pace

DATA = np.zeros(1, np.uint8)


class Clock:
    """Time that passes by sleeping, by a source that takes its time, and by whoever takes the readings."""

    def __init__(self) -> None:
        self.now_s = self.cpu_s = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    def work(self, seconds: float) -> None:
        self.now_s += seconds
        self.cpu_s += seconds

    def pace(self, rate: float = 0.0) -> Pace:
        return Pace(max_rate_per_s=rate, monotonic=lambda: self.now_s, cpu_s=lambda: self.cpu_s, sleep=self.sleep)


def source(clock: Clock, waits: list[float]) -> Iterator[Reading | None]:
    for seq, wait_s in enumerate(waits):
        if wait_s > IDLE_S:
            yield None
        clock.now_s += wait_s
        yield Reading(DATA, seq)


times = st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 1.0)), max_size=60)


@given(steps=times, rate=st.floats(0.5, 100.0))
def test_no_window_has_more_than_the_rate_and_nothing_is_lost(steps: list[tuple[float, float]], rate: float) -> None:
    clock, taken = Clock(), []
    for reading in clock.pace(rate).through(source(clock, [wait for wait, _ in steps])):
        if reading is not None:
            taken.append((reading.seq, clock.now_s))
            clock.work(steps[reading.seq][1])
    assert [seq for seq, _ in taken] == list(range(len(steps)))
    for i, (_, first) in enumerate(taken):
        for j, (_, last) in enumerate(taken[i:], start=1):
            assert j <= rate * (last - first) + 1 + 1e-6
    assert max(clock.slept, default=0.0) <= IDLE_S


@given(steps=times, share=st.sampled_from([0.5, 0.25, 0.125]))
def test_it_works_for_its_share_of_the_time_at_most(steps: list[tuple[float, float]], share: float) -> None:
    clock, worked, seen = Clock(), 0.0, 0
    pace = clock.pace()
    pace.share = share
    for reading in pace.through(source(clock, [0.0] * len(steps))):
        if reading is not None:
            seen += 1
            clock.work(steps[reading.seq][1])
            worked += steps[reading.seq][1]
    assert seen == len(steps)
    assert sum(clock.slept) == pytest.approx(worked * (1 / share - 1), abs=0.011 / share)


@given(steps=times)
def test_with_neither_limit_nor_heat_it_is_as_if_it_were_not_there(steps: list[tuple[float, float]]) -> None:
    clock, other = Clock(), Clock()
    through = [r and r.seq for r in clock.pace().through(source(clock, [wait for wait, _ in steps]))]
    assert through == [r and r.seq for r in source(other, [wait for wait, _ in steps])]
    assert (clock.slept, clock.now_s) == ([], other.now_s)


def test_a_source_that_decodes_for_long_rests_for_that_as_well() -> None:
    clock = Clock()
    pace = clock.pace()
    pace.share = 0.5

    def decoding() -> Iterator[Reading | None]:
        for seq in range(10):
            clock.work(0.2)
            yield Reading(DATA, seq)

    assert sum(reading is not None for reading in pace.through(decoding())) == 10
    assert sum(clock.slept) == pytest.approx(2.0)


def test_heat_slows_a_stream_that_runs_and_lets_it_go_again() -> None:
    clock, at = Clock(), []
    pace = clock.pace()
    for reading in pace.through(source(clock, [0.0] * 30)):
        if reading is None:
            continue
        at.append(clock.now_s)
        clock.work(0.1)
        pace.share = 0.25 if 10 <= reading.seq < 20 else 1.0
    gaps = np.diff(at).round(6).tolist()
    assert gaps[:10] == [0.1] * 10
    assert gaps[11:19] == [0.4] * 8
    assert gaps[21:] == [0.1] * 8
