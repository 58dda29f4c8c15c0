from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.wire import Event
from edge_agent.send.event_queue import EventQueue
from edge_agent.send.window import FIRST, LEAST, Window, retry_wait_s


@given(st.integers(0, 2000), st.floats(0.01, 10), st.floats(0.01, 1000), st.integers(0, 2**32 - 1))
def test_a_wait_is_never_below_the_first_nor_above_the_limit(attempt, first_s, max_s, seed):
    wait_s = retry_wait_s(attempt, first_s=first_s, max_s=max_s, uniform=np.random.default_rng(seed).random)
    assert first_s <= wait_s <= max(first_s, max_s)
    assert wait_s <= first_s * 2.0 ** min(attempt + 1, 1000)


def test_waits_double_and_spread_over_their_whole_range():
    rng = np.random.default_rng(1)
    for attempt, limit_s in [(0, 4.0), (1, 8.0), (3, 32.0), (30, 300.0)]:
        waits = [retry_wait_s(attempt, first_s=2.0, max_s=300.0, uniform=rng.random) for _ in range(2000)]
        shares, _ = np.histogram(waits, bins=4, range=(2.0, limit_s))
        assert shares.min() > 400


def a_window(size=3, max_bytes=1000):
    return Window(size, max_bytes=max_bytes, first_s=1.0, max_s=8.0, uniform=np.random.default_rng(0).random)


def yes():
    return True


def no():
    return False


def test_room_is_bounded_in_samples_and_in_bytes():
    window = a_window()
    window.sent("a", 5000, now_s=0.0, taken=yes)
    assert not window.has_room()  # one sample may be too large; a second may not follow it
    window.forget(["a", "never heard of"])
    for id_ in "abc":
        assert window.has_room()
        window.sent(id_, 10, now_s=0.0, taken=yes)
    assert not window.has_room()
    window.sent("a", 10, now_s=1.0, taken=yes)
    window.forget(["a", "a"])
    assert window.has_room()
    assert ("a" in window, "b" in window) == (False, True)


def test_each_is_due_later_each_time():
    window = a_window()
    now_s, waits = 0.0, []
    for _ in range(8):
        window.sent("a", 1, now_s=now_s, taken=yes)
        due_s = window.next_due_s()
        assert window.due(math.nextafter(due_s, 0)) == []
        assert window.due(due_s) == ["a"]
        waits.append(due_s - now_s)
        now_s = due_s
    assert all(1.0 <= wait <= min(8.0, 2.0 ** (n + 1)) + 1e-9 for n, wait in enumerate(waits))
    assert max(waits) > 4.0


def fill(window, *, now_s, first=0):
    """Send until there is no room; the ids."""
    ids = []
    while window.has_room():
        ids.append(f"{now_s}.{first + len(ids)}")
        window.sent(ids[-1], 1, now_s=now_s, taken=yes)
    return ids


def test_it_grows_with_receipts_up_to_its_size_and_halves_once_for_what_is_lost_together():
    window = a_window(size=500, max_bytes=10**6)
    assert len(fill(window, now_s=0.0)) == FIRST
    sizes = []
    for now_s in (0.1, 0.2, 0.3, 0.4, 0.5):
        window.receipted(list(window._sending))
        sizes.append(len(fill(window, now_s=now_s)))
    assert sizes == [64, 128, 256, 500, 500]  # it doubles with each window of receipts
    lost = window.due(10.0)
    assert len(lost) == 500
    assert (window.size, window.has_room()) == (250, False)
    for id_ in lost:
        window.sent(id_, 1, now_s=10.0, taken=yes)
    window.receipted(lost)  # of samples sent twice: a receipt says nothing of how much the way can bear
    assert window.size == 250
    window.receipted(fill(window, now_s=11.0))
    assert window.size in (250, 251)  # now by one for a whole window


def test_one_more_for_a_whole_window_after_a_loss():
    window = a_window(size=500, max_bytes=10**6)
    fill(window, now_s=0.0)
    lost = window.due(10.0)
    assert window.size == FIRST // 2
    window.forget(lost)
    for round_ in range(1, 6):
        window.receipted(fill(window, now_s=10.0 + round_))
        assert FIRST // 2 <= window.size <= FIRST // 2 + round_
    assert window.size >= FIRST // 2 + 4


def test_however_many_are_lost_a_few_may_go_and_a_new_connection_is_no_loss():
    window = a_window(size=500, max_bytes=10**6)
    for now_s in range(1, 300, 10):
        fill(window, now_s=float(now_s))
        for id_ in window.due(float(now_s) + 9.0):
            window.forget([id_])
    assert window.size == LEAST
    whole = a_window(size=500, max_bytes=10**6)
    fill(whole, now_s=0.0)
    whole.all_due()
    assert len(whole.due(0.0)) == FIRST
    assert whole.size == FIRST
    tiny = a_window(size=2)
    fill(tiny, now_s=0.0)
    tiny.due(10.0)
    assert tiny.size == 2  # never more than was configured


def test_what_the_broker_has_not_taken_is_not_sent_twice_on_one_connection():
    window = a_window()
    window.sent("slow", 1, now_s=0.0, taken=no)
    assert window.due(100.0) == []
    assert 100.0 < window.next_due_s() <= 101.0
    window.all_due()  # a new connection
    assert window.due(100.0) == ["slow"]


def test_after_all_due_the_order_is_of_first_sending_and_the_waits_begin_anew():
    window = a_window()
    for id_ in "abc":
        window.sent(id_, 1, now_s=0.0, taken=yes)
    for _ in range(5):
        window.sent("a", 1, now_s=0.0, taken=yes)
    window.all_due()
    assert window.due(0.0) == ["a", "b", "c"]
    window.sent("a", 1, now_s=0.0, taken=yes)
    window.forget(["b", "c"])
    assert window.next_due_s() <= 2.0
    window.forget(["a"])
    assert window.next_due_s() == math.inf


def an_event(n):
    return Event(session="s", boot=1, n=n, at_ms=0, kind="alarm", text="")


def test_events_wait_and_the_oldest_of_too_many_is_dropped():
    events = EventQueue(limit=3)
    for n in range(5):
        events.put(an_event(n))
    sent = []
    events.send(lambda event: sent.append(event.n) or yes)
    assert (sent, events.dropped, len(events)) == ([2, 3, 4], 2, 0)
    events.send(lambda event: sent.append(event.n) or yes)
    assert sent == [2, 3, 4]


def test_events_that_the_broker_did_not_take_are_sent_again_in_their_order():
    events = EventQueue()
    for n in range(4):
        events.put(an_event(n))
    events.send(lambda event: yes if event.n == 1 else no)
    events.put(an_event(4))
    events.restore()
    sent = []
    events.send(lambda event: sent.append(event.n) or yes)
    assert sent == [0, 2, 3, 4]


def test_an_event_whose_sending_fails_is_not_lost():
    events = EventQueue()
    events.put(an_event(1))
    events.put(an_event(2))

    def fail(event):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        events.send(fail)
    events.restore()
    sent = []
    events.send(lambda event: sent.append(event.n) or yes)
    assert sent == [1, 2]


def test_an_event_that_cannot_go_yet_waits_in_front_of_those_behind_it():
    events, room, went = EventQueue(), [1], []

    def publish(event):
        if not room:
            return None
        room.pop()
        went.append(event.n)
        return yes

    for n in range(3):
        events.put(Event(session="s", boot=1, n=n, at_ms=0, kind="alarm", text=""))
    assert [events.send(publish), went, len(events)] == [False, [0], 2]
    room += [1, 1]
    assert [events.send(publish), went, len(events)] == [True, [0, 1, 2], 0]
