"""Who should run a version, and may it go further?"""

from __future__ import annotations

import msgspec
import pytest

from server.config import RingRules
from server.errors import RolloutError
from server.release.figures import confidence_change
from server.release.gate import Change, Fail, Figures, Pass, Wait
from server.release.member import Member, Report
from server.release.rings import parse
from server.release.rollout import Done, Halted, Look, Plan, Running, State, Step, advance, gate, obey, start

OLD, NEW = "a" * 64, "b" * 64
NOTHING = Figures()


def made(*rings: str, rules: tuple[str, ...] = (), **common: object) -> Plan:
    default = RingRules(**{"soak_s": 10.0, "timeout_s": 60.0, **common})
    return Plan(version=2, previous=1, files=(NEW,), rings=parse(rings, rules, default))


PLAN = made("canary=cam-1", "all")


def old(seen_s: float, **more) -> Report:
    return Report(**{"seen_s": seen_s, "version": 1, "sha256": OLD, **more})


def new(seen_s: float, slot: str = "steady", **more) -> Report:
    return Report(seen_s=seen_s, version=2, sha256=NEW, slot=slot, **more)


def run(plan: Plan, looks: list[tuple[float, dict[str, Report]]], state: State | None = None, **how):
    steps: list[str] = []
    orders: dict[str, int] = {}
    state = state or start(plan)
    for now_s, reports in looks:
        state, orders, said = advance(plan, state, Look(reports, now_s, **how))
        steps += [step.text for step in said]
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
    said = ["ring canary is through: 1 running, 0 failed", "ring all: version 2 to cam-2, cam-3"]
    assert steps == ["cam-1: through", *said]
    state, orders, _ = run(PLAN, [(t, {name: new(t) for name in fleet}) for t in (20, 30)], state)
    assert isinstance(state, Done)


def test_soak_needs_word_from_the_device_that_it_still_runs():
    state, _, _ = run(PLAN, [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1)}), (50, {"cam-1": new(1)})])
    assert isinstance(state, Running)
    assert state.ring == "canary"


def test_a_soak_is_counted_from_word_to_word():
    """And not from the server's looks, which may come late."""
    looks = [(0, {"cam-1": old(0)}), (5, {"cam-1": new(1)}), (12, {"cam-1": new(10.9)})]
    state, _, _ = run(PLAN, looks)
    assert state.members["cam-1"].phase == "running"
    state, _, _ = run(PLAN, [(12.5, {"cam-1": new(11)})], state)
    assert state.ring == "all"


def test_a_straggler_that_falls_silent_when_a_later_ring_has_begun_halts_nothing():
    plan = made("canary=cam-1+cam-2", "all", success_share=0.5)
    reports = {"cam-1": new(1), "cam-2": old(1), "cam-3": old(1)}
    state, _, _ = run(plan, [(0, {name: old(0) for name in reports}), (1, reports)])
    state, _, _ = run(plan, [(11, reports | {"cam-1": new(11), "cam-2": new(11), "cam-3": old(11)})], state)
    assert (state.ring, state.members["cam-2"].phase) == ("all", "running")
    state, _, _ = run(plan, [(72, {"cam-1": new(72), "cam-2": new(11), "cam-3": new(72, "trial")})], state)
    assert isinstance(state, Running)


def test_who_runs_the_version_already_has_no_time_before_it():
    state, _, _ = run(PLAN, [(0, {"cam-1": new(0, latency_p95_ms=4.0), "cam-2": old(0)})])
    assert state.members["cam-1"].before_p95_ms == 0.0


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


def test_a_device_that_is_on_trial_again_after_its_commit_failed():
    """It lost what it had committed, and took it anew."""
    state, _, _ = run(PLAN, [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1)}), (2, {"cam-1": new(2, "trial")})])
    assert state.reason.endswith("cam-1: on trial again after it was committed")


def test_a_canary_that_falls_silent_in_its_soak_failed_but_not_one_that_is_through():
    state, _, _ = run(PLAN, [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1)}), (62, {"cam-1": new(1)})])
    assert isinstance(state, Halted)
    looks = [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1)}), (11, {"cam-1": new(11), "cam-2": old(11)})]
    looks += [(12, {"cam-1": new(11), "cam-2": old(12)})]
    looks += [(72, {"cam-1": new(11), "cam-2": new(72, "trial")})]
    state, _, _ = run(PLAN, looks)
    assert isinstance(state, Running)


def test_what_was_refused_before_the_order_was_given_is_no_answer_to_it():
    """Somebody may have forged an order under that number; who refused it for good says so again."""
    before = old(0, refused={2: "is not signed"})
    state, orders, _ = run(PLAN, [(0, {"cam-1": before}), (5, {"cam-1": before})])
    assert orders == {"cam-1": 2}
    assert isinstance(run(PLAN, [(6, {"cam-1": old(6)})], state)[0], Running)
    assert isinstance(run(PLAN, [(6, {"cam-1": old(6, refused={2: "golden"})})], state)[0], Halted)


def test_a_slow_fetch_is_no_failure_while_it_moves():
    looks = [(0.0, {"cam-1": old(0)})]
    looks += [(50.0 * i, {"cam-1": old(50.0 * i, fetching=2, fetched_share=i / 10)}) for i in range(1, 10)]
    state, _, _ = run(PLAN, looks)
    assert isinstance(state, Running)
    state, _, _ = run(PLAN, [(511.0, {"cam-1": old(511, fetching=2, fetched_share=0.9)})], state)
    assert isinstance(state, Halted)


@pytest.mark.parametrize("slot", ["staged", "trial"])
def test_a_long_trial_is_no_failure_while_it_moves_and_none_moves_for_ever(slot):
    def tried(now_s: float, share: float) -> dict[str, Report]:
        said = old(now_s, slot="staged") if slot == "staged" else new(now_s, "trial")
        return {"cam-1": msgspec.structs.replace(said, trying=2, tried_share=share)}

    looks = [(0.0, {"cam-1": old(0)}), *((50.0 * i, tried(50.0 * i, i / 10)) for i in range(1, 10))]
    state, _, _ = run(PLAN, looks)
    assert isinstance(state, Running)
    state, _, _ = run(PLAN, [(511.0, tried(511, 0.9))], state)
    assert isinstance(state, Halted)
    assert state.reason.endswith(f"no step forward from '{slot}' for 61 s")
    slow = [(50.0 * i, tried(50.0 * i, 1 - 0.99**i)) for i in range(1, 1000)]
    assert isinstance(run(PLAN, [(0.0, {"cam-1": old(0)}), *slow])[0], Halted)


def test_the_last_percent_of_a_shadow_is_before_the_trial():
    reports = [old(1, slot="staged", trying=2, tried_share=1.0), new(2, "trial", trying=2), new(3)]
    _, _, steps = run(PLAN, [(t, {"cam-1": report}) for t, report in enumerate([old(0), *reports])])
    assert steps[1:] == ["cam-1: staged", "cam-1: trial", "cam-1: running"]


def test_another_version_in_the_shadow_is_no_step_forward():
    """What was halted may still be there at the first look; the way of the new one begins with its fetch."""
    stale = old(0, slot="staged", trying=7, tried_share=0.9)
    state, _, _ = run(PLAN, [(0, {"cam-1": stale}), (50, {"cam-1": old(50, fetching=2, fetched_share=0.5)})])
    assert (state.members["cam-1"].phase, state.members["cam-1"].since_s) == ("fetching", 50)


@pytest.mark.parametrize("reached", [new(1, "trial"), new(1)])
def test_a_device_that_starts_again_runs_nothing_for_a_while_and_did_not_go_back(reached):
    """Its first words come before its model is loaded."""
    starts = Report(seen_s=12, version=0, slot="none")  # 12 s: its soak would be over
    looks = [(0, {"cam-1": old(0), "cam-2": old(0)}), (1, {"cam-1": reached, "cam-2": old(1)})]
    state, _, _ = run(PLAN, [*looks, (12, {"cam-1": starts, "cam-2": old(12)})])
    assert isinstance(state, Running)
    assert state.ring == "canary"  # that is no word that it still runs it
    on, _, _ = run(PLAN, [(t, {"cam-1": new(t), "cam-2": old(t)}) for t in (14, 25)], state)
    assert on.ring == "all"
    for_ever = msgspec.structs.replace(starts, seen_s=72)
    state, _, _ = run(PLAN, [(72, {"cam-1": for_ever, "cam-2": old(72)})], state)
    assert isinstance(state, Halted)
    back, _, _ = run(PLAN, [(13, {"cam-1": old(13), "cam-2": old(13)})], on)
    assert isinstance(back, Halted)


def test_nobody_is_late_while_the_server_does_not_listen():
    fleet = {"cam-1": old(0), "cam-2": old(0)}
    state, _, _ = run(PLAN, [(0, fleet)])
    assert isinstance(run(PLAN, [(500, fleet)], state)[0], Halted)
    state, _, _ = run(PLAN, [(500, fleet), (560, fleet)], state, listening_s=500)
    assert isinstance(state, Running)
    assert isinstance(run(PLAN, [(561, fleet)], state, listening_s=500)[0], Halted)


def test_nor_is_a_soak_or_a_ring_that_waits():
    soaks = [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1)})]
    state, _, _ = run(PLAN, soaks)
    assert isinstance(run(PLAN, [(500, {"cam-1": new(1)})], state, listening_s=450)[0], Running)
    assert isinstance(run(PLAN, [(511, {"cam-1": new(1)})], state, listening_s=450)[0], Halted)
    state, _, _ = run(PLAN, [(0, {"cam-2": old(0)})])
    assert isinstance(run(PLAN, [(500, {"cam-2": old(0)})], state, listening_s=450)[0], Running)
    assert isinstance(run(PLAN, [(511, {"cam-2": old(0)})], state, listening_s=450)[0], Halted)


def test_a_clock_that_was_put_back_delays_nothing_for_long():
    state, _, _ = run(PLAN, [(1e6, {"cam-1": old(1e6)}), (0, {"cam-1": old(1e6)}), (61, {"cam-1": old(1e6)})])
    assert isinstance(state, Halted)
    looks = [(1e6, {"cam-1": old(1e6)}), (1e6 + 1, {"cam-1": new(1e6 + 1)}), (0, {"cam-1": new(1e6 + 1)})]
    assert isinstance(run(PLAN, [*looks, (10, {"cam-1": new(10)})])[0], Done)
    state, _, _ = run(PLAN, [(1e6, {"cam-2": old(1e6)}), (0, {"cam-2": old(0)}), (61, {"cam-2": old(61)})])
    assert state.reason == "nobody of ring canary was heard in 61 s"


def test_failures_within_the_share_do_not_halt():
    plan = made("canary=cam-1", "all", max_failed_share=0.5, soak_s=0.0)
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
    assert state == start(PLAN)
    assert orders == {"gone": 1}
    assert not steps


def test_the_canary_share_is_of_those_heard_and_at_least_one():
    plan = made("canary=25%", "all")
    fleet = {f"cam-{i}": old(0) for i in range(8)}
    _, orders, _ = run(plan, [(0, fleet), (1, fleet)])
    assert sum(version == 2 for version in orders.values()) == 2
    _, orders, _ = run(made("canary=0.1%", "all"), [(0, fleet)])
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


# --- rings ------------------------------------------------------------------------------------------------------------

FLEET = {f"cam-{i}": old(0) for i in range(20)}


def into(now_s: float, state: State, **changes: Report) -> dict[str, Report]:
    """Everybody of the state runs the version and says so; the others are as they were."""
    reports = {name: old(now_s) for name in FLEET} | {name: new(now_s) for name in state.members}
    return reports | changes


def told(orders: dict[str, int]) -> int:
    return sum(version == 2 for version in orders.values())


def test_three_rings_each_behind_the_gate_of_the_one_before():
    plan = made("canary=5%", "early=25%", "all")
    state, orders, _ = run(plan, [(0, FLEET)])
    sizes = [told(orders)]
    for now_s in (1, 11, 12, 22, 23):
        state, orders, _ = run(plan, [(now_s, into(now_s, state))], state)
        sizes.append(told(orders))
    assert sizes == [1, 1, 5, 5, 20, 20]
    assert isinstance(state, Done)
    assert [member.ring for member in state.members.values()].count("early") == 4


def test_a_count_is_of_the_fleet_and_min_reported_widens_a_ring():
    _, orders, _ = run(made("canary=3", "all"), [(0, FLEET)])
    assert told(orders) == 3
    _, orders, _ = run(made("canary=1%", "all", min_reported=4), [(0, FLEET)])
    assert told(orders) == 4


def test_too_small_a_fleet_for_min_reported_halts_in_the_end():
    plan = made("canary=1%", "all", min_reported=4, soak_s=0.0)
    state, _, _ = run(plan, [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1)}), (60, {"cam-1": new(60)})])
    assert isinstance(state, Running)
    state, _, _ = run(plan, [(62, {"cam-1": new(62)})], state)
    assert isinstance(state, Halted)
    assert state.reason == "1 devices run it, 4 must: nobody came in 61 s"


def test_a_ring_of_named_devices_that_nobody_hears_halts_in_the_end():
    state, _, _ = run(PLAN, [(0, {"cam-2": old(0)}), (59, {"cam-2": old(59)})])
    assert isinstance(state, Running)
    state, _, _ = run(PLAN, [(61, {"cam-2": old(61)})], state)
    assert isinstance(state, Halted)
    assert state.reason == "nobody of ring canary was heard in 61 s"


def test_nor_is_a_later_ring_of_named_devices_passed_by():
    plan = made("canary=cam-1", "lab=cam-9", "all")
    looks = [(t, {"cam-1": report}) for t, report in ((0, old(0)), (1, new(1)), (11, new(11)), (71, new(71)))]
    state, _, _ = run(plan, looks)
    assert state.ring == "lab"
    state, _, _ = run(plan, [(72, {"cam-1": new(72)})], state)
    assert state.reason == "nobody of ring lab was heard in 61 s"


def test_a_ring_for_which_nobody_is_left_is_passed_by():
    looks = [(0, {"cam-1": old(0)}), *((t, {"cam-1": new(t)}) for t in (1, 11, 12, 13))]
    state, _, steps = run(made("canary=1%", "early=10%", "all"), looks)
    assert isinstance(state, Done)
    assert "ring early: nobody is left for it" in steps


def test_a_pinned_device_goes_where_it_was_put_and_last_where_there_is_no_such_ring():
    plan = made("canary=1", "early=50%", "all")
    pinned = {"cam-3": "canary", "cam-4": "all", "cam-5": "lab"}
    state, orders, _ = run(plan, [(0, FLEET)], pinned=pinned)
    assert [name for name, version in orders.items() if version == 2] == ["cam-3"]
    for now_s in (1, 11):
        state, orders, _ = run(plan, [(now_s, into(now_s, state))], state, pinned=pinned)
    assert told(orders) == 10
    assert orders["cam-4"] == orders["cam-5"] == 1


def test_below_full_success_stragglers_are_not_waited_for_but_still_count():
    plan = made("canary=10", "all", success_share=0.8, soak_s=0.0, rules=("canary.max_failed_share=0.1",))
    state, _, _ = run(plan, [(0, FLEET)])
    slow = sorted(state.members)[:2]
    state, orders, _ = run(plan, [(1, into(1, state, **{name: old(1, fetching=2) for name in slow}))], state)
    assert state.ring == "all"
    assert told(orders) == 20
    state, _, _ = run(plan, [(2, into(2, state, **{name: old(2, refused={2: "no"}) for name in slow}))], state)
    assert isinstance(state, Halted)
    assert state.reason.startswith("2 of 10 in ring canary failed")


def test_a_number_of_failures_halts_whatever_their_share():
    plan = made("canary=10", "all", max_failed_share=1.0, max_failed=2)
    state, _, _ = run(plan, [(0, FLEET)])
    bad = {name: old(1, refused={2: "no"}) for name in sorted(state.members)[:3]}
    two = dict(list(bad.items())[:2])
    state, _, _ = run(plan, [(1, into(1, state, **two))], state)
    assert isinstance(state, Running)
    state, _, _ = run(plan, [(2, into(2, state, **bad))], state)
    assert isinstance(state, Halted)


def test_a_device_that_left_the_channel_is_not_waited_for():
    state, _, _ = run(PLAN, [(0, {"cam-1": old(0), "cam-2": old(0)})])
    state, orders, steps = run(PLAN, [(1, {"cam-2": old(1)})], state)
    assert steps == ["cam-1 left the channel or the fleet"]
    assert not state.members
    assert orders == {"cam-2": 1}


def test_long_lists_of_names_are_cut_short():
    fleet = {f"cam-{i:03}": old(0) for i in range(300)}
    _, _, steps = run(made("all"), [(0, fleet)])
    assert len(steps) == 1
    assert steps[0].endswith("cam-019 and 280 more")


# --- what an operator says --------------------------------------------------------------------------------------------


def test_a_pause_lets_nobody_begin_and_those_at_it_go_on():
    plan = made("canary=1", "all")
    state, _, _ = run(plan, [(0, FLEET)])
    state, step = obey(state, "pause", "the line is moved")
    assert step.text == "paused: the line is moved"
    state, orders, _ = run(plan, [(t, into(t, state)) for t in (1, 12, 500)], state)
    assert [member.phase for member in state.members.values()] == ["through"]
    assert told(orders) == 1
    state, _ = obey(state, "resume", "")
    _, orders, _ = run(plan, [(501, into(501, state))], state)
    assert told(orders) == 20


def test_while_paused_nobody_joins_a_ring_that_has_begun():
    plan, gone = made("all"), old(-1000)
    state, orders, _ = run(plan, [(0, {"cam-1": old(0), "gone": gone})])
    assert orders == {"cam-1": 2, "gone": 2}
    state, _ = obey(state, "pause", "")
    state, orders, _ = run(plan, [(1, {"cam-1": old(1), "cam-2": old(1), "gone": gone})], state)
    assert orders == {"cam-1": 2, "cam-2": 1, "gone": 1}
    assert state.members.keys() == {"cam-1"}


def test_a_ring_that_nobody_came_for_waits_anew_after_a_pause():
    state, _, _ = run(PLAN, [(0, {"cam-2": old(0)})])
    state, _ = obey(state, "pause", "")
    state, _, _ = run(PLAN, [(500, {"cam-2": old(500)})], state)
    state, _ = obey(state, "resume", "")
    state, _, _ = run(PLAN, [(501, {"cam-2": old(501)}), (561, {"cam-2": old(561)})], state)
    assert isinstance(state, Running)
    assert isinstance(run(PLAN, [(562, {"cam-2": old(562)})], state)[0], Halted)


def test_a_later_ring_begins_though_nobody_is_heard_any_more():
    """Else a rollout whose last devices were switched off never ends."""
    plan = made("canary=cam-1", "all", rules=("all.needs_approval=true",))
    state, _, _ = run(plan, [(t, {"cam-1": report}) for t, report in ((0, old(0)), (1, new(1)), (11, new(11)))])
    assert state.asks == "all"
    state, _ = obey(state, "approve", "")
    state, _, _ = run(plan, [(5000, {"cam-1": new(11)}), (5001, {"cam-1": new(11)})], state)
    assert isinstance(state, Done)


def test_a_paused_rollout_still_halts():
    state, _, _ = run(PLAN, [(0, {"cam-1": old(0)})])
    state, _ = obey(state, "pause", "")
    state, _, _ = run(PLAN, [(1, {"cam-1": old(1, refused={2: "no"})})], state)
    assert isinstance(state, Halted)


@pytest.mark.parametrize("ring", ["canary", "all"])
def test_a_ring_that_asks_waits_for_its_approval(ring):
    plan = made("canary=1", "all", rules=(f"{ring}.needs_approval=true",))
    state, orders, steps = run(plan, [(0, FLEET)])
    for now_s in (1, 11, 500):
        state, orders, said = run(plan, [(now_s, into(now_s, state))], state)
        steps += said
    assert told(orders) == (0 if ring == "canary" else 1)
    assert ("ring all waits for an approval" in steps) == (ring == "all")
    state, step = obey(state, "approve", "looks good")
    assert step == Step("approved", f"ring {ring} is approved: looks good", ring)
    _, orders, _ = run(plan, [(501, into(501, state))], state)
    assert told(orders) == (1 if ring == "canary" else 20)


def test_a_halt_by_hand_withdraws_the_order():
    state, _, _ = run(PLAN, [(0, {"cam-1": old(0)})])
    state, _ = obey(state, "halt", "too many complaints")
    assert state == Halted(members=state.members, reason="by hand: too many complaints")
    _, orders, _ = run(PLAN, [(1, {"cam-1": old(1)})], state)
    assert orders == {"cam-1": 1}


@pytest.mark.parametrize(
    ("state", "word", "said"),
    [
        (start(PLAN), "resume", "it is not paused"),
        (Running(ring="all", paused=True), "pause", "it is paused already"),
        (start(PLAN), "approve", "no ring waits for an approval"),
        (Done(members={}), "pause", r"the rollout has ended \(done\)"),
        (Halted(members={}, reason="x"), "halt", r"the rollout has ended \(halted\)"),
    ],
)
def test_what_the_state_does_not_allow_is_said(state, word, said):
    with pytest.raises(RolloutError, match=f"{word}: {said}"):
        obey(state, word, "")


def test_a_rollback_ends_whatever_there_is():
    for state in (start(PLAN), Done(members={}), Halted(members={}, reason="x")):
        assert obey(state, "rollback", "misses shoes")[0] == Halted(members={}, reason="rolled back: misses shoes")


# --- figures ----------------------------------------------------------------------------------------------------------


def soaked(plan: Plan, after_ms: float = 0.0, figures: Figures = NOTHING) -> Fail | Pass:
    """What the gate says of a canary whose p95 was 4 ms, when its soak is over."""
    state, _, _ = run(plan, [(0, {"cam-1": old(0, latency_p95_ms=4.0)}), (1, {"cam-1": new(1, latency_p95_ms=4.0)})])
    asked = []
    look = Look({"cam-1": new(11, latency_p95_ms=after_ms)}, 11, figures=lambda names: asked.append(names) or figures)
    after = advance(plan, state, look)
    assert asked == [["cam-1"]]
    if isinstance(after.state, Halted):
        return Fail(after.state.reason)
    return Pass(next(step.text for step in after.steps if step.kind == "through"))


def test_latency_is_held_against_the_same_devices_before():
    assert isinstance(soaked(PLAN, 12.9), Pass)
    verdict = soaked(PLAN, 13.1)
    assert verdict == Fail("p95 3.27 times that before at the median device, 3 times and 1 ms at most")
    assert isinstance(soaked(made("canary=cam-1", "all", max_latency_ratio=0.0), 90.0), Pass)
    assert isinstance(soaked(PLAN, 0.0), Pass)  # not said


@pytest.mark.parametrize("kind", ["confidence", "accuracy"])
def test_a_loss_halts_only_when_the_data_show_it(kind):
    plan = made("canary=cam-1", "all", max_confidence_drop=0.05, max_accuracy_drop=0.05)
    shown = Change(before=0.9, after=0.7, low=-0.3, high=-0.06, of="60 labels")
    verdict = soaked(plan, figures=Figures(**{kind: shown}))
    assert isinstance(verdict, Fail)
    assert verdict.why == f"{kind} 0.700 after 0.900, a change of -0.300 to -0.060 by 60 labels: it may lose 0.05"
    unsure = shown._replace(high=-0.04)
    verdict = soaked(plan, figures=Figures(**{kind: unsure}))
    assert isinstance(verdict, Pass)
    assert "a change of -0.300 to -0.040 by 60 labels" in verdict.said


@pytest.mark.parametrize(("afters", "shown"), [((0.5, 0.9), False), ((0.6, 0.5), True), ((0.5,), True)])
def test_a_loss_of_confidence_is_shown_by_devices_that_agree_on_it(afters, shown):
    """One of two whose light went out says nothing of the model."""
    change = confidence_change([((10**6, 0.9e6), (10**5, after * 1e5)) for after in afters], promised=0.0)
    assert change.after - change.before == pytest.approx(sum(afters) / len(afters) - 0.9)
    assert (change.high < -0.1) == shown


def test_shares_of_devices_are_exact():
    plan = made("canary=100", "all", success_share=0.55, max_failed_share=0.29, soak_s=0.0)
    fleet = {f"cam-{i}": old(0) for i in range(100)}
    state, _, _ = run(plan, [(0, fleet)])
    names = sorted(state.members)
    bad = {name: old(1, refused={2: "no"}) for name in names[:29]}
    state, _, _ = run(plan, [(1, fleet | bad)], state)
    assert isinstance(state, Running)  # 29 of 100 are 29 %, and 0.29 * 100 is less than 29
    assert isinstance(run(plan, [(2, fleet | bad | {names[29]: old(2, refused={2: "no"})})], state)[0], Halted)
    state, _, _ = run(plan, [(0, fleet)])
    state, _, steps = run(plan, [(1, fleet | {name: new(1) for name in names[:54]})], state)
    assert state.ring == "canary"
    state, _, steps = run(plan, [(2, fleet | {name: new(2) for name in names[:55]})], state)
    assert "ring canary is through: 55 running, 0 failed" in steps


def test_figures_are_asked_for_only_when_all_else_is_well():
    def never(names):
        raise AssertionError(names)

    run(PLAN, [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1)}), (5, {"cam-1": new(5)})], figures=never)
    state, _, _ = run(PLAN, [(0, {"cam-1": old(0)}), (1, {"cam-1": new(1)})])
    assert gate(PLAN, state, Look({"cam-1": new(5)}, 5)) == Wait("0 of 1 are through, 1 must be; 0 failed")
