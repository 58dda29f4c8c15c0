"""Who is next: nobody waits for somebody else's flood, nothing changes its order, nothing is lost."""

import math
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.collect.turns import BURST_S, MESSAGE_WORK, ROUND_WORK, UNLIMITED, Limit, Turns

DEVICES = ("a", "b", "c", "d")
SIZE_MAX = 100_000
offers = st.lists(st.tuples(st.sampled_from(DEVICES), st.integers(0, SIZE_MAX)), max_size=60)


def drained(turns, now_s=0.0):
    found = []
    while (item := turns.take(now_s)) is not None:
        found.append(item)
    return found


@given(offers)
def test_all_that_was_taken_comes_out_in_the_order_of_its_device(sent):
    turns = Turns(room=10**9, device_share=1.0)
    for number, (device, size) in enumerate(sent):
        assert turns.offer(device, (device, number), size) == "taken"
    assert len(turns) == len(sent)
    found = drained(turns)
    by_device = defaultdict(list)
    for device, number in found:
        by_device[device].append(number)
    assert all(numbers == sorted(numbers) for numbers in by_device.values())
    assert sorted(number for _, number in found) == list(range(len(sent)))
    assert (len(turns), turns.due_s(0.0)) == (0, math.inf)


@given(offers, offers)
def test_while_two_devices_wait_neither_gets_much_more_than_the_other(before, meanwhile):
    """The theorem of the paper: work served to two lines that never empty differs by a round and a message at most."""
    turns = Turns(room=10**9, device_share=1.0)
    arriving = list(meanwhile)
    for device, size in [*before, *((device, SIZE_MAX) for device in DEVICES for _ in range(30))]:
        turns.put(device, (device, size), size)
    served = Counter()
    for _ in range(80):
        device, size = turns.take(0.0)
        served[device] += size + MESSAGE_WORK
        if arriving:
            device, size = arriving.pop()
            turns.put(device, (device, size), size)
        most = max(served[each] for each in DEVICES)
        assert most - min(served[each] for each in DEVICES) <= 2 * (ROUND_WORK + SIZE_MAX + MESSAGE_WORK)


@given(st.integers(1, 500), st.integers(0, SIZE_MAX))
def test_one_who_comes_late_waits_for_a_turn_of_the_others_and_not_for_what_they_have_waiting(flood, size):
    turns = Turns(room=10**9, device_share=1.0)
    for number in range(flood):
        turns.put("flood", ("flood", number), 20_000)
    turns.take(0.0)
    turns.put("calm", ("calm", 0), size)
    rounds = 1 + math.ceil((size + MESSAGE_WORK) / ROUND_WORK)
    most = math.ceil(rounds * ROUND_WORK / (20_000 + MESSAGE_WORK)) + 1
    assert ("calm", 0) in [turns.take(0.0) for _ in range(most + 1)]


def test_beyond_its_share_a_device_is_left_while_others_find_room():
    turns = Turns(room=10 * (1000 + MESSAGE_WORK), device_share=0.5)
    assert [turns.offer("flood", n, 1000) for n in range(7)] == ["taken"] * 5 + ["share"] * 2
    assert [turns.offer("calm", n, 1000) for n in range(5)] == ["taken"] * 5
    assert turns.offer("late", 5, 1000) == "full"
    assert sorted(drained(turns)) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert turns.offer("late", 5, 1000) == "taken"


def test_when_all_is_full_who_has_most_is_left_and_who_has_little_is_waited_for():
    turns = Turns(room=10 * (1000 + MESSAGE_WORK), device_share=0.9)
    for n in range(8):
        turns.put("flood", n, 1000)
    turns.put("calm", 0, 1000)
    turns.put("calm", 1, 1000)
    assert turns.offer("flood", 9, 1000) == "share"
    assert turns.offer("calm", 2, 1000) == "full"


def test_alone_a_device_is_held_back_and_not_left():
    turns = Turns(room=3 * (1000 + MESSAGE_WORK), device_share=1.0)
    assert [turns.offer("only", n, 1000) for n in range(4)] == ["taken"] * 3 + ["full"]


def test_what_is_larger_than_the_room_still_passes():
    turns = Turns(room=100, device_share=0.1)
    assert turns.offer("a", "large", 10_000) == "taken"
    assert turns.offer("a", "more", 10_000) == "share"
    assert drained(turns) == ["large"]


@pytest.mark.parametrize("limit", [Limit(messages_per_s=10.0), Limit(UNLIMITED, 1000.0)], ids=["messages", "bytes"])
def test_a_limit_holds_over_time_and_holds_nobody_else(limit):
    turns = Turns(room=10**9, device_share=1.0, limit=limit)
    for _ in range(1000):
        turns.put("flood", "flood", 100)
    turns.put("calm", "calm", 100)
    got = Counter(drained(turns))
    assert got["calm"] == 1
    assert abs(got["flood"] - BURST_S * 10) <= 1
    assert 0.0 < turns.due_s(0.0) <= 0.1
    assert drained(turns) == []
    assert abs(len(drained(turns, now_s=5.0)) - 50) <= 1
