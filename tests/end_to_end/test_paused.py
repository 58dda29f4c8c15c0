"""An operator pauses the uploads of a running agent: nothing goes, nothing is lost, and a restart changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from processes import Program, query, wait_for
from quadrants import artifact, images
from world import SERVER

from edge_agent.contract.wire import Heartbeat
from server.__main__ import main

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
[model]
artifact = "first"
[budget]
label_share = 0.2
[uplink]
broker = "{broker}"
heartbeat_s = 0.3
[drift]
enabled = false
"""


class World:
    """A server, and an agent on a stream."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = str(folder / "server.toml")
        artifact(folder / "first")
        np.savez(folder / "stream.npz", x=images(20_000, seed=5)[0])
        (folder / "server.toml").write_text(SERVER)
        assert main(["model", "add", str(folder / "first"), self.config]) == 0
        self.server = Program(folder / "server.log", "server", "run", self.config)
        url = folder / "server" / "broker.url"
        wait_for("the server listens", lambda: url.exists() and bool(url.read_text()), [self.server])
        (folder / "cam-1.toml").write_text(AGENT.format(broker=url.read_text().strip()))
        self.agent = Program(folder / "cam-1.log", "edge_agent", "run", str(folder / "cam-1.toml"))

    def wait_for(self, what: str, true) -> None:
        wait_for(what, true, [self.agent, self.server])

    def stored(self) -> int:
        return query(self.folder / "server" / "catalogue.db", "select count(*) from sample")[0][0]

    def beat(self) -> Heartbeat:
        return msgspec.json.decode((self.folder / "cam-1" / "status.json").read_bytes(), type=Heartbeat)

    def orders(self, capsys) -> dict[str, bool | None]:
        capsys.readouterr()
        assert main(["device", "orders", "--json", self.config]) == 0
        return {row["word"]: row["obeyed"] for row in json.loads(capsys.readouterr().out)}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        yield made
    finally:
        for program in (made.agent, made.server):
            if program.running():
                program.kill()


def test_a_pause_holds_samples_also_after_a_restart_and_a_resume_lets_them_go(world: World, capsys) -> None:
    world.wait_for("samples", lambda: world.stored() > 5)
    assert main(["device", "pause", "all", "--why", "moving", "--by", "anna", world.config]) == 0
    assert main(["device", "budget", "cam-1", "--label-share", "0.4", "--labels-per-day", "900", world.config]) == 0
    world.wait_for("it obeys", lambda: world.orders(capsys) == {"pause": True, "budget": True})
    world.wait_for("what was under way is settled", lambda: world.beat().link.held == "paused")
    stored, put = world.stored(), world.beat().outbox.put_total
    world.wait_for("it goes on selecting", lambda: world.beat().outbox.put_total > put + 10)
    assert world.stored() == stored

    world.agent.kill()
    boot = world.beat().boot
    world.agent.start()
    world.wait_for("it runs again", lambda: world.beat().boot > boot and world.beat().counts.read > 400)
    assert world.beat().link.held == "paused"
    assert (world.beat().budgets.label_share, world.beat().budgets.labels_per_day) == (0.4, 900.0)
    assert world.stored() == stored

    assert main(["device", "resume", "cam-1", "--by", "ben", world.config]) == 0
    world.wait_for("all that waited arrives", lambda: world.stored() >= put + 10)
    assert world.agent.stop() == 0
    said = world.beat().outbox
    assert said.put_total == said.rows + said.acked_total + sum(said.evicted.values())
