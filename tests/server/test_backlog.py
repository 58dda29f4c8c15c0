"""What makes a group: what is here, in turn, and not more than others can wait for."""

import threading

import pytest

from server.collect.backlog import GROUP_WORK, Backlog
from server.collect.turns import MESSAGE_WORK, Turns


@pytest.fixture
def backlog():
    return Backlog(Turns(room=10 * GROUP_WORK, device_share=1.0))


def gathered(backlog, most, *, patience_s):
    """A group that is done at once."""
    group = backlog.gather(most, patience_s=patience_s)
    if group:
        backlog.done()
    return group


def test_while_a_group_is_under_way_another_goes_only_when_it_is_full_and_none_beyond(backlog):
    backlog.put("a", 0, 0)
    assert backlog.gather(2, patience_s=0.0) == [0]
    backlog.put("a", 1, 0)
    assert backlog.gather(2, patience_s=0.0) == []  # it may become larger yet
    backlog.put("a", 2, 0)
    assert backlog.gather(2, patience_s=0.0) == [1, 2]
    for number in range(3, 6):
        backlog.put("a", number, 0)
    assert backlog.gather(2, patience_s=0.0) == []
    backlog.done()
    assert backlog.gather(2, patience_s=0.0) == [3, 4]
    backlog.done()
    assert backlog.gather(2, patience_s=0.0) == []
    backlog.done()
    assert backlog.gather(2, patience_s=0.0) == [5]


def test_a_group_that_is_large_is_full(backlog):
    for number in range(3):
        backlog.put("a", number, GROUP_WORK)
    assert [backlog.gather(100, patience_s=0.0) for _ in range(3)] == [[0], [1], []]


def test_who_waits_for_a_group_to_be_done_is_woken(backlog):
    backlog.put("a", 0, 0)
    backlog.gather(2, patience_s=0.0)
    backlog.put("a", 1, 0)
    threading.Timer(0.05, backlog.done).start()
    assert backlog.gather(2, patience_s=60.0) == [1]


def test_a_group_is_what_is_here_up_to_a_number(backlog):
    for number in range(7):
        backlog.put("a", number, 0)
    assert gathered(backlog, 5, patience_s=0.0) == [0, 1, 2, 3, 4]
    assert gathered(backlog, 5, patience_s=0.0) == [5, 6]
    assert gathered(backlog, 5, patience_s=0.0) == []


def test_large_messages_of_one_make_a_group_that_others_can_wait_for(backlog):
    size = GROUP_WORK // 4 - MESSAGE_WORK
    for number in range(10):
        backlog.put("a", number, size)
    assert [len(gathered(backlog, 100, patience_s=0.0)) for _ in range(4)] == [4, 4, 2, 0]


def test_one_larger_than_a_group_goes_alone(backlog):
    for number in range(2):
        backlog.put("a", number, 2 * GROUP_WORK)
    assert [gathered(backlog, 100, patience_s=0.0) for _ in range(3)] == [[0], [1], []]


def test_what_may_linger_waits_for_company_and_goes_with_the_first_that_may_not(backlog):
    for number in range(3):
        backlog.put("a", number, 0, linger_s=60.0)
    assert gathered(backlog, 5, patience_s=0.0) == []
    backlog.put("b", 3, 0)
    assert sorted(gathered(backlog, 5, patience_s=0.0)) == [0, 1, 2, 3]


def test_what_may_linger_goes_by_itself_in_the_end(backlog):
    backlog.put("a", 0, 0, linger_s=0.05)
    assert gathered(backlog, 5, patience_s=0.0) == []
    assert gathered(backlog, 5, patience_s=60.0) == [0]


def test_a_whole_group_lingers_no_longer_and_neither_does_the_rest(backlog):
    for number in range(5):
        backlog.put("a", number, 0, linger_s=60.0)
    assert gathered(backlog, 4, patience_s=0.0) == [0, 1, 2, 3]
    assert gathered(backlog, 4, patience_s=0.0) == [4]


def test_what_comes_back_from_elsewhere_does_not_linger(backlog):
    backlog.put("a", 0, 0, linger_s=60.0)
    backlog.put_back("b", 1)
    assert sorted(gathered(backlog, 5, patience_s=0.0)) == [0, 1]
