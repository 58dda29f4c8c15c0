"""Does every rollout keep its promises, whatever the fleet does?

Thousands of random fleets under random plans: devices that come late, fall silent, restart, refuse, revert, take long,
die on trial or after it, lie about the hash, or are put into rings by hand; operators who pause and resume; a server
that was away for a while. What is promised is computed here from what the devices said, not by the rules under test:

- a ring never starts while an earlier gate fails;
- the blast radius of a bad model never exceeds the ring, plus devices already in flight;
- a rollout always ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from server.config import RingRules
from server.release.member import Report
from server.release.rings import parse
from server.release.rollout import Done, Halted, Look, Plan, Running, State, advance, obey, start

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
VERSION, BEFORE = 2, 1
RESTLESS_S = 200.0  # until then devices come and go, and operators speak
END_S = 2500.0  # by then all has ended: 4 rings, each with its time-outs and its soak
BEHAVIOURS = ("good", "refuses", "reverts", "dies on trial", "dies later", "deaf", "newer", "impostor")


@dataclass
class Device:
    """One device: how it behaves, and what it last said."""

    name: str
    behaviour: str
    arrives_s: float
    silent_from_s: float
    silent_for_s: float
    fetch_s: float
    trial_s: float
    restarts: int  # every so many words are those of an agent that has no model yet; 0: none
    pinned: str | None
    told_s: float | None = None  # since when its order is the version, without a break
    committed: bool = False
    dead: bool = False
    refused: bool = False
    report: Report | None = None
    ran_since_s: float | None = None  # first said to run the version, committed
    words: int = 0

    def hears(self, order: int, now_s: float) -> None:
        if order == VERSION:
            self.told_s = now_s if self.told_s is None else self.told_s
        elif not self.committed:
            self.told_s = None  # what is on its way or on trial is let go

    def awake(self, now_s: float) -> bool:
        silent = self.silent_from_s <= now_s < self.silent_from_s + self.silent_for_s
        return now_s >= self.arrives_s and not silent and not self.dead

    def _age(self, now_s: float) -> float:
        return -1.0 if self.told_s is None else now_s - self.told_s

    def speaks(self, now_s: float) -> None:
        if not self.awake(now_s):
            return
        age, kind = self._age(now_s), self.behaviour
        tried_share = (age - self.fetch_s) / self.trial_s
        tried, trying = tried_share >= 1.0, {"trying": VERSION, "tried_share": tried_share}
        self.words += 1
        if self.restarts and self.words % self.restarts == 0:
            self._say(now_s, version=0, sha256="", slot="none")
        elif kind == "newer":
            self._say(now_s, version=VERSION + 1)
        elif age < 0 or kind == "deaf" or self.refused:
            self._say(now_s)
        elif age < self.fetch_s:
            self._say(now_s, fetching=VERSION, fetched_share=age / self.fetch_s)
        elif kind == "refuses" or (kind == "reverts" and tried):
            self.refused = True
            self._say(now_s)
        elif kind == "dies on trial" and tried_share > 0.5:
            self.dead = True
        elif tried_share < 0.4:
            self._say(now_s, slot="staged", **trying)
        elif not tried:
            self._say(now_s, version=VERSION, sha256=NEW, slot="trial", **trying)
        else:
            self.dead = kind == "dies later" and self.committed
            self.committed = True
            self._say(now_s, version=VERSION, sha256=OTHER if kind == "impostor" else NEW)

    def _say(self, now_s: float, *, version: int = BEFORE, **more) -> None:
        refused = {VERSION: "no"} if self.refused else {}
        self.report = Report(seen_s=now_s, version=version, refused=refused, **{"sha256": OLD, **more})
        if version == VERSION and self.report.slot == "steady" and self.report.sha256 == NEW:
            self.ran_since_s = now_s if self.ran_since_s is None else self.ran_since_s


@st.composite
def devices(draw, rings):
    how = st.tuples(
        st.sampled_from(("good",) * 8 + BEHAVIOURS),
        st.sampled_from((0.0, 0.0, 0.0, 30.0, 150.0)),
        st.floats(0.0, RESTLESS_S),
        st.sampled_from((0.0, 0.0, 0.0, 20.0, 300.0, math.inf)),
        st.sampled_from((1.0, 10.0, 45.0)),
        st.sampled_from((1.0, 8.0, 30.0, 200.0)),  # the last longer than any timeout_s
        st.sampled_from((0, 0, 0, 2, 3)),
        st.sampled_from((None,) * 10 + (*rings, "elsewhere")),
    )
    return [Device(f"cam-{i}", *draw(how)) for i in range(draw(st.integers(1, 24)))]


RULES = st.fixed_dictionaries(
    {
        "soak_s": st.sampled_from((0.0, 5.0, 30.0)),
        "min_reported": st.sampled_from((1, 1, 1, 3)),
        "success_share": st.sampled_from((1.0, 1.0, 0.5)),
        "max_failed_share": st.sampled_from((0.0, 0.1, 0.5, 1.0)),
        "max_failed": st.sampled_from((0, 0, 2)),
        "timeout_s": st.sampled_from((60.0, 120.0)),
        "needs_approval": st.booleans(),
    }
)


@st.composite
def plans(draw):
    names = ("canary", "early", "late", "all")[-draw(st.integers(1, 4)) :]
    takes = st.sampled_from(("1%", "10%", "40%", "2", "5", "cam-0", "cam-1+cam-3"))
    specs = [f"{name}={draw(takes)}" for name in names[:-1]] + [names[-1]]
    rings = [msgspec.structs.replace(ring, rules=RingRules(**draw(RULES))) for ring in parse(specs, (), RingRules())]
    return Plan(version=VERSION, previous=BEFORE, files=(NEW,), rings=tuple(rings))


@st.composite
def scenes(draw):
    plan = draw(plans())
    fleet = draw(devices([ring.name for ring in plan.rings]))
    words = draw(st.lists(st.tuples(st.floats(0, RESTLESS_S), st.sampled_from(("pause", "resume"))), max_size=3))
    away = draw(st.sampled_from(((0.0, 0.0),) * 3 + ((20.0, 150.0), (90.0, 500.0))))
    return plan, fleet, sorted(words), draw(st.sampled_from((5.0, 11.0, 20.0))), away


def operators(state: State, words: list[tuple[float, str]], now_s: float) -> State:
    """They approve what asks, and in the end nothing stays paused."""
    while words and words[0][0] <= now_s:
        word = words.pop(0)[1]
        if isinstance(state, Running) and state.paused == (word == "resume"):
            state = obey(state, word, "")[0]
    if isinstance(state, Running) and state.paused and now_s > RESTLESS_S:
        state = obey(state, "resume", "")[0]
    if isinstance(state, Running) and state.asks:
        state = obey(state, "approve", "")[0]
    return state


class Watcher:
    """Holds what the rules do against what they promise."""

    def __init__(self, plan: Plan, fleet: list[Device]) -> None:
        self.plan, self.fleet = plan, {device.name: device for device in fleet}
        self.reached = -1  # the last ring that has, or had, a device
        self.heard = 0  # the most devices at once
        self.told: set[str] = set()

    def look(self, before: State, state: State, orders: dict[str, int], now_s: float) -> None:
        reports = {name: d.report for name, d in self.fleet.items() if d.report is not None}
        assert orders.keys() == reports.keys()
        longest_s = max(ring.rules.timeout_s for ring in self.plan.rings)
        self.heard = max(self.heard, sum(now_s - report.seen_s <= longest_s for report in reports.values()))
        self.told |= {name for name, order in orders.items() if order == VERSION}
        self._causes(before, state, now_s)
        self.reached = max([self.reached, *(self._place(member.ring) for member in state.members.values())])
        if isinstance(before, Running) and self._through(state) > self._place(before.ring):
            self._held(before.ring, before, state)
        if isinstance(state, Running) and not self._everybody(state):
            assert {name for name, order in orders.items() if order == VERSION} <= {
                *state.members,
                *(name for name, report in reports.items() if report.version == VERSION),
            }
        if isinstance(before, (Done, Halted)):
            assert state == before
        if isinstance(state, Halted):
            assert all(orders[name] != VERSION or reports[name].version == VERSION for name in orders)

    def _everybody(self, state: Running) -> bool:
        return state.ring == self.plan.rings[-1].name and not (state.paused or state.asks)

    def _place(self, ring: str) -> int:
        return [one.name for one in self.plan.rings].index(ring)

    def _through(self, state: State) -> int:
        """How many rings have let the next one start, or the rollout end well."""
        return self._place(state.ring) if isinstance(state, Running) else len(self.plan.rings) * isinstance(state, Done)

    def _held(self, newest: str, before: Running, state: State) -> None:
        """The gates behind `newest` and every ring before it, at the moment when the next one starts."""
        for ring in self.plan.rings[: self._place(newest) + 1]:
            members = [self.fleet[name] for name, m in before.members.items() if m.ring == ring.name]
            rules, bad = ring.rules, [device for device in members if self._failed(device, state)]
            size = sum(member.ring == ring.name for member in state.members.values())
            assert len(bad) <= rules.max_failed_share * size
            assert not rules.max_failed or len(bad) <= rules.max_failed
            if ring.name == newest and members:
                soaked = [d for d in members if d.ran_since_s is not None]
                soaked = [d for d in soaked if d.report and d.report.seen_s - d.ran_since_s >= rules.soak_s]
                assert len(soaked) >= rules.success_share * (len(members) - len(bad)) - 1e-9
                assert sum(d.ran_since_s is not None for d in self.fleet.values()) >= rules.min_reported

    def _failed(self, device: Device, state: State) -> bool:
        """By its own words, or as the rules recorded: with a cause, see `_causes`."""
        said = device.report
        assert said is not None
        wrong = said.version > VERSION or (said.version == VERSION and said.sha256 != NEW)
        return bool(said.refused) or wrong or state.members[device.name].phase == "failed"

    def _causes(self, before: State, state: State, now_s: float) -> None:
        """Nobody that runs the version and is heard is ever counted as failed."""
        for name, member in state.members.items():
            if member.phase == "failed" and (name not in before.members or before.members[name].phase != "failed"):
                said = self.fleet[name].report
                runs = said.version == VERSION and said.slot == "steady" and said.sha256 == NEW
                ring = next(ring for ring in self.plan.rings if ring.name == member.ring)
                assert not runs or now_s - said.seen_s > ring.rules.timeout_s

    def radius(self) -> int:
        """The most devices that may have been told the version, by the last ring that was reached."""
        rings = self.plan.rings[: self.reached + 1]
        if rings and rings[-1].everybody:
            return len(self.fleet)
        named = {name for one in rings for name in one.devices}
        named |= {d.name for d in self.fleet.values() if d.pinned in [one.name for one in rings]}
        drawn = [
            max(1, one.rules.min_reported, one.count, math.ceil(one.share * self.heard - 1e-9) if not one.count else 0)
            for one in rings
            if not one.devices
        ]
        return len(named) + max(drawn, default=0)


def play(
    plan: Plan, fleet: list[Device], words: list[tuple[float, str]], tick_s: float, away: tuple[float, float]
) -> tuple[State, Watcher]:
    """`away`: since when there is no server, and for how long; what is said then nobody hears."""
    state, watcher, listening_s = start(plan), Watcher(plan, fleet), 0.0
    pinned = {device.name: device.pinned for device in fleet if device.pinned}
    for tick in range(int(END_S / tick_s)):
        now_s = tick * tick_s
        if away[0] <= now_s < sum(away):
            listening_s = now_s + tick_s
            continue
        for device in fleet:
            device.speaks(now_s)
        state = operators(state, words, now_s)
        look = Look({d.name: d.report for d in fleet if d.report is not None}, now_s, listening_s, pinned)
        before = msgspec.convert(msgspec.to_builtins(state), type=State)  # as a server that was killed finds it
        state, orders, _ = advance(plan, before, look)
        watcher.look(before, state, orders, now_s)
        for device in fleet:
            if device.awake(now_s) and device.name in orders:
                device.hears(orders[device.name], now_s)
        if not isinstance(state, Running) and now_s > RESTLESS_S:
            break
    return state, watcher


@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(scenes())
def test_a_ring_never_starts_while_an_earlier_gate_fails_and_a_rollout_always_ends(scene):
    plan, fleet, words, tick_s, away = scene
    state, watcher = play(plan, fleet, words, tick_s, away)
    if watcher.told or any(device.awake(END_S) for device in fleet):  # else it waits for the first to come
        assert not isinstance(state, Running)
    if isinstance(state, Halted):
        assert len(watcher.told) <= watcher.radius()


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(scenes())
def test_a_bad_model_never_gets_beyond_the_first_ring(scene):
    plan, fleet, words, tick_s, away = scene
    for device in fleet:  # on every device it fails before it is committed
        device.behaviour = {"good": "reverts", "dies later": "dies on trial", "newer": "deaf"}.get(
            device.behaviour, device.behaviour
        )
    state, watcher = play(plan, fleet, words, tick_s, away)
    assert watcher.reached <= 0
    assert len(watcher.told) <= watcher.radius()
    assert isinstance(state, Halted) or not watcher.told


@given(scenes())
def test_a_good_model_reaches_everybody_who_is_there(scene):
    plan, fleet, words, tick_s, away = scene
    for device in fleet:
        device.behaviour, device.silent_for_s, device.arrives_s = "good", 0.0, 0.0
    named = [name for ring in plan.rings for name in ring.devices]
    there = {device.name for device in fleet}
    state, watcher = play(plan, fleet, words, tick_s, away)
    possible = all(set(ring.devices) <= there for ring in plan.rings) and len(set(named)) == len(named)
    possible &= bool(plan.rings[0].devices or there - set(named))  # else nobody is left for the first ring
    unpinned = not any(device.pinned for device in fleet)
    if possible and unpinned and all(ring.rules.min_reported == 1 for ring in plan.rings):
        assert isinstance(state, Done)
        assert watcher.told == there
