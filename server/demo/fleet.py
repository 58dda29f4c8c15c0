"""Who runs during the demo?

The server, with its broker, and one agent per device: the programs that a user would start, as processes of their own.
None outlives the demo, however it ends.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from server import launch
from server.child import end, spawn
from server.demo.stage import Advance
from server.demo.workspace import Workspace
from server.errors import ServerError

LOOK_S = 0.1
STOP_S = 4.0  # of the five that Ctrl-C may take
QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""One thread of numpy's and torch's libraries each: the demo's processes share a small machine."""


class Fleet:
    """The processes; ends them on the way out."""

    def __init__(self, workspace: Workspace) -> None:
        """Nothing is started yet."""
        self._workspace = workspace
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Fleet:
        """Use it in a `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End whatever runs."""
        agents = list(self._agents.values())
        end([*agents, self._server] if self._server else agents, within_s=STOP_S)

    def start_server(self, *, within_s: float = 30.0) -> tuple[str, str]:
        """Start `winnow-server run`; returns the addresses of broker and pages once both listen."""
        folder, log = self._workspace.server_data, self._workspace.log("server")
        launch.forget(folder)
        self._server = launch.start(self._workspace.server_toml, log, environment=QUIET)
        return launch.wait(folder, log, check=self.check, within_s=within_s)

    def start_agent(self, device: str) -> None:
        """Start `winnow-agent run`."""
        argv = [sys.executable, "-m", "edge_agent", "run", str(self._workspace.agent_toml(device))]
        self._agents[device] = self._start(device, argv)

    def stop_agents(self) -> None:
        """End the agents; they finish what is in hand."""
        end(list(self._agents.values()), within_s=STOP_S)
        self._agents.clear()

    def stop_server(self) -> None:
        """End the server."""
        if self._server:
            end([self._server], within_s=STOP_S)
        self._server = None

    def check(self) -> None:
        """ServerError when one of them has died."""
        running = {**self._agents, **({"server": self._server} if self._server else {})}
        for name, process in running.items():
            if (code := process.poll()) is not None:
                log = self._workspace.log(name)
                raise ServerError(f"{name} ended with {code}: {launch.tail(log)} (see {log})")

    def _start(self, name: str, argv: list[str]) -> subprocess.Popen[bytes]:
        with open(self._workspace.log(name), "wb") as log:
            return spawn(argv, output=log, environment=QUIET)


def call(workspace: Workspace, *words: str, advance: Advance = lambda _: None) -> None:
    """Run one `winnow-server` command to its end; ServerError with its last line when it fails."""
    with open(workspace.log("setup"), "ab") as log:
        child = spawn([sys.executable, "-m", "server", *words], output=log)
        try:
            while (code := child.poll()) is None:
                time.sleep(LOOK_S)
                advance(_epochs_done(workspace.log("setup")))
        finally:
            end([child], within_s=STOP_S)
    if code:
        raise ServerError(f"winnow-server {' '.join(words)} ended with {code}: {launch.tail(workspace.log('setup'))}")


def _epochs_done(log: Path) -> float:
    """Of the training that writes this log, 0..1."""
    said = re.findall(r"epoch (\d+)/(\d+)", log.read_text(errors="replace"))
    return int(said[-1][0]) / int(said[-1][1]) if said else 0.0
