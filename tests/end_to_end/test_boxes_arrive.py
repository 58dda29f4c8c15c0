"""A detector on a device: its boxes come to the server, its misses too, and another version is tried beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scenes
from processes import Programs, query
from world import Served

from edge_agent.contract.artifact import decode_manifest
from server.store import devices
from server.store.store import Store
from server.web.api.devices import _classes

pytestmark = pytest.mark.end_to_end

AGENT = """
[device]
name = "cam-1"
fleet = "test"
data_dir = "cam-1"
[source]
kind = "replay"
path = "stream.npz"
rate_per_s = 150
[model]
artifact = "first"
[budget]
label_share = 0.1
[privacy]
transforms = ["crop 0 0 16 12"]
[uplink]
broker = "{broker}"
heartbeat_s = 0.3
[update]
shadow_samples = 20
shadow_share = 1.0
probation_samples = 20
probation_s = 0.5
max_latency_ratio = 1000  # this is about answers
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Served]:
    scenes.detector(tmp_path / "first")
    np.savez(tmp_path / "stream.npz", x=scenes.stream(12000, seed=4))
    with Programs() as programs:
        text = (tmp_path / "first" / "manifest.json").read_bytes()
        assert decode_manifest(text).task == "detection"
        made = Served(tmp_path, programs, task="detection", before=[("model", "add", str(tmp_path / "first"))])
        made.start_agent("cam-1", AGENT.format(broker=made.broker_url))
        yield made


def test_boxes_come_to_the_server_cropped_and_so_does_nothing(world: Served) -> None:
    stored = "select predicted, said, reason from sample"
    world.programs.wait_for("samples", lambda: len(query(world.catalogue, stored)) > 60)
    rows = [(predicted, json.loads(said), reason) for predicted, said, reason in query(world.catalogue, stored)]
    assert {predicted for predicted, *_ in rows} == {0, 1, 2}
    boxes = [box for _, said, _ in rows for box in said.get("boxes", ())]
    assert len(boxes) > 20
    assert all(0.0 <= left < right <= 0.75 and 0.3 <= score <= 1.0 for _, left, _, right, _, score in boxes)
    assert any(said == {} for predicted, said, _ in rows if predicted == 2)  # nothing is an answer, too

    scenes.detector(world.folder / "second", version=2, shift=0.2)
    world.command("model", "add", str(world.folder / "second"))
    world.programs.wait_for("the next version is committed", lambda: state(world) == (2, "steady"))
    counts = world.beat("cam-1").counts
    assert len(counts.classes) == 3
    assert sum(counts.classes) == counts.scored
    world.server.stop()
    store = Store.open(world.folder / "server")
    with store.database.read() as connection:
        shares = {one.name: one.share for one in _classes(store, connection, "cam-1", since_ms=0)}
        assert devices.get(connection, "cam-1").messages_bad == 0
    store.close()
    assert list(shares) == ["bright", "dark", "nothing"]
    assert shares["nothing"] > 0.1


def state(world: Served) -> tuple[int, str]:
    model = world.beat("cam-1").model
    return model.version, model.slot
