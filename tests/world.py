"""A server and some agents, as processes on short streams; and what undisturbed agents would select of those."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from processes import Program, Programs, children_of, query
from quadrants import ARTIFACT, artifact, images

from edge_agent import parts
from edge_agent.choose.quantile import NoveltyQuantile
from edge_agent.config import AgentConfig, Budget, Device
from edge_agent.contract.types import Reading
from edge_agent.contract.wire import Heartbeat
from edge_agent.intake import Intake
from edge_agent.loop import Cursor, Loop
from edge_agent.model import Model
from edge_agent.orders import configured
from edge_agent.outgoing import Identity
from server.__main__ import main
from server.inventory import fleet
from server.store.store import Store

SHARE, DEPTH = 0.2, Budget().depth_labels

SERVER = """
[server]
data_dir = "server"
fleet = "test"
task = "classification"
[broker]
plain = true
[web]
port = 0
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
retry_max_s = 2.0
keepalive_s = 5
[update]
enabled = {updates}
shadow_samples = 20
shadow_share = 1.0
probation_samples = 20
probation_s = 0.5
[drift]
enabled = false  # its threshold goes by the clock, and an alarm would grant labels
"""


class Camera:
    """An agent that plays a stream of its own; kept apart from others by its seed."""

    def __init__(
        self, world: World, name: str, *, rows: int, rate: float, seed: int, broker: str, updates: bool, settings: str
    ) -> None:
        self.name = name
        self._world, self._rows, self._seed = world, rows, seed
        np.savez(world.folder / f"{name}.npz", x=images(rows, seed=seed)[0])
        text = AGENT.format(name=name, rate=rate, share=SHARE, broker=broker, updates=str(updates).lower())
        self.agent = world.start_agent(name, text + settings)

    @property
    def expected(self) -> list[int]:
        """The numbers of the samples that it would select, were it left alone."""
        return expected(self.name, self._rows, self._seed)

    def stored(self) -> list[int]:
        """The numbers of the samples that the server has of it; one that came under two ids stands twice."""
        sql = f"select seq from sample where device = '{self.name}' order by seq"
        return [seq for (seq,) in query(self._world.catalogue, sql)]

    def beat(self) -> Heartbeat:
        return self._world.beat(self.name)

    def done(self) -> bool:
        """All of it is stored, and the agent has said that it knows (in the file it writes every half second)."""
        if not (self._world.folder / self.name / "status.json").exists() or len(self.stored()) < len(self.expected):
            return False
        return self.beat().outbox.acked_total >= len(self.expected)


class Served:
    """A server, which has a broker of its own, and what runs beside it."""

    def __init__(
        self,
        folder: Path,
        programs: Programs,
        *,
        task: str = "classification",
        teach: str = "",
        settings: str = "",
        before: Sequence[Sequence[str]] = (),
    ) -> None:
        """`task`: of the models; `teach`: more of [teach], TOML; `settings`: further tables.

        `before`: words of commands that are given before it starts.
        """
        self.folder, self.programs = folder, programs
        self.catalogue = folder / "server" / "catalogue.db"
        self.config = str(folder / "server.toml")
        (folder / "server.toml").write_text(SERVER.replace("classification", task) + teach + settings)
        for words in before:
            self.command(*words)
        self.server = programs.run(folder / "server.log", "server", "run", self.config)
        url = folder / "server" / "broker.url"
        programs.wait_for("the server listens", lambda: url.exists() and bool(url.read_text()))
        self.broker_url = url.read_text().strip()

    def command(self, *words: str) -> None:
        """What somebody says at the server."""
        assert main([*words, self.config]) == 0

    def start_agent(self, name: str, settings: str, *, python: str = sys.executable) -> Program:
        """An agent with these settings, TOML; `python` runs it."""
        (self.folder / f"{name}.toml").write_text(settings)
        words = ("edge_agent", "run", str(self.folder / f"{name}.toml"))
        return self.programs.run(self.folder / f"{name}.log", *words, python=python)

    def beat(self, name: str) -> Heartbeat:
        """What an agent says of itself, in the file beside it."""
        return msgspec.json.decode((self.folder / name / "status.json").read_bytes(), type=Heartbeat)


class World(Served):
    """A server and agents that play streams."""

    def __init__(self, folder: Path, programs: Programs, *, settings: str = "", model: bool = False) -> None:
        """`model`: the server knows the agents' model."""
        self.cameras: list[Camera] = []
        artifact(folder / "first")
        before = [("model", "add", str(folder / "first"))] if model else []
        super().__init__(folder, programs, settings=settings, before=before)

    @property
    def pages_url(self) -> str:
        return (self.folder / "server" / "web.url").read_text().strip()

    def add(
        self,
        name: str,
        *,
        rows: int,
        rate: float,
        seed: int = 5,
        broker: str = "",
        updates: bool = False,
        settings: str = "",
    ) -> Camera:
        """Start an agent. `broker`: where it finds the broker, if not where it is; `settings`: further ones, TOML."""
        where = broker or self.broker_url
        camera = Camera(self, name, rows=rows, rate=rate, seed=seed, broker=where, updates=updates, settings=settings)
        self.cameras.append(camera)
        return camera

    def heard(self, name: str) -> Heartbeat | None:
        """The last heartbeat that the server has of an agent."""
        rows = query(self.catalogue, f"select heartbeat from device where name = '{name}'")
        return msgspec.json.decode(rows[0][0], type=Heartbeat) if rows and rows[0][0] else None

    def shown(self) -> list[dict[str, Any]]:
        """What `winnow-server devices` says."""
        store = Store.open(self.folder / "server")
        try:
            return fleet(store)
        finally:
            store.close()

    def brokers(self) -> list[int]:
        """The broker's process; none while it is being started."""
        return [pid for pid in children_of(self.server.pid) if _command(pid) == "mosquitto"]

    def wait(self, what: str, true: Callable[[], bool], *, within_s: float = 60.0) -> None:
        self.programs.wait_for(what, true, within_s=within_s)

    def finish(self, *, within_s: float = 90.0) -> None:
        self.wait("everything stored", lambda: all(camera.done() for camera in self.cameras), within_s=within_s)

    def stop(self) -> None:
        for program in reversed(self.programs):  # agents first
            program.stop()


@functools.cache
def expected(name: str, rows: int, seed: int) -> list[int]:
    """What an undisturbed agent of this name selects of this stream."""
    config = AgentConfig(device=Device(name=name), budget=Budget(label_share=SHARE))
    handed: list = []
    loop = Loop(
        Model(ARTIFACT),
        NoveltyQuantile(configured(config).rules, parts.make_chance(config)),
        identity=Identity(name, "main", 1),
        acquisition="margin",
        cursor=Cursor(),
        flush_s=0.2,
        hand_over=handed.append,
    )
    x = images(rows, seed=seed)[0]
    Intake(loop).run((Reading(row, seq) for seq, row in enumerate(x)), threading.Event())
    return [sample.id.seq for item in handed for sample in item.samples]


def most_over_share(selected: Sequence[int]) -> float:
    """By how many labels the worst window of a stream is over `SHARE` of its samples; `DEPTH` is allowed.

    >>> most_over_share([0, 1, 2, 50, 51])
    2.4
    """
    worst = since = 0.0
    before = -1
    for seq in selected:
        since = max(0.0, since - SHARE * (seq - before - 1)) + 1.0 - SHARE
        worst, before = max(worst, since), seq
    return worst


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""
