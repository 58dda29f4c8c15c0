"""Kill -9 the agent, the server and the broker in mid-stream: what is stored in the end is what would have been."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from processes import Program, children_of, kill, query, wait_for
from quadrants import ARTIFACT, artifact, images

from edge_agent.choose.selector import Selector
from edge_agent.config import AgentConfig, Budget, Device
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import Heartbeat
from edge_agent.loop import Cursor, Identity, Loop
from edge_agent.model import Model
from edge_agent.orders import configured

pytestmark = pytest.mark.end_to_end

ROWS = 3000
RATE = 300
SHARE = 0.2

SERVER = """
[server]
data_dir = "server"
fleet = "test"
[broker]
plain = true
[teach]
enabled = false
"""

AGENT = """
[device]
name = "{name}"
fleet = "test"
data_dir = "{name}"
[source]
kind = "replay"
path = "{name}.npz"
rate_per_s = {rate}
[model]
artifact = "first"
[budget]
label_share = {share}
[uplink]
broker = "{broker}"
heartbeat_s = 0.5
retry_first_s = 0.2
[update]
enabled = false
[drift]
enabled = false  # its threshold goes by the clock, and an alarm would grant labels
"""


class World:
    """A server and one agent on a short stream."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalogue = folder / "server" / "catalogue.db"
        artifact(folder / "first")
        np.savez(folder / "cam-1.npz", x=images(ROWS, seed=5)[0])
        (folder / "server.toml").write_text(SERVER)
        self.server = Program(folder / "server.log", "server", "run", str(folder / "server.toml"))
        url = folder / "server" / "broker.url"
        wait_for("the server listens", lambda: url.exists() and bool(url.read_text()), [self.server])
        text = AGENT.format(name="cam-1", rate=RATE, share=SHARE, broker=url.read_text().strip())
        (folder / "cam-1.toml").write_text(text)
        self.agent = Program(folder / "cam-1.log", "edge_agent", "run", str(folder / "cam-1.toml"))

    def stored(self) -> list[int]:
        return [seq for (seq,) in query(self.catalogue, "select seq from sample order by seq")]

    def beat(self) -> Heartbeat:
        return msgspec.json.decode((self.folder / "cam-1" / "status.json").read_bytes(), type=Heartbeat)

    def done(self) -> bool:
        """All of it is stored, and the agent has said that it knows (it writes its status every two seconds)."""
        if not (self.folder / "cam-1" / "status.json").exists() or len(self.stored()) < len(expected()):
            return False
        return self.beat().outbox.acked_total >= len(expected())

    def wait_for_samples(self, count: int) -> None:
        wait_for(f"{count} samples", lambda: len(self.stored()) >= count, [self.agent, self.server])

    def finish(self) -> None:
        wait_for("everything stored", self.done, [self.agent, self.server], within_s=90)

    def stop(self) -> None:
        self.agent.stop()
        self.server.stop()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        yield made
    finally:
        for program in (made.agent, made.server):
            if program.running():
                program.kill()


@functools.cache
def expected() -> list[int]:
    """What an undisturbed agent selects of this stream."""
    config = AgentConfig(device=Device(name="cam-1"), budget=Budget(label_share=SHARE))
    handed: list = []
    loop = Loop(
        Model(ARTIFACT),
        Selector(configured(config).rules, np.random.default_rng(config.choose.seed)),
        identity=Identity("cam-1", "main", 1),
        acquisition="margin",
        cursor=Cursor(),
        flush_s=0.2,
        hand_over=handed.append,
    )
    x = images(ROWS, seed=5)[0]
    loop.run((Reading(row, seq) for seq, row in enumerate(x)), threading.Event())
    return [sample.id.seq for item in handed for sample in item.samples]


@pytest.mark.parametrize("victims", [("agent",), ("server",), ("broker",), ("agent", "broker", "server", "agent")])
def test_what_is_stored_is_what_an_undisturbed_agent_selects(world: World, victims: tuple[str, ...]) -> None:
    for turn, victim in enumerate(victims, start=1):
        world.wait_for_samples(60 * turn)
        if victim == "broker":
            kill(broker_of(world.server))
            continue
        program: Program = getattr(world, victim)
        program.kill()
        program.start()
    world.finish()
    assert world.stored() == expected()  # each once, none missing, none besides
    outbox = world.beat().outbox
    assert (outbox.put_total, outbox.acked_total, outbox.evicted) == (len(expected()), len(expected()), {})
    world.stop()


def broker_of(server: Program) -> int:
    found = [pid for pid in children_of(server.pid) if Path(f"/proc/{pid}/comm").read_text().strip() == "mosquitto"]
    assert len(found) == 1
    return found[0]


def test_the_programs_end_within_five_seconds_and_leave_nobody_behind(world: World) -> None:
    world.wait_for_samples(20)
    family = [*children_of(world.server.pid), *children_of(world.agent.pid)]
    assert family
    assert world.agent.stop(within_s=5) == 0
    assert world.server.stop(within_s=5) == 0
    wait_for("everybody has gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), within_s=5)


def test_a_killed_server_takes_its_broker_along(world: World) -> None:
    broker = broker_of(world.server)
    world.server.kill()
    wait_for("the broker has gone", lambda: not Path(f"/proc/{broker}").exists(), within_s=5)
