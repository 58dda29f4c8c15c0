"""Who should run a version, and may it go further?"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.release.rollout import Done, Halted, Member, Plan, Report, Running, State, advance, start

OLD, NEW = "a" * 64, "b" * 64
PLAN = Plan(version=2, previous=1, files=(NEW,), soak_s=10.0, timeout_s=60.0, canary_devices=("cam-1",))


def old(seen_s: float, **more) -> Report:
    return Report(**{"seen_s": seen_s, "version": 1, "sha256": OLD, **more})


def new(seen_s: float, slot: str = "steady") -> Report:
    return Report(seen_s=seen_s, version=2, sha256=NEW, slot=slot)


def run(plan: Plan, looks: list[tuple[float, dict[str, Report]]], state: State | None = None):
    steps: list[str] = []
    orders: dict[str, int] = {}
    state = state or start()
    for now_s, reports in looks:
        state, orders, said = advance(plan, state, reports, now_s)
        steps += said
    return state, orders, steps


def test_canary_first_then_all_then_done():
    fleet = ("cam-1", "cam-2", "cam-3")
    state, orders, _ = run(PLAN, [(0, {name: old(0) for name in fleet})])
    assert orders == {"cam-1": 2, "cam-2": 1, "cam-3": 1}
    state, orders, _ = run(PLAN, [(5, {"cam-1": new(5, "trial"), "cam-2": old(5), "cam-3": old(5)})], state)
    assert orders["cam-2"] == 1
    state, orders, _ = run(PLAN, [(8, {"cam-1": new(8), "cam-2": old(8), "cam-3": old(8)})], state)
    assert isinstance(state, Running)
    assert state.ring == "canary"  # it soaks
    state, orders, steps = run(PLAN, [(18, {"cam-1": new(18), "cam-2": old(18), "cam-3": old(18)})], state)
    assert isinstance(state, Running)
    assert state.ring == "all"
    assert orders == {"cam-1": 2, "cam-2": 2, "cam-3": 2}
    assert steps == ["ring canary is through: 1 running, 0 failed", "ring all: version 2 to cam-2, cam-3"]
    state, orders, _ = run(PLAN, [(t, {name: new(t) for name in fleet}) for t in (20, 30)], state)
    assert isinstance(state, Done)


def test_soak_needs_word_from_the_device_that_it_still_runs():
    state, _, _ = run(PLAN, [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1)}), (50, {"cam-1": new(1)})])
    assert isinstance(state, Running)
    assert state.ring == "canary"


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (old(5, refused={2: "golden outputs differ"}), "refused: golden outputs differ"),
        (Report(seen_s=5, version=3, sha256=OLD), "runs version 3, which is newer"),
        (Report(seen_s=5, version=2, sha256=OLD), "runs another model under number 2"),
        (old(0), "no step forward from 'ordered' for 61 s"),
        (old(61), "no step forward from 'ordered' for 61 s"),
    ],
)
def test_what_counts_as_failed(report, why):
    state, orders, steps = run(
        PLAN, [(0, {"cam-1": old(0), "cam-2": old(0)}), (61, {"cam-1": report, "cam-2": old(61)})]
    )
    assert isinstance(state, Halted)
    assert state.members["cam-1"].reason == why
    assert orders["cam-2"] == 1
    assert steps[-1] == f"halted: 1 of 1 in ring canary failed; cam-1: {why}"


@pytest.mark.parametrize("reached", [new(1, "trial"), new(1)])
def test_a_device_that_goes_back_halts_the_rollout_and_is_told_the_old_version(reached):
    state, orders, _ = run(PLAN, [(0, {"cam-1": old(0)}), (1, {"cam-1": reached}), (2, {"cam-1": old(2)})])
    assert isinstance(state, Halted)
    assert "went back to version 1" in state.reason
    assert orders == {"cam-1": 1}


def test_a_canary_that_falls_silent_in_its_soak_failed_but_not_one_that_is_through():
    state, _, _ = run(PLAN, [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1)}), (62, {"cam-1": new(1)})])
    assert isinstance(state, Halted)
    looks = [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1)}), (11, {"cam-1": new(11), "cam-2": old(11)})]
    looks += [(12, {"cam-1": new(11), "cam-2": old(12)})]
    looks += [(72, {"cam-1": new(11), "cam-2": new(72, "trial")})]
    state, _, _ = run(PLAN, looks)
    assert isinstance(state, Running)


def test_a_slow_fetch_is_no_failure_while_it_moves():
    looks = [(0.0, {"cam-1": old(0)})]
    looks += [(50.0 * i, {"cam-1": old(50.0 * i, fetching=2, fetched_share=i / 10)}) for i in range(1, 10)]
    state, _, _ = run(PLAN, looks)
    assert isinstance(state, Running)
    state, _, _ = run(PLAN, [(511.0, {"cam-1": old(511, fetching=2, fetched_share=0.9)})], state)
    assert isinstance(state, Halted)


def test_failures_within_the_share_do_not_halt():
    plan = msgspec.structs.replace(PLAN, max_failed_share=0.5, soak_s=0.0)
    bad = {2: "no room"}
    looks = [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1), "cam-2": old(1), "cam-3": old(1)})]
    looks += [(2, {"cam-1": new(2), "cam-2": old(2, refused=bad), "cam-3": old(2)})]
    looks += [(3, {"cam-1": new(3), "cam-2": old(3, refused=bad), "cam-3": new(3)})]
    state, _, steps = run(plan, looks)
    assert isinstance(state, Done)
    assert steps[-1] == "ring all is through: 1 running, 1 failed"


def test_whoever_comes_late_gets_what_its_ring_has():
    _, orders, _ = run(PLAN, [(0, {"cam-1": old(0)}), (1, {"cam-1": old(1), "late": old(1)})])
    assert orders == {"cam-1": 2, "late": 1}
    _, orders, _ = run(PLAN, [(100, {"late": old(100)})], Done(members={}))
    assert orders == {"late": 2}
    _, orders, _ = run(PLAN, [(100, {"late": old(100)})], Halted(members={}, reason="x"))
    assert orders == {"late": 1}


def test_a_device_long_gone_is_not_waited_for_and_joins_when_it_is_back():
    gone = old(-1000)
    looks = [(t, {"cam-1": report, "gone": gone}) for t, report in ((0, old(0)), (1, new(1)), (11, new(11)))]
    state, orders, _ = run(PLAN, looks)
    assert isinstance(state, Running)
    assert orders["gone"] == 2  # ring all has begun, and its order waits for it
    state, _, _ = run(PLAN, [(12, {"cam-1": new(12), "gone": gone})], state)
    assert isinstance(state, Done)


def test_with_nobody_there_it_waits():
    state, orders, steps = run(PLAN, [(0, {}), (1e6, {"gone": old(0)})])
    assert state == start()
    assert orders == {"gone": 1}
    assert not steps


def test_the_canary_share_is_of_those_heard_and_at_least_one():
    plan = Plan(version=2, previous=1, files=(NEW,), canary_share=0.25)
    fleet = {f"cam-{i}": old(0) for i in range(8)}
    _, orders, _ = run(plan, [(0, fleet), (1, fleet)])
    assert sum(version == 2 for version in orders.values()) == 2
    none = msgspec.structs.replace(plan, canary_share=0.0)
    _, orders, _ = run(none, [(0, fleet)])
    assert sum(version == 2 for version in orders.values()) == 1


def test_a_first_model_has_nothing_to_go_back_to():
    plan = msgspec.structs.replace(PLAN, version=1, previous=0, files=(OLD,))
    _, orders, _ = run(plan, [(0, {"cam-1": old(0), "cam-2": old(0)})])
    assert orders["cam-2"] == 1  # runs it already, and is not told otherwise
    report = Report(seen_s=0, version=0, slot="none")
    _, orders, _ = run(plan, [(0, {"cam-1": report, "cam-2": report})])
    assert orders == {"cam-1": 1, "cam-2": 0}


def test_the_state_survives_being_written_down():
    state, _, _ = run(PLAN, [(0, {"cam-1": old(0)})])
    assert msgspec.convert(msgspec.to_builtins(state), type=State) == state
    halted = Halted(members={"a": Member(ring="all", phase="failed", since_s=1.0, reason="x")}, reason="y")
    assert msgspec.json.decode(msgspec.json.encode(halted), type=State) == halted


# --- a whole fleet ---------------------------------------------------------------------------------------------------

BEHAVIOURS = ("good", "slow", "refuses", "reverts", "dies", "deaf", "absent")


def behave(kind: str, ordered_s: float | None, now_s: float) -> Report | None:
    """What such a device last said, `ordered_s` being when it was first told version 2."""
    age = -1.0 if ordered_s is None else now_s - ordered_s
    if kind == "absent":
        return old(-1e6)
    if age < 0 or kind == "deaf":
        return old(now_s)
    if kind == "refuses" and age >= 5:
        return old(now_s, refused={2: "no"})
    if kind == "dies" and age >= 15:
        return new(now_s - age + 15)
    if kind == "reverts" and age >= 20:
        return old(now_s)
    if kind == "slow" and age < 40:
        return old(now_s, fetching=2, fetched_share=age / 40)
    return new(now_s, "trial" if age < 15 else "steady") if age >= 5 else old(now_s, fetching=2, fetched_share=0.5)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(BEHAVIOURS), min_size=1, max_size=8),
    st.floats(0.0, 1.0),
    st.floats(0.0, 0.6),
    st.sampled_from([1.0, 7.0]),
)
def test_it_ends_and_no_ring_runs_ahead(kinds, canary_share, max_failed_share, tick_s):
    plan = Plan(
        version=2,
        previous=1,
        files=(NEW,),
        canary_share=canary_share,
        soak_s=10.0,
        timeout_s=60.0,
        max_failed_share=max_failed_share,
    )
    fleet = {f"cam-{i}": kind for i, kind in enumerate(kinds)}
    ordered: dict[str, float] = {}
    state, halted_at = start(), None
    for look in range(int(400 / tick_s)):
        now_s = look * tick_s
        reports = {name: behave(kind, ordered.get(name), now_s) for name, kind in fleet.items()}
        before = state
        state, orders, _ = advance(plan, state, reports, now_s)
        assert orders.keys() == fleet.keys()
        for name, version in orders.items():
            if version == 2:
                ordered.setdefault(name, now_s)
        if (
            isinstance(before, Running)
            and before.ring == "canary"
            and isinstance(state, Running)
            and state.ring == "all"
        ):
            canaries = {name: m for name, m in state.members.items() if m.ring == "canary"}
            assert canaries
            assert all(m.phase in ("running", "failed") for m in canaries.values())
            assert sum(m.phase == "failed" for m in canaries.values()) <= max_failed_share * len(canaries)
        if isinstance(state, Running) and state.ring == "canary":
            assert {name for name, version in orders.items() if version == 2} <= state.members.keys()
        if isinstance(before, Halted):
            assert state == before
            assert all(orders[name] == 1 or reports[name].version == 2 for name in fleet)
        halted_at = halted_at or (now_s if isinstance(state, Halted) else None)
    if any(kind != "absent" for kind in kinds):
        assert not isinstance(state, Running)
    if set(kinds) <= {"good", "slow"}:
        assert isinstance(state, Done)
    if set(kinds) <= {"refuses", "deaf"}:
        assert isinstance(state, Halted)
