"""A device is erased while it is away, with samples of its own in its outbox: is nothing left, on either side?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import Programs, query
from quadrants import artifact, images
from world import Served

pytestmark = pytest.mark.end_to_end

AGENT = """
[device]
name = "cam-1"
fleet = "test"
data_dir = "cam-1"
[source]
kind = "replay"
path = "stream.npz"
rate_per_s = 200
stop_at_end = false
[model]
artifact = "first"
[budget]
label_share = 0.3
[recent]
bytes_per_day = 1e13
[uplink]
broker = "{broker}"
heartbeat_s = 0.3
retry_first_s = 0.2
retry_max_s = 1.0
[drift]
enabled = false
"""
OFFLINE = "mqtt://127.0.0.1:9"


class World(Served):
    """A server, and an agent on a stream of noise, which nothing makes smaller."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        artifact(folder / "first")
        rng = np.random.default_rng(0)
        x = (images(600)[0].astype(int) + rng.integers(0, 56, (600, 8, 8))).astype(np.uint8)
        self.x = x
        np.savez(folder / "stream.npz", x=x)
        super().__init__(folder, programs, before=[("model", "add", str(folder / "first"))])
        self.agent = self.start_agent("cam-1", AGENT.format(broker=self.broker_url))

    def configure(self, broker: str) -> None:
        (self.folder / "cam-1.toml").write_text(AGENT.format(broker=broker))

    def stored(self) -> list[tuple[str, int]]:
        return query(self.catalogue, "select id, seq from sample where device = 'cam-1'")

    def waiting(self) -> list[tuple[int]]:
        return query(self.folder / "cam-1" / "outbox.db", "select seq from sample order by seq")

    def mark(self, seq: int) -> bytes:
        return self.x[seq].tobytes()[:32]

    def files_with(self, where: str, what: bytes) -> list[str]:
        found = []
        for path in (self.folder / where).rglob("*"):
            if path.is_file() and what in path.read_bytes():
                found.append(path.name)
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Programs() as programs:
        yield World(tmp_path, programs)


def test_no_byte_of_a_device_is_left_here_or_there_and_what_is_new_is_taken(world: World, capsys) -> None:
    world.programs.wait_for("samples are stored", lambda: len(world.stored()) > 10)
    assert world.agent.stop() == 0
    world.configure(OFFLINE)
    world.agent.start()
    world.programs.wait_for("samples wait in its outbox", lambda: len(world.waiting()) > 10)
    world.agent.stop()
    here, there = [seq for _, seq in world.stored()], [seq for (seq,) in world.waiting()]
    shown = [seq for seq in here if world.files_with("server", world.mark(seq))]
    assert shown
    assert all(world.files_with("cam-1", world.mark(seq)) for seq in there)

    world.command("erase", "--device", "cam-1", "--why", "its owner asked", "--json")
    done = json.loads(capsys.readouterr().out)
    assert done["counts"]["sample"] == len(here)
    assert [seq for seq in here if world.files_with("server", world.mark(seq))] == []
    assert world.files_with("server", b"cam-1.main.") == []

    world.configure(world.broker_url)
    world.agent.start()
    world.programs.wait_for("the device has purged", lambda: world.beat("cam-1").outbox.purged is not None)
    purged = world.beat("cam-1").outbox.purged
    old = {*here, *there}
    world.programs.wait_for("what is new is taken", lambda: len(world.stored()) > 3)
    fresh = {seq for _, seq in world.stored()}
    assert min(fresh) > purged.seq
    assert fresh.isdisjoint(old)
    assert [seq for seq in old if world.files_with("cam-1", world.mark(seq))] == []
    assert [seq for seq in old if world.files_with("server", world.mark(seq))] == []
    assert world.agent.stop() == 0
    outbox = world.beat("cam-1").outbox
    assert outbox.evicted["erased"] >= len(there) - len(here)
    assert outbox.put_total == outbox.acked_total + outbox.rows + outbox.parked + sum(outbox.evicted.values())
    world.command("audit", "verify")
    world.server.stop()
