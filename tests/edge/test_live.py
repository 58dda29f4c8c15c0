"""Does a sensor that goes on by itself reach the loop, and is what was passed over counted?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edge_agent.contract.errors import SourceError
from edge_agent.contract.types import Reading
from edge_agent.source import Counts, Start
from edge_agent.source.feed import Feed
from edge_agent.source.live import Live, Taken

WAIT_S = 10.0


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Counter:
    """0, 1, 2 ...; notes how far it got and whether it was closed."""

    def __init__(self, count: int, *, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.given = 0
        self.closed = threading.Event()

    def samples(self, _start: Start) -> Iterator[Taken | None]:
        try:
            for number in range(self.count):
                self.given = number
                yield Taken(np.array([number], np.float32), f"n{number}")
            if self.error is not None:
                raise self.error
        finally:
            self.closed.set()


def taken(readings: Iterator[Reading | None], count: int = 1_000_000) -> list[int]:
    found: list[int] = []
    for reading in readings:
        if reading is not None:
            found.append(int(reading.data[0]))
        if len(found) == count:
            break
    return found


def test_every_sample_comes_once_in_order_however_slow_the_loop_is() -> None:
    counter, counts = Counter(300), Counts()
    readings = Live(counter, keep="every", room=4, counts=counts).readings(Start(7))
    first = next(reading for reading in readings if reading is not None)
    assert (first.seq, first.ref) == (7, "n0")
    until(lambda: counter.given == 5)  # 4 wait, one more is held by the sensor's side
    time.sleep(0.05)
    assert counter.given == 5, "the sensor's side did not wait for room"
    assert taken(readings) == list(range(1, 300))
    assert counts.skipped == 0


def test_the_newest_takes_the_place_of_what_waits_and_that_is_counted() -> None:
    counter, counts = Counter(300), Counts()
    readings = Live(counter, keep="newest", counts=counts).readings(Start())
    first = next(readings)  # begins
    until(counter.closed.is_set)
    found = ([int(first.data[0])] if first is not None else []) + taken(readings)
    assert found[-1] == 299
    assert len(found) <= 2
    assert counts.skipped == 300 - len(found)


def test_of_what_waits_the_oldest_makes_way() -> None:
    counter = Counter(300)
    readings = Live(counter, keep="newest", room=3).readings(Start())
    first = next(readings)
    until(counter.closed.is_set)
    found = ([int(first.data[0])] if first is not None else []) + taken(readings)
    assert found[-3:] == [297, 298, 299]


@pytest.mark.parametrize("keep", ["every", "newest"])
def test_read_and_skipped_are_all_there_were(keep: str) -> None:
    counts = Counts()
    found = taken(Live(Counter(500), keep=keep, counts=counts).readings(Start()))
    assert found == sorted(set(found))
    assert len(found) + counts.skipped == 500


@pytest.mark.parametrize("error", [SourceError("unplugged"), ZeroDivisionError("of a driver")])
def test_what_a_sensor_raises_is_raised_after_what_it_gave(error: Exception) -> None:
    readings = Live(Counter(3, error=error), keep="every").readings(Start())
    found: list[Reading | None] = []
    with pytest.raises(type(error), match=str(error)):
        found.extend(readings)
    assert [reading.seq for reading in found if reading is not None] == [0, 1, 2]


@pytest.mark.parametrize("keep", ["every", "newest"])
def test_the_sensor_is_let_go_when_nobody_reads_any_more(keep: str) -> None:
    counter = Counter(10_000_000)
    readings = Live(counter, keep=keep).readings(Start())
    assert len(taken(readings, 2)) == 2
    readings.close()
    assert counter.closed.is_set()


def test_who_waits_for_room_is_let_go_at_the_end_and_after_its_time() -> None:
    feed: Feed[int] = Feed(keep="every", room=1, counts=Counts())
    assert feed.put(1)
    assert not feed.put(2, wait_s=0.01)
    said: list[bool] = []
    waiting = threading.Thread(target=lambda: said.append(feed.put(3)))
    waiting.start()
    assert feed.end() == [1]
    waiting.join(WAIT_S)
    assert said == [False]
    assert (feed.take(0.0), feed.over) == (1, True)


def test_what_waits_at_the_end_makes_way_for_nothing() -> None:
    counts = Counts()
    feed: Feed[int] = Feed(keep="newest", counts=counts)
    assert feed.put(1)
    assert feed.end() == [1]
    assert not feed.put(2)
    assert (feed.take(0.0), counts.skipped) == (1, 0)
