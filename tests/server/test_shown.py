"""Is what a rollout is shown to wait for what it waits for, though no device's word is read for it?"""

from __future__ import annotations

import pytest
from fleet_simulator import FleetSimulator

from server import config
from server.release import commands, rollout
from server.release.channels import plan_of, report_of, state_of
from server.release.gate import Wait
from server.store import devices, rollouts

RULES = config.Rollout(rings=("canary=1", "early=2", "all"), soak_s=10.0, timeout_s=120.0)


@pytest.fixture
def fleet(tmp_path):
    made = FleetSimulator(tmp_path, devices=4, rules=RULES)
    yield made
    made.close()


def waits_for(fleet: FleetSimulator) -> str | None:
    """By all that the devices report; None: for nothing."""
    with fleet.store.database.read() as connection:
        one, known = rollouts.get(connection, 1), devices.devices(connection)
    reports = {device.name: said for device in known if (said := report_of(device)) is not None}
    state = state_of(one)
    if not isinstance(state, rollout.Running):
        return None
    verdict = rollout.gate(plan_of(one), state, rollout.Look(reports=reports, now_s=fleet.now_ms / 1000))
    return verdict.why if isinstance(verdict, Wait) else "the server's next look"


def test_at_every_moment_it_is_the_same(fleet):
    fleet.publish(2)
    seen = set()
    for _ in range(60):
        fleet.run(4.0)
        view = commands.shown(fleet.store, 1, now_ms=fleet.now_ms)
        expected = waits_for(fleet)
        if expected is None:
            break
        assert view["waits_for"] == expected
        seen.add(expected)
        phases = [phase for ring in view["rings"] for phase, number in ring["members"].items() for _ in range(number)]
        assert len(phases) == sum(view["members"].values())
    assert view["status"] == "done"
    assert len(seen) > 1
    whole = commands.shown(fleet.store, 1, now_ms=fleet.now_ms)["steps"]
    assert len(whole) > 5
    assert commands.shown(fleet.store, 1, now_ms=fleet.now_ms, last=3)["steps"] == whole[-3:]
