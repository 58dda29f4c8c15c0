"""What can go wrong when a model goes to a fleet, from the server's order to the device's word, by name."""

from __future__ import annotations

import functools
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fleet_simulator import FleetSimulator
from simulated_device import STREAM, UPDATE, VARIANT, Device
from simulated_network import FLEET

from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.wire import (
    Assignment,
    BlockHeader,
    Desired,
    decode,
    decode_frame,
    down_topic,
    encode,
    encode_frame,
)
from edge_agent.history import read
from edge_agent.parts import check_in_child
from edge_agent.providers import Providers
from edge_agent.update.slots import Staged, Steady, Trial
from server import config
from server.release.signing import Policy, Signing
from server.store import versions
from server.store.schema import event

RULES = config.Rollout(rings=("canary=cam-1", "all"), soak_s=20.0, timeout_s=120.0)
WEEK_S = 7 * 86_400.0
in_a_child = functools.partial(
    check_in_child,
    variant=VARIANT,
    providers=Providers(),
    timeout_s=60.0,
    memory_bytes=4_000_000_000,
    stop=threading.Event(),
)


Make = Callable[..., FleetSimulator]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: hundreds of devices flush thousands of small files."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as made:
        yield Path(made)


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    """A fleet that runs version 1."""
    made: list[FleetSimulator] = []

    def simulator(rules: config.Rollout = RULES, *, in_the_dark: tuple[str, ...] = (), **how: object) -> FleetSimulator:
        # Times are the machine's own, and not those of the clock that is simulated: nothing is judged by them.
        rules = msgspec.structs.replace(rules, max_latency_ratio=0.0)
        fleet = FleetSimulator(folder, rules, **{"devices": 4, **how})
        made.append(fleet)
        for name in in_the_dark:
            fleet[name].stream = np.zeros_like(STREAM)
        assert fleet.run(300, until=fleet.ended)
        return fleet

    yield simulator
    for fleet in made:
        fleet.close()


def published(fleet: FleetSimulator, version: int, **how: object) -> FleetSimulator:
    """The same fleet, when the rollout of a new version has begun."""
    fleet.publish(version, **how)
    assert fleet.run(10, until=lambda: fleet.rollout().version == version)
    return fleet


def runs(fleet: FleetSimulator, *names: str) -> set[int]:
    return {version for name, version in fleet.executing().items() if name in (names or fleet.devices)}


def kinds(fleet: FleetSimulator, name: str) -> list[str]:
    """Of the events that the server keeps of a device."""
    with fleet.store.database.read() as connection:
        rows = connection.execute(event.select().where(event.c.device == name).order_by(event.c.id))
        return [row.kind for row in rows]


def test_a_good_model_reaches_everybody_by_a_bad_network(make: Make) -> None:
    fleet = make()
    fleet.network.repeat(0.2)
    fleet.network.reorder()
    fleet.network.corrupt(0.03)  # a file that comes damaged twice is refused, and this model is a good one
    published(fleet, 2)
    fleet.run(40)
    fleet.start_server()  # it was killed
    fleet.network.cut("cam-2", "cam-3")
    fleet.run(30)
    fleet.network.mend("cam-2", "cam-3")
    assert fleet.run(600, until=fleet.ended)
    assert fleet.rollout().status == "done"
    assert runs(fleet) == {2}
    assert all(device.executed == [1, 2] for device in fleet.devices.values())


def test_bad_model_is_refused_in_the_shadow(make: Make) -> None:
    fleet = published(make(), 2, broken=True)
    assert fleet.run(300, until=fleet.ended)
    assert fleet.rollout().status == "halted"
    assert "in the shadow of version 1: 8 of 8 samples gave no finite result" in fleet.steps()[-1]
    assert kinds(fleet, "cam-1") == ["staged", "trial", "refused"]
    assert all(device.executed == [1] for device in fleet.devices.values())


def test_bad_model_reverts(make: Make, folder: Path) -> None:
    no_shadow = msgspec.structs.replace(UPDATE, shadow_samples=0)
    fleet = published(make(check=in_a_child, update=no_shadow), 2, broken=True)
    assert fleet.run(300, until=fleet.ended)
    assert fleet.rollout().status == "halted"
    assert "8 of 8 samples gave no finite result" in fleet.steps()[-1]
    assert fleet["cam-1"].executed == [1, 2, 1]
    assert kinds(fleet, "cam-1") == ["staged", "trial", "revert"]
    assert [step.kind for step in read(folder / "cam-1")] == ["staged", "trial", "revert"]  # for winnow-agent status
    fleet["cam-1"].power_cut()
    fleet.run(120)
    assert runs(fleet) == {1}
    assert fleet["cam-1"].executed == [1, 2, 1]  # never tried again
    assert all(device.executed == [1] for name, device in fleet.devices.items() if name != "cam-1")


@pytest.mark.parametrize("forged", ["manifest", "model"])
def test_forged_artifact(make: Make, forged: str) -> None:
    fleet = make()

    def forge(topic: str, payload: bytes) -> bytes:
        if not topic.endswith("/block"):
            return payload
        header, body = decode_frame(BlockHeader, payload)
        is_manifest = bytes(body[:1]) == b"{"
        return encode_frame(header, bytes(len(body))) if is_manifest == (forged == "manifest") else payload

    fleet.network.tamper = forge
    published(fleet, 2)
    assert fleet.run(300, until=fleet.ended)
    assert fleet.rollout().status == "halted"
    assert "refused: IntegrityError: fetched file: sha256" in fleet.steps()[-1]
    expected = ["refused"] if forged == "manifest" else ["error", "refused"]  # of the parcel, then of the whole
    assert kinds(fleet, "cam-1") == expected
    assert all(device.executed == [1] for device in fleet.devices.values())


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        ("unsigned", "is not signed"),  # whoever has the broker strips the signatures off an order
        ("borrowed", "not among the signed"),  # or names those of before
        ("other keys", "SignatureError"),  # whoever has the server signs with keys of his own
    ],
)
def test_forged_signatures(make: Make, folder: Path, forged: str, why: str) -> None:
    fleet = make(devices=2, signed=True)
    ours, before = fleet.signing, fleet.signing.stamp()
    stamp = {"trust_sha256": before.sha256, "trust_bytes": before.bytes} if forged == "borrowed" else {}

    def forge(topic: str, payload: bytes) -> bytes:
        if not topic.endswith("/desired"):
            return payload
        said = decode(Desired, payload)
        model = msgspec.structs.replace(said.model, **({"trust_sha256": "", "trust_bytes": 0} | stamp))
        return encode(msgspec.structs.replace(said, model=model))

    if forged == "other keys":
        fleet.signing = Signing(folder / "elsewhere")
        fleet.signing.init(Policy(), now_ms=fleet.now_ms)
        fleet.start_server()
    else:
        fleet.network.tamper = forge
    published(fleet, 2)
    assert fleet.run(300, until=fleet.ended)
    assert fleet.rollout().status == "halted"
    assert why in fleet.steps()[-1]
    assert fleet["cam-1"].updater.slot_state() == Steady(committed=1)  # turned away, and not for good
    assert kinds(fleet, "cam-1")[-1] == "refused"

    fleet.network.tamper, fleet.signing = lambda _topic, payload: payload, ours
    fleet.start_server()
    fleet.again()
    assert fleet.run(600, until=fleet.ended)
    assert (fleet.rollout().status, runs(fleet)) == ("done", {2})
    assert all(device.executed == [1, 2] for device in fleet.devices.values())


def test_downgrade_refused(make: Make) -> None:
    fleet = published(make(), 2)
    assert fleet.run(300, until=fleet.ended)
    with fleet.store.database.read() as connection:
        old = versions.get(connection, 1)
    model = Assignment(version=1, manifest_sha256=old.manifest_sha256, manifest_bytes=old.manifest_bytes)
    order = encode(Desired(revision=99, model=model))  # of a server that was restored from last month
    fleet.network.publish(down_topic(FLEET, "cam-2", "desired"), order, qos=1, retain=True)
    fleet.run(60)
    assert fleet["cam-2"].executed == [1, 2]
    assert kinds(fleet, "cam-2")[-1] == "refused"
    assert "DowngradeError: version 1 is older than 2" in fleet["cam-2"].state().refused[1]
    fleet["cam-2"].power_cut()
    fleet.run(30)
    assert runs(fleet) == {2}


def test_ring_halts(make: Make) -> None:
    """150 devices. The model fails where it is light, and the canaries stand in the dark."""
    canaries = ("cam-1", "cam-2", "cam-3")
    rings = (f"canary={'+'.join(canaries)}", "early=10%", "all")
    rules = config.Rollout(rings=rings, soak_s=20.0, timeout_s=120.0, max_failed_share=0.1)
    fleet = make(rules, in_the_dark=canaries, devices=150, tick_s=10.0, heartbeat_s=20.0)
    published(fleet, 2, broken=True)
    assert fleet.run(600, until=fleet.ended)
    said = fleet.steps()
    assert "ring canary is through: 3 running, 0 failed" in [step.partition(";")[0] for step in said]
    assert said[-1].startswith("halted: ")
    assert " of 12 in ring early failed" in said[-1]
    tried = {name for name, device in fleet.devices.items() if 2 in device.executed}
    assert len(tried) == 15
    fleet.run(60)
    assert {name for name, version in fleet.desired().items() if version == 2} == set(canaries)
    assert runs(fleet, *(fleet.devices.keys() - set(canaries))) == {1}


def test_rollback(make: Make) -> None:
    """Who committed the bad version gets the old weights back, under a number that it does not refuse."""
    fleet = published(make(in_the_dark=("cam-1",)), 2, broken=True)
    assert fleet.run(600, until=fleet.ended)
    assert (fleet.rollout().status, runs(fleet, "cam-1")) == ("halted", {2})
    fleet.say("rollback", reason="fails where it is light")
    assert fleet.run(600, until=lambda: fleet.rollout().version == 3 and fleet.ended())
    assert (fleet.rollout().status, runs(fleet)) == ("done", {3})
    with fleet.store.database.read() as connection:
        files = [
            decode_manifest(fleet.store.blobs.get(versions.get(connection, number).manifest_sha256)).files
            for number in (1, 3)
        ]
    assert files[0] == files[1]


def test_a_halt_takes_the_version_off_those_that_try_it(make: Make) -> None:
    """Its probation would last for an hour, and nobody waits for that."""
    slow = msgspec.structs.replace(UPDATE, shadow_samples=0, probation_s=3600.0)
    fleet = published(make(update=slow, devices=2), 2)
    assert fleet.run(60, until=lambda: runs(fleet, "cam-1") == {2})
    fleet.say("halt")
    assert fleet.run(30, until=lambda: runs(fleet) == {1})
    assert fleet["cam-1"].updater.slot_state() == Steady(committed=1)
    assert kinds(fleet, "cam-1")[-1] == "revert"


def test_week_offline(make: Make) -> None:
    fleet = make()
    fleet["cam-4"].silence()
    fleet.run(10)
    for version in (2, 3):
        fleet.skip(WEEK_S / 2)
        published(fleet, version)
        assert fleet.run(600, until=fleet.ended)
        assert fleet.rollout().status == "done"  # nobody waits for it
    fleet["cam-4"].clock_jump(-WEEK_S)  # it has no clock of its own
    fleet["cam-4"].wake()
    assert fleet.run(120, until=lambda: runs(fleet) == {3})
    assert fleet["cam-4"].executed == [1, 3]


STATES: dict[str, Callable[[Device], bool]] = {
    "ordered": lambda device: device.updater._assignment is not None and device.updater._assignment.version == 2,
    "fetching": lambda device: device.state().fetching == 2,
    "staged": lambda device: isinstance(device.updater.slot_state(), Staged),
    "in the shadow": lambda device: device.state().slot == "staged" and device.state().tried > 0,
    "trial": lambda device: isinstance(device.updater.slot_state(), Trial),
    "on probation": lambda device: device.state().slot == "trial",
    "committed": lambda device: device.updater.slot_state() == Steady(committed=2),
}


@pytest.mark.parametrize("state", STATES)
def test_power_cut_in_every_state(make: Make, state: str) -> None:
    fleet = published(make(devices=2), 2)
    reached = []
    fleet["cam-1"].power_cut_when(lambda device: STATES[state](device) and not reached.append(device.boot))
    assert fleet.run(600, until=fleet.ended)
    assert reached == [1]
    assert fleet["cam-1"].boot == 2
    assert fleet.rollout().status == "done"
    assert runs(fleet) == {2}
    assert set(fleet["cam-1"].executed) == {1, 2}


def test_power_cut_again_and_again_on_trial(make: Make) -> None:
    """A model that kills its agent is given up by the count of starts, and the ring halts."""
    fleet = published(make(devices=2), 2)
    for boot in range(1, 5):
        fleet["cam-1"].power_cut_when(STATES["on probation"])
        assert fleet.run(60, until=lambda boot=boot: fleet["cam-1"].boot > boot)
    assert fleet.run(300, until=fleet.ended)
    assert fleet.rollout().status == "halted"
    assert "the agent was started more than 3 times within its trial" in fleet.steps()[-1]
    assert runs(fleet) == {1}


@pytest.mark.parametrize(("max_failed_share", "status"), [(0.0, "halted"), (0.5, "done")])
def test_silent_device_times_out(make: Make, max_failed_share: float, status: str) -> None:
    rings = ("canary=cam-1+cam-2", "all")
    rules = config.Rollout(rings=rings, soak_s=20.0, timeout_s=120.0, max_failed_share=max_failed_share)
    fleet = published(make(rules), 2)
    fleet["cam-1"].silence()
    asked_s = fleet.now_s
    assert fleet.run(100, until=fleet.ended) is False  # it may come back
    assert fleet.run(600, until=fleet.ended)
    assert fleet.rollout().status == status
    assert 100 < fleet.now_s - asked_s < 300
    assert any(step.startswith("cam-1: failed: no step forward from") for step in fleet.steps())
    assert runs(fleet, "cam-3", "cam-4") == ({2} if status == "done" else {1})
    fleet["cam-1"].wake()
    fleet.run(120)
    assert fleet["cam-1"].state().version == (2 if status == "done" else 1)


def test_a_server_that_is_away_for_long(make: Make) -> None:
    """The devices that it heard last were well: it is not they who were silent."""
    fleet = published(make(), 2)
    fleet.run(5)
    fleet.skip(2 * RULES.timeout_s)
    fleet.start_server()
    assert fleet.run(600, until=fleet.ended)
    assert (fleet.rollout().status, runs(fleet)) == ("done", {2})


def test_a_shadow_and_a_probation_that_take_longer_than_a_device_may_stand_still(make: Make) -> None:
    slow = msgspec.structs.replace(UPDATE, shadow_samples=10**6, shadow_s=200.0, probation_s=200.0)
    fleet = published(make(update=slow, devices=1, tick_s=5.0), 2)
    assert fleet.run(1000, until=fleet.ended)
    assert (fleet.rollout().status, runs(fleet)) == ("done", {2})


def test_clocks_that_jump(make: Make) -> None:
    fleet = make()
    fleet["cam-1"].clock_jump(-10 * 365 * 86_400.0)  # corrected after it had said where it was
    fleet["cam-2"].clock_jump(10 * 365 * 86_400.0)
    published(fleet, 2)
    assert fleet.run(600, until=fleet.ended)
    assert fleet.rollout().status == "done"
    assert runs(fleet) == {2}
