"""Does the link never carry more than it may, whatever is sent, and whenever the agent dies?"""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sending import a_put

from edge_agent.contract.wire import BODY_MAX_BYTES, sample_frames
from edge_agent.send.access import packet_bytes
from edge_agent.send.allowance import EXCESS, HEADER_MAX_BYTES, WINDOW_S, Allowance
from edge_agent.send.beats import Beats

DAY_S = 86_400.0
TOPIC = "winnow/1/default/dev/up/sample"


def busiest(sends: list[tuple[float, int]], window_s: float) -> int:
    """Bytes in the window of that length with the most."""
    most, begin, total = 0, 0, 0
    for at, size in sends:
        total += size
        while sends[begin][0] < at - window_s:
            total -= sends[begin][1]
            begin += 1
        most = max(most, total)
    return most


def play(allowance: Allowance, sizes: list[int], *, now_s: float = 0.0, idle_s: list[float] = ()) -> list:
    """Send messages of these sizes as soon as they may go, with idle times between; (when, size) of each."""
    sends = []
    for size, idle in itertools.zip_longest(sizes, idle_s, fillvalue=0.0):
        if not size:
            break
        now_s += idle
        while (wait_s := allowance.wait_s(size, now_s)) > 0:
            now_s += wait_s + 1e-9
        allowance.sent(size, now_s)
        sends.append((now_s, size))
    return sends


rates = st.floats(1_000.0, 1e8)


@given(rates, st.lists(st.floats(0.0, 1.0), min_size=1, max_size=300), st.lists(st.floats(0.0, 30.0), max_size=20))
def test_over_any_ten_seconds_no_more_than_five_percent_above_the_rate(rate, parts, idle_s):
    allowance = Allowance(bytes_per_s=rate)
    largest = allowance.part_bytes + HEADER_MAX_BYTES
    sends = play(allowance, [max(1, int(part * largest)) for part in parts], idle_s=idle_s)
    assert busiest(sends, WINDOW_S) <= EXCESS * rate * WINDOW_S + 1.0


def test_a_large_sample_on_a_slow_link_does_not_burst_and_uses_the_link():
    rate = 10_000.0
    allowance = Allowance(bytes_per_s=rate)
    big = a_put(1, size=200_000)
    frames = sample_frames(big.header, big.body, part_bytes=allowance.part_bytes)
    sizes = [packet_bytes(TOPIC, frame, qos=1) for frame in frames] * 5
    sends = play(allowance, sizes)
    assert busiest(sends, 1.0) <= 1.5 * rate + 1
    assert busiest(sends, WINDOW_S) <= EXCESS * rate * WINDOW_S + 1
    assert sum(sizes) / sends[-1][0] >= 0.99 * rate


@pytest.mark.parametrize(("rate", "share"), [(1_000, 0.55), (2_000, 0.8), (6_000, 0.97), (10_000, 0.99)])
def test_a_very_slow_link_is_not_used_to_the_full_but_never_above(rate, share):
    allowance = Allowance(bytes_per_s=rate)
    sizes = [allowance.part_bytes + 450] * 100
    sends = play(allowance, sizes)
    assert sum(sizes) / sends[-1][0] >= share * rate
    assert busiest(sends, WINDOW_S) <= EXCESS * rate * WINDOW_S + 1


def test_without_limits_nothing_waits_and_all_is_counted():
    allowance = Allowance()
    allowance.sent(10**9, 0.0)
    allowance.received(7, 0.0)
    assert (allowance.wait_s(10**9, 0.0), allowance.part_bytes, allowance.limited) == (0.0, BODY_MAX_BYTES, False)
    assert (allowance.sent_bytes, allowance.received_bytes, allowance.day_tokens(0.0)) == (10**9, 7, None)


def test_a_clock_that_another_thread_read_earlier_earns_nothing_twice():
    allowance = Allowance(bytes_per_s=1000.0)
    allowance.sent(3000, 10.0)
    before = allowance.wait_s(3000, 10.0)
    allowance.wait_s(3000, 4.0)
    assert allowance.wait_s(3000, 10.0) == before


class Life:
    """A device over its starts: what it keeps on file, and all that it ever sent, by a clock that never jumps."""

    def __init__(self, limit: float) -> None:
        self.limit, self.file, self.saves, self.room = limit, b"", 0, True
        self.true_s, self.sends = 0.0, []
        self.start()

    def start(self) -> None:
        """Any monotonic clock, as after a reboot."""
        self.began_s = self.true_s - 1e6 * (self.saves % 3)
        self.allowance = Allowance(
            bytes_per_day=self.limit, saved=self.file, save=self.keep, now_s=self.true_s - self.began_s
        )

    def keep(self, state: bytes) -> bool:
        if self.room:
            self.file, self.saves = state, self.saves + 1
        return self.room

    def now_s(self) -> float:
        return self.true_s - self.began_s

    def send(self, size: int) -> None:
        if self.allowance.wait_s(size, self.now_s()) == 0:
            self.allowance.sent(size, self.now_s())
            self.sends.append((self.true_s, size))


@given(st.integers(100_000, 10**9), st.data())
def test_a_day_holds_across_crashes_at_any_moment(limit, data):
    life = Life(limit)
    largest = life.allowance.part_bytes
    steps = data.draw(
        st.lists(st.tuples(st.sampled_from(["send", "crash", "wait"]), st.floats(0.0, 1.0)), min_size=1, max_size=150)
    )
    for what, how in steps:
        if what == "send":
            for _ in range(5):
                life.send(max(1, int(how * largest)))
        elif what == "crash":
            life.start()
        else:
            life.true_s += how * how * DAY_S / 2
    if life.sends:
        assert busiest(life.sends, DAY_S) <= limit * (1 + 1e-9)


def test_what_is_on_file_is_never_more_than_there_is_and_seldom_written():
    life = Life(10_000_000.0)
    rng = np.random.default_rng(0)
    for _ in range(30_000):
        life.true_s += float(rng.exponential(10.0))
        life.send(int(rng.integers(100, 5_000)))
        assert msgspec.json.decode(life.file) <= life.allowance.day_tokens(life.now_s())
    days = life.true_s / DAY_S
    assert life.saves / days < 150
    assert sum(size for _, size in life.sends) / days > 0.8 * life.limit


def test_what_could_not_be_written_is_tried_again_until_there_is_room():
    life = Life(1_000_000.0)
    life.room = False
    for _ in range(10):
        life.send(5_000)
    assert msgspec.json.decode(life.file) == 100_000
    life.room = True
    life.send(1_000)
    assert msgspec.json.decode(life.file) <= life.allowance.day_tokens(life.now_s())


def test_a_restart_costs_a_few_percent_of_a_burst_and_no_more():
    life = Life(1_000_000.0)
    life.send(50_000)
    life.start()
    assert 29_000 <= life.allowance.day_tokens(life.now_s()) <= 50_000


def test_what_cannot_wait_is_paid_off_before_anything_else():
    allowance = Allowance(bytes_per_day=1_000_000.0)
    for _ in range(20):
        allowance.received(10_000, 0.0)  # a model came
    assert allowance.day_tokens(0.0) == -100_000
    assert allowance.wait_s(1000, 0.0, urgent=True) == 0.0
    wait_s = allowance.wait_s(1000, 0.0)
    assert wait_s == pytest.approx(101_000 / (900_000 / DAY_S))
    assert allowance.wait_s(1000, wait_s + 1e-6) == 0.0


def test_heartbeats_are_paced_so_that_half_a_day_is_left():
    allowance = Allowance(bytes_per_day=1_000_000.0)
    assert 2000 * DAY_S / allowance.pace_s(2000) <= 500_000
    assert Allowance(bytes_per_s=1000.0).pace_s(2000) == 0.0


def test_the_first_heartbeat_knows_that_the_next_may_take_long():
    beats = Beats(30.0, Allowance(bytes_per_day=100_000.0))
    beats.expect(1_000)
    said = beats.every_s("")
    beats.said(2_000, 0.0, "")
    assert said > 30.0
    assert beats.wait_s(1.0, "") < 3 * said  # after three such times a device counts as offline
    beats.expect(1_000)
    assert beats.every_s("") == 2 * said


def test_damaged_state_says_so():
    with pytest.raises(msgspec.DecodeError):
        Allowance(bytes_per_day=1e6, saved=b"{rubbish")
