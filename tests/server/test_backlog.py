"""What makes a group: what is here, in turn, and not more than others can wait for."""

import pytest

from server.collect.backlog import GROUP_WORK, Backlog
from server.collect.turns import MESSAGE_WORK, Turns


@pytest.fixture
def backlog():
    return Backlog(Turns(room=10 * GROUP_WORK, device_share=1.0))


def test_a_group_is_what_is_here_up_to_a_number(backlog):
    for number in range(7):
        backlog.put("a", number, 0)
    assert backlog.gather(5, patience_s=0.0) == [0, 1, 2, 3, 4]
    assert backlog.gather(5, patience_s=0.0) == [5, 6]
    assert backlog.gather(5, patience_s=0.0) == []


def test_large_messages_of_one_make_a_group_that_others_can_wait_for(backlog):
    size = GROUP_WORK // 4 - MESSAGE_WORK
    for number in range(10):
        backlog.put("a", number, size)
    assert [len(backlog.gather(100, patience_s=0.0)) for _ in range(4)] == [4, 4, 2, 0]


def test_one_larger_than_a_group_goes_alone(backlog):
    for number in range(2):
        backlog.put("a", number, 2 * GROUP_WORK)
    assert [backlog.gather(100, patience_s=0.0) for _ in range(3)] == [[0], [1], []]
