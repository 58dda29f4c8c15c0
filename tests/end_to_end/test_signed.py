"""A fleet that signs: real programs, a real broker; and somebody on it who sends models of his own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from processes import Programs, query
from quadrants import artifact, images
from world import Served

from edge_agent.__main__ import main as agent_command
from edge_agent.contract.artifact import MANIFEST, sha256_hex
from edge_agent.contract.wire import Assignment, Desired, down_topic, encode
from edge_agent.update.trust import STATE, load

pytestmark = pytest.mark.end_to_end

RINGS = """
[rollout]
soak_s = 0.5
"""

AGENT = """
[device]
name = "cam-1"
fleet = "test"
data_dir = "cam-1"
[source]
kind = "replay"
path = "cam-1.npz"
rate_per_s = 200
[uplink]
broker = "{broker}"
heartbeat_s = 0.5
[update]
trust = "server/trust/root.json"
probation_samples = 20
probation_s = 0.2
"""


class World(Served):
    """A server with keys, and one agent that has no model yet."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        np.savez(folder / "cam-1.npz", x=images(60_000, seed=5)[0])
        super().__init__(folder, programs, settings=RINGS, before=[("keys", "init")])
        self.start_agent("cam-1", AGENT.format(broker=self.broker_url))

    def add(self, folder: Path) -> None:
        self.command("model", "add", str(folder))

    def model(self) -> dict:
        rows = query(self.catalogue, "select heartbeat from device where heartbeat is not null")
        return json.loads(rows[0][0])["model"] if rows else {}

    def runs(self, version: int) -> bool:
        model = self.model()
        return bool(model) and (model["version"], model["slot"]) == (version, "steady")

    def order(self, assignment: Assignment) -> None:
        """As anybody can who may publish."""
        host, port = self.broker_url.removeprefix("mqtt://").split(":")
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.connect(host, int(port))
        client.loop_start()
        order = encode(Desired(revision=1_000, model=assignment))
        client.publish(down_topic("test", "cam-1", "desired"), order, qos=1).wait_for_publish(10)
        client.loop_stop()
        client.disconnect()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Programs() as programs:
        yield World(tmp_path, programs)


def test_signed_models_are_run_and_others_are_not(world: World) -> None:
    artifact(world.folder / "one", version=1)
    world.add(world.folder / "one")
    world.programs.wait_for("version 1 runs", lambda: world.runs(1))
    seen = load(world.folder / "cam-1" / "trust" / STATE)
    assert seen is not None

    artifact(world.folder / "two", version=2)
    world.add(world.folder / "two")
    world.programs.wait_for("version 2 runs", lambda: world.runs(2))
    again = load(world.folder / "cam-1" / "trust" / STATE)
    assert again is not None
    assert again.bundle.targets != seen.bundle.targets

    artifact(world.folder / "three", version=3)
    data = (world.folder / "three" / MANIFEST).read_bytes()
    forged = Assignment(version=3, manifest_sha256=sha256_hex(data), manifest_bytes=len(data))
    world.order(forged)
    world.programs.wait_for("an unsigned one is refused", lambda: "is not signed" in refused(world, 3))
    bundle = (world.folder / "server" / "trust" / "bundle.json").read_bytes()
    borrowed = msgspec.structs.replace(forged, trust_sha256=sha256_hex(bundle), trust_bytes=len(bundle))
    world.order(borrowed)
    world.programs.wait_for("nor one with others' signatures", lambda: "not among the signed" in refused(world, 3))
    assert world.runs(2)

    out = world.folder / "out"
    world.command("model", "export", "2", "--out", str(out))
    root = str(world.folder / "server" / "trust" / "root.json")
    assert agent_command(["verify", str(out), "--root", root]) == 0
    (out / "model.onnx").write_bytes(b"something else")
    assert agent_command(["verify", str(out), "--root", root]) == 1


def refused(world: World, version: int) -> str:
    return world.model().get("refused", {}).get(str(version), "")
