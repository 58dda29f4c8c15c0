"""Is there ever more than one leader whose word counts, whatever stops, dies, or tells the wrong time?"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import DeposedError, ServerError, StoreError
from server.roles.election import Election
from server.store import leadership
from server.store.schema import class_name
from server.store.schema import leadership as table
from server.store.store import Store, accept, accepted

pytestmark = pytest.mark.catalogues

LEASE_S = 3.0
PROCESSES = 3
STEPS = 250
STORIES = 8
EPOCH_MS = 1_760_000_000_000


class Process:
    """One that stands; a clock of its own, which starts anywhere and is a little fast or slow."""

    def __init__(self, world: World, number: int, *, offset_s: float, rate: float) -> None:
        self.number = number
        self._world, self._offset_s, self._rate = world, offset_s, rate
        self.crash()

    def crash(self) -> None:
        """It is started again, and knows nothing of before."""
        self.meant: dict[str, int] = {}  # terms under which it is about to write
        self.frozen_until_s = self._renew_at_s = 0.0
        self.election = Election(
            self._world.store,
            "schedule",
            lease_s=LEASE_S,
            elapsed=lambda: self._offset_s + self._rate * self._world.now_s,
            clock=lambda _: self._world.catalogue_ms,
        )
        self.election.holder = f"{self.number}/{next(self._world.starts)}"

    def go_on(self) -> None:
        """Do what it does in its loop, from where it was frozen, if it was: it does not look again then."""
        if self.meant:
            self.write()
        elif not self.election.terms:
            self.election.stand()
        elif self._world.now_s >= self._renew_at_s:
            self._renew_at_s = self._world.now_s + LEASE_S / 3
            try:
                self.election.renew()
            except DeposedError:
                assert not self.election.acts
        elif self.election.acts:
            self.meant = dict(self.election.terms)
        else:
            self.election.give_back()

    def write(self) -> None:
        terms, self.meant = self.meant, {}
        try:
            with self._world.store.under(terms).database.write():
                self._world.written.append((terms["schedule"], self.election.holder))
        except DeposedError:
            self._world.refused += 1


class World:
    """Time, the catalogue, and what was written there by whom."""

    def __init__(self, store: Store, rng: np.random.Generator) -> None:
        self.store, self._rng = store, rng
        self.now_s, self.catalogue_ms = 0.0, EPOCH_MS
        self.starts = itertools.count()
        self.written: list[tuple[int, str]] = []
        self.refused = 0
        with store.database.write() as connection:
            connection.execute(sa.delete(table))
        self.processes = [
            Process(self, number, offset_s=rng.uniform(0.0, 1e6), rate=rng.uniform(0.95, 1.05))
            for number in range(PROCESSES)
        ]

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.catalogue_ms += round(seconds * 1000)

    def run(self, *, clock_is_set: bool) -> Iterator[None]:
        """Some minutes of everybody's life, step by step."""
        rng = self._rng
        for _ in range(STEPS):
            self.wait(rng.exponential(0.3))
            if clock_is_set and rng.random() < 0.02:
                self.catalogue_ms += int(rng.choice([-3_600_000, -2000, 2000, 3_600_000]))
            awake = [one for one in self.processes if one.frozen_until_s <= self.now_s]
            if awake:
                one = awake[rng.integers(len(awake))]
                one.go_on()
                fate = rng.random()
                if fate < 0.02:
                    one.crash()
                elif fate < 0.10:
                    one.frozen_until_s = self.now_s + rng.uniform(0.0, 3 * LEASE_S)
            yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store.open(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


worlds = st.integers(0, 2**32 - 1)


@settings(max_examples=STORIES)
@given(worlds)
def test_no_write_of_an_older_term_follows_one_of_a_newer(store: Store, seed: int) -> None:
    world = World(store, np.random.default_rng(seed))
    for _ in world.run(clock_is_set=True):
        pass
    terms = [term for term, _ in world.written]
    assert terms == sorted(terms)
    assert len(set(terms)) == len(set(world.written)) > 3  # each term is one process's


@settings(max_examples=STORIES)
@given(worlds)
def test_two_never_act_at_once_as_long_as_nobody_sets_the_catalogues_clock(store: Store, seed: int) -> None:
    world = World(store, np.random.default_rng(seed))
    for _ in world.run(clock_is_set=False):
        assert sum(process.election.acts for process in world.processes) <= 1


@settings(max_examples=STORIES)
@given(worlds, st.integers(0, PROCESSES - 1), st.sampled_from([-3_600_000, 0, 3_600_000]))
def test_whoever_is_left_leads_within_a_lease_whatever_the_clock_says(
    store: Store, seed: int, left: int, set_by_ms: int
) -> None:
    world = World(store, np.random.default_rng(seed))
    for _ in itertools.islice(world.run(clock_is_set=True), 40):
        pass
    world.catalogue_ms += set_by_ms
    one = world.processes[left].election
    one.stand()
    world.wait(LEASE_S / 0.95 + 0.01)
    assert one.stand()
    assert one.acts


def test_a_story_that_needs_the_term(store):
    world = World(store, np.random.default_rng(0))
    first, second, _ = world.processes
    first.go_on()
    first.election.renew()
    first.meant = dict(first.election.terms)  # and is frozen
    world.wait(LEASE_S + 0.1)
    for _ in range(4):
        second.go_on()
    assert world.written == [(2, second.election.holder)]
    first.go_on()
    assert (len(world.written), world.refused) == (1, 1)


def test_several_seats_are_taken_together_or_not_at_all(store):
    World(store, np.random.default_rng(0))
    one, both = Election(store, "train", lease_s=60.0), Election(store, "schedule", "train", lease_s=60.0)
    assert one.stand()
    assert not both.stand()
    with store.database.read() as connection:
        assert leadership.led(connection, "schedule") is None
        assert leadership.led(connection, "train").holder == one.holder
    one.give_back()
    assert both.stand()
    assert both.terms == {"schedule": 1, "train": 2}


def test_a_child_writes_under_the_term_of_who_started_it(tmp_path):
    import argparse

    with Store.open(tmp_path).database.write():
        pass
    store = Store.open(tmp_path)
    election = Election(store, "train", lease_s=60.0)
    assert election.stand()
    parser = argparse.ArgumentParser()
    accept(parser)
    child = accepted(parser.parse_args(store.under(election.terms).arguments()))
    _name_a_class(child, 0)
    election.give_back()
    assert Election(store, "train", lease_s=60.0).stand()
    with pytest.raises(DeposedError, match="train: term 1 is over, 2 has begun"):
        _name_a_class(child, 1)
    with store.database.read() as connection:
        assert connection.execute(sa.select(class_name.c.name)).scalars().all() == ["0"]
    child.close()
    store.close()


def test_who_is_stopped_makes_room_at_once_and_who_is_killed_within_a_lease(store):
    World(store, np.random.default_rng(0))
    led: list[str] = []
    stops = [threading.Event(), threading.Event()]
    elections = [Election(store, "schedule", lease_s=1.2) for _ in stops]

    def act(number: int, held: Store) -> None:
        led.append(f"{number} term {held.terms['schedule']}")
        while elections[number].acts and not stops[number].wait(0.02):
            pass

    def lead(number: int) -> threading.Thread:
        made = threading.Thread(target=elections[number].lead, args=(stops[number], lambda held: act(number, held)))
        made.start()
        return made

    first = lead(0)
    _until(lambda: led == ["0 term 1"])
    second = lead(1)
    time.sleep(1.5)  # longer than a lease: the first goes on, renewed
    assert led == ["0 term 1"]
    stops[0].set()
    first.join()
    _until(lambda: led == ["0 term 1", "1 term 2"], within_s=0.9)
    stops[1].set()
    second.join()
    killed = Election(store, "schedule", lease_s=1.2)
    assert killed.stand()
    with Election(store, "schedule", lease_s=1.2).won() as held:  # waits for the lease of the dead
        assert held.terms == {"schedule": 4}
        with pytest.raises(ServerError, match="another process leads"), Election(store, "schedule", lease_s=0.3).won():
            pass
    with pytest.raises(DeposedError):
        killed.renew()


def test_who_cannot_reach_the_catalogue_acts_no_more_before_another_may(store, monkeypatch):
    World(store, np.random.default_rng(0))
    now_s = [100.0]
    election = Election(store, "schedule", lease_s=LEASE_S, elapsed=lambda: now_s[0])
    assert election.stand()

    def fails(*_: object, **__: object) -> Any:
        raise StoreError("disk full")

    monkeypatch.setattr(leadership, "renew", fails)
    for _ in range(3):
        now_s[0] += LEASE_S / 3 - 0.01
        with pytest.raises(StoreError, match="disk full"):
            election.renew()
    assert not election.acts
    assert now_s[0] < 100.0 + LEASE_S


@pytest.mark.parametrize("error", [StoreError("the catalogue is away"), DeposedError("train: term 1 is over")])
def test_who_loses_the_catalogue_while_it_leads_stands_again(store, error):
    World(store, np.random.default_rng(0))
    stopped, led = threading.Event(), []

    def act(held: Store) -> None:
        led.append(held.terms)
        if len(led) == 1:
            raise error
        stopped.set()

    Election(store, "train", lease_s=0.6).lead(stopped, act)
    assert led == [{"train": 1}, {"train": 2}]
    with store.database.read() as connection:
        assert leadership.led(connection, "train") is None


def test_who_cannot_ask_does_not_say_that_another_leads_and_says_it_once(store, monkeypatch, caplog):
    caplog.set_level("INFO")
    World(store, np.random.default_rng(0))
    asked, seats = [], leadership.seats

    def fails_at_first(*arguments: Any, **how: Any) -> Any:
        asked.append(arguments)
        if len(asked) <= 3:
            raise StoreError("connection refused")
        return seats(*arguments, **how)

    monkeypatch.setattr(leadership, "seats", fails_at_first)
    stopped = threading.Event()
    Election(store, "train", lease_s=0.3).lead(stopped, lambda _: stopped.set())
    said = [line for line in caplog.messages if "stands by" in line]
    assert said == ["train: this process stands by: nobody knows who leads: connection refused"]


def _name_a_class(store: Store, index: int) -> None:
    with store.database.write() as connection:
        connection.execute(sa.insert(class_name).values(index=index, name=str(index)))


def _until(true: Any, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
