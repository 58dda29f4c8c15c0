"""Do downloads keep the rate, come to every device in turn, and never pile up?"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.wire import BLOCK_BYTES, FETCH_MAX_BLOCKS
from server.release import pace as rules
from server.release.pace import BURST_S, Pace, Turn

RATE = 1_000_000.0


def turns(pace: Pace, limit: int = 1000) -> list[Turn]:
    found = []
    while len(found) < limit and (turn := pace.next()) is not None:
        found.append(turn)
    return found


def test_devices_come_in_turn_however_much_one_asks_for():
    pace = Pace(bytes_per_s=0)
    pace.ask("greedy", "aa", range(60))
    pace.ask("modest", "aa", [3, 4])
    pace.ask("late", "bb", [0])
    order = [(turn.device, turn.block) for turn in turns(pace)]
    assert order[:6] == [("greedy", 0), ("modest", 3), ("late", 0), ("greedy", 1), ("modest", 4), ("greedy", 2)]
    assert len(order) == 63


def test_asking_again_neither_lengthens_the_line_nor_loses_the_place():
    pace = Pace(bytes_per_s=0)
    pace.ask("a", "aa", [0, 1])
    pace.ask("b", "aa", [0])
    for _ in range(100):
        assert pace.ask("a", "aa", [1, 0]) == 0
    assert pace.waiting == 3
    assert [turn.device for turn in turns(pace)] == ["a", "b", "a"]


def test_another_file_takes_the_place_of_the_one_before():
    pace = Pace(bytes_per_s=0)
    pace.ask("a", "old", range(8))
    pace.ask("a", "new", [5])
    assert pace.waiting == 1
    assert turns(pace) == [Turn("a", "new", 5)]
    pace.ask("a", "old", range(8))
    pace.ask("a", "new", [])
    assert (turns(pace), pace.waiting) == ([], 0)


def test_the_line_is_bounded_for_each_device_and_for_all(monkeypatch):
    monkeypatch.setattr(rules, "WAITING_MAX", 100)
    pace = Pace(bytes_per_s=0)
    assert pace.ask("a", "aa", range(10**9)) == FETCH_MAX_BLOCKS
    assert pace.ask("b", "aa", range(90)) == 100 - FETCH_MAX_BLOCKS
    assert pace.ask("c", "aa", [0]) == 0
    assert pace.waiting == len(turns(pace)) == 100
    assert pace.ask("c", "aa", [0]) == 1


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    rate=st.floats(1e3, 1e8),
    sizes=st.lists(st.integers(1, BLOCK_BYTES + 200), min_size=1, max_size=200),
    late=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=20),
)
def test_no_window_of_time_holds_more_than_the_rate_and_a_burst(rate, sizes, late):
    """`late`: how much longer than told the sender sleeps, over and over."""
    pace, now_s, sent = Pace(bytes_per_s=rate), 0.0, []
    for n, size in enumerate(sizes):
        pace.ask("a", "aa", [n])
        pace.tell(now_s)
        while rest_s := pace.rest_s:
            now_s += rest_s * (1 + 1e-9) + late[n % len(late)]
            pace.tell(now_s)
        assert pace.next() is not None
        pace.sent(size)
        sent.append((now_s, size))
    for first in range(0, len(sent), 7):
        total = 0
        for at_s, size in sent[first:]:
            total += size
            assert total <= rate * (at_s - sent[first][0] + BURST_S) + BLOCK_BYTES + 201


def test_a_rate_is_reached():
    pace, now_s, gone = Pace(bytes_per_s=RATE), 0.0, 0
    while now_s < 60.0:
        pace.ask("a", "aa", [0])
        pace.tell(now_s)
        if rest_s := pace.rest_s:
            now_s += rest_s
            continue
        pace.next()
        pace.sent(BLOCK_BYTES)
        gone += BLOCK_BYTES
    assert gone == pytest.approx(60.0 * RATE, rel=0.02)


def test_without_a_rate_there_is_no_rest():
    pace = Pace(bytes_per_s=0.0)
    pace.sent(10**12)
    assert pace.rest_s == 0.0
