"""Does the agent slow down for heat by its rule, say so, and come back?"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_agent import beat, configure, here  # noqa: F401 - a fixture

from edge_agent import heat, thermostat
from edge_agent.agent import Agent
from edge_agent.config import load_config
from edge_agent.heat import CLEAR_C, FASTER_AFTER_S, NEAR_C, SHARES, SLOWER_AFTER_S, Backoff, Seen
from edge_agent.metrics import text
from edge_agent.send import health

HOT, WARM, COOL = Seen(0.0), Seen(-(NEAR_C + CLEAR_C) / 2), Seen(-CLEAR_C)
PI = "devices/platform/soc/soc:firmware/get_throttled"
looks = st.lists(
    st.tuples(
        st.floats(0.1, 100.0),
        st.builds(Seen, st.one_of(st.none(), st.floats(-60.0, 30.0)), st.booleans()),
    ),
    max_size=60,
)


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")


# --- the rule ---


@given(looks)
def test_it_moves_by_single_steps_down_only_when_hot_and_up_only_when_cool(steps: list[tuple[float, Seen]]) -> None:
    rule, now_s, before = Backoff(), 0.0, 1.0
    moved_s = cool_s = None
    for passed_s, seen in steps:
        now_s += passed_s
        share = rule.look(seen, now_s)
        assert share in SHARES
        assert abs(SHARES.index(share) - SHARES.index(before)) <= 1
        hot = seen.throttled or (seen.over_c is not None and seen.over_c >= -NEAR_C)
        cool = not seen.throttled and (seen.over_c is None or seen.over_c <= -CLEAR_C)
        cool_s = (cool_s if cool_s is not None else now_s) if cool else None
        if share < before:
            assert hot
            assert moved_s is None or now_s - moved_s >= SLOWER_AFTER_S
            moved_s = now_s
        if share > before:
            assert cool_s is not None
            assert now_s - cool_s >= FASTER_AFTER_S
        before = share


@given(looks)
def test_whatever_was_before_heat_that_stays_ends_at_an_eighth_and_its_end_at_full_speed(steps: list) -> None:
    rule, now_s = Backoff(), 0.0
    for passed_s, seen in steps:
        rule.look(seen, now_s := now_s + passed_s)
    for _ in range(3):
        rule.look(HOT, now_s := now_s + SLOWER_AFTER_S + 0.1)
    assert rule.share == SHARES[-1]
    for _ in range(100):
        rule.look(WARM, now_s := now_s + FASTER_AFTER_S)
        assert rule.share == SHARES[-1]  # between the two nothing changes
    for _ in range(4):
        rule.look(COOL, now_s := now_s + FASTER_AFTER_S + 0.1)
    assert rule.share == 1.0


@given(looks)
def test_hotter_is_never_faster(steps: list[tuple[float, Seen]]) -> None:
    cooler, hotter, now_s = Backoff(), Backoff(), 0.0
    hotter.look(HOT, now_s)
    for passed_s, seen in steps:
        now_s += passed_s
        cooler.look(Seen(None), now_s)
        hotter.look(seen, now_s)
        assert hotter.share <= cooler.share == 1.0


# --- what the machine says ---


@pytest.mark.parametrize(
    ("files", "over_c", "throttled", "words"),
    [
        ({}, None, False, ""),
        ({"class/thermal/thermal_zone0/type": "cpu", "class/thermal/thermal_zone0/temp": "99000"}, None, False, ""),
        (
            {
                "class/thermal/thermal_zone0/type": "cpu-thermal",
                "class/thermal/thermal_zone0/temp": "83500",
                "class/thermal/thermal_zone0/trip_point_0_type": "passive",
                "class/thermal/thermal_zone0/trip_point_0_temp": "85000",
                "class/thermal/thermal_zone0/trip_point_1_type": "critical",
                "class/thermal/thermal_zone0/trip_point_1_temp": "105000",
                "class/thermal/thermal_zone1/type": "gpu-thermal",
                "class/thermal/thermal_zone1/temp": "60000",
                "class/thermal/thermal_zone1/trip_point_0_type": "critical",
                "class/thermal/thermal_zone1/trip_point_0_temp": "110000",
            },
            -1.5, False, "cpu-thermal at 84 C, limit 85 C",
        ),
        (  # placeholders, a fan's trip point, and a zone that is none
            {
                "class/thermal/thermal_zone0/type": "x86_pkg_temp",
                "class/thermal/thermal_zone0/temp": "50000",
                "class/thermal/thermal_zone0/trip_point_0_type": "passive",
                "class/thermal/thermal_zone0/trip_point_0_temp": "0",
                "class/thermal/thermal_zone0/trip_point_1_type": "active",
                "class/thermal/thermal_zone0/trip_point_1_temp": "45000",
                "class/thermal/thermal_zone1/type": "PMIC-Die",
                "class/thermal/thermal_zone1/temp": "100000",
                "class/thermal/thermal_zone1/trip_point_0_type": "passive",
                "class/thermal/thermal_zone1/trip_point_0_temp": "90000",
            },
            None, False, "",
        ),
        (
            {
                "class/thermal/cooling_device0/type": "pwm-fan",
                "class/thermal/cooling_device0/cur_state": "3",
                "class/thermal/cooling_device1/type": "thermal-cpufreq-0",
                "class/thermal/cooling_device1/cur_state": "2",
            },
            None, True, "the kernel throttles (thermal-cpufreq-0 2)",
        ),
        ({PI: "50005"}, None, True, "the firmware throttles (throttled)"),
        ({PI: "50000"}, None, False, ""),  # it did, since it was switched on
        ({PI: "nonsense"}, None, False, ""),
    ],
)  # fmt: skip
def test_what_kernel_and_firmware_say_is_understood(tmp_path: Path, files, over_c, throttled, words) -> None:
    write(tmp_path, files)
    seen = health.heat(tmp_path)
    assert seen == Seen(over_c if over_c is None else pytest.approx(over_c), throttled, words)


def test_a_limit_of_ones_own_counts_for_every_zone(tmp_path: Path) -> None:
    write(tmp_path, {"class/thermal/thermal_zone0/type": "soc", "class/thermal/thermal_zone0/temp": "71000"})
    assert health.heat(tmp_path, hot_c=70.0) == Seen(pytest.approx(1.0), False, "soc at 71 C, limit 70 C")


# --- the whole agent ---


def wait_for(what: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20.0
    while time.monotonic() < until_s:
        if what():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


def test_an_agent_slows_down_says_so_and_comes_back(here: Path, tmp_path: Path, monkeypatch, caplog) -> None:  # noqa: F811
    monkeypatch.setattr(thermostat, "LOOK_S", 0.1)
    monkeypatch.setattr(heat, "SLOWER_AFTER_S", 0.1)
    monkeypatch.setattr(heat, "FASTER_AFTER_S", 0.3)
    zone = "class/thermal/thermal_zone0/"
    write(
        tmp_path,
        {zone + "type": "cpu-thermal", zone + "temp": "40000", zone + "trip_point_0_type": "passive",
         zone + "trip_point_0_temp": "85000"},
    )  # fmt: skip
    path = configure(here, rate=100.0, uplink="[recent]\nmax_bytes = 0\n")
    path.write_text(path.read_text().replace("heartbeat_s = 1.0", "heartbeat_s = 0.2"))
    agent = Agent(load_config(path), root=tmp_path)
    running = threading.Thread(target=agent.run)
    running.start()

    def share() -> float | None:
        if not (here / "data" / "status.json").exists():
            return None
        pace = beat(here).pace
        return pace.share if pace else None

    try:
        wait_for(lambda: share() == 1.0)
        write(tmp_path, {zone + "temp": "86000"})
        wait_for(lambda: share() == SHARES[-1])
        found = beat(here)
        assert found.pace is not None
        assert found.pace.why == "cpu-thermal at 86 C, limit 85 C"
        assert "winnow_agent_pace_share 0.125\n" in text(found)
        write(tmp_path, {zone + "temp": "60000"})
        wait_for(lambda: share() == 1.0)
    finally:
        agent.stop()
        running.join()
    told = [line for line in caplog.messages if "heat: " in line]
    assert [line.split(": ")[-1] for line in told[:3]] == [
        f"working {share:.1%} of the time from now on" for share in SHARES[1:]
    ]
    assert "back at full speed" in told[-1]
    assert json.loads((here / "data" / "status.json").read_text())["pace"]["share"] == 1.0
