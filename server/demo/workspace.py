"""Which files does the demo write before it starts?

The same that a user would: recordings, one agent.toml per device, one server.toml. All under `<out>/run`, which is made
anew by every run and stays to be looked at.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from edge_agent.config import AgentConfig, Choose, Device, Log, Source, Update, Uplink
from edge_agent.config import Budget as AgentBudget
from edge_agent.contract import settings
from models.data import Labelled
from server.config import Broker, Collect, Gates, Labeler, Rollout, Server, ServerConfig, Teach, Web
from server.demo.options import Options, Size
from server.demo.scenario import Scenario, Stream
from server.errors import ServerConfigError

MARK = ".winnow-demo"
FLEET = "demo"


class Workspace:
    """The folder of one run."""

    def __init__(self, out: Path) -> None:
        """Empty `<out>/run`; ServerConfigError when something else is there."""
        self.folder = (out / "run").resolve()  # configuration files take relative paths from their own folder
        if self.folder.exists():
            if not (self.folder / MARK).exists():
                raise ServerConfigError(f"{self.folder} is there, and not from a demo: choose another --out")
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        (self.folder / MARK).touch()
        self.server_toml = self.folder / "server.toml"
        self.server_data = self.folder / "server"

    def recording(self, name: str) -> Path:
        """Where an .npz stands."""
        return self.folder / f"{name}.npz"

    def agent_toml(self, device: str) -> Path:
        """Where a device's configuration stands."""
        return self.folder / f"{device}.toml"

    def agent_data(self, device: str) -> Path:
        """Where a device keeps its files."""
        return self.folder / device

    def log(self, name: str) -> Path:
        """Where a process writes what it says."""
        return self.folder / f"{name}.log"

    def write_data(self, scenario: Scenario) -> None:
        """base.npz and holdout.npz for the server; one recording per device, whose `y` only the oracle reads."""
        for name, data in (("base", scenario.base), ("holdout", scenario.holdout)):
            _save(self.recording(name), data)
        for stream in scenario.streams:
            _save(self.recording(stream.name), Labelled(stream.x, stream.y, scenario.names))

    def write_server(self, options: Options, size: Size, streams: list[Stream]) -> None:
        """server.toml."""
        expected = sum(len(stream.y) for stream in streams) * size.label_share
        config = ServerConfig(
            server=Server(fleet=FLEET, data_dir="server"),
            broker=Broker(plain=True),  # server and agents are one person's, on one machine
            collect=Collect(offline_after_s=10.0),
            labeler=Labeler(kind="oracle", files=tuple(f"{stream.name}.npz" for stream in streams)),
            teach=Teach(
                labels_per_round=max(10, int(size.taught * expected / size.rounds)),
                max_rounds=size.rounds,
                epochs=size.epochs,
                seed=options.seed,
            ),
            # Room for two more classes costs a point on the old ones, and so few held-out samples blur it by two more.
            gates=Gates(max_drop=0.05),
            rollout=Rollout(rings=(f"canary={streams[0].name}", "all"), soak_s=size.soak_s, timeout_s=60.0),
            web=Web(port=0),
        )
        self.server_toml.write_text(settings.show(config), encoding="utf-8")

    def write_agent(self, options: Options, size: Size, stream: Stream, *, broker: str, rate_per_s: float) -> None:
        """One agent.toml."""
        config = AgentConfig(
            device=Device(name=stream.name, fleet=FLEET, data_dir=stream.name),
            source=Source(kind="replay", path=f"{stream.name}.npz", rate_per_s=rate_per_s),
            budget=AgentBudget(label_share=size.label_share, bytes_per_day=100_000_000.0),
            uplink=Uplink(broker=broker, heartbeat_s=1.0),
            update=Update(
                # A short look at every sample, and no labels of its own: the report holds labels against labels.
                shadow_samples=size.probation_samples // 4,
                shadow_share=1.0,
                shadow_label_share=0.0,
                probation_samples=size.probation_samples,
                probation_s=1.0,
            ),
            choose=Choose(seed=options.seed),
            log=Log(predictions=True),
        )
        self.agent_toml(stream.name).write_text(settings.show(config), encoding="utf-8")


def _save(path: Path, data: Labelled) -> None:
    np.savez(path, x=data.x, y=data.y, names=np.array(data.names))
