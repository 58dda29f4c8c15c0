"""A fleet from `init` to the revocation of a device, with the real programs and what they print."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import Program, Programs, query
from quadrants import artifact, images

pytestmark = pytest.mark.end_to_end

RATE = 200
SOURCE = f"""
[source]
kind = "replay"
path = "stream.npz"
rate_per_s = {RATE}
[budget]
label_share = 0.2
depth_labels = 1.0
"""


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def call(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Fleet:
    """A server that knows its devices, and two of them."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self.folder, self.programs = folder, programs
        self.toml = str(folder / "farm" / "server.toml")
        self.said = call("server", "init", str(folder / "farm"), "--fleet", "farm")
        text = Path(self.toml).read_text()
        broker, web = free_ports(2)
        text = text.replace("8883", str(broker)).replace("8884", str(web)).replace("8080", "0")
        Path(self.toml).write_text(text + "[rollout]\nsoak_s = 0.5\n")
        self.server = programs.run(folder / "server.log", "server", "run", self.toml)
        programs.wait_for("devices may enrol", lambda: "devices enrol and renew" in self.server.said())
        self.catalogue = folder / "farm" / "data" / "catalogue.db"
        artifact(folder / "first")
        call("server", "model", "add", str(folder / "first"), self.toml)

    def enrol(self, name: str) -> Path:
        printed = call("server", "device", "enrol", name, self.toml)
        (token,) = re.findall(r"winnow-agent enrol '(winnow1\.[^']+)'", printed)
        folder = self.folder / name
        call("edge_agent", "enrol", token, "--dir", str(folder))
        np.savez(folder / "stream.npz", x=images(20_000, seed=5)[0])
        toml = folder / "agent.toml"
        text = re.sub(r"\[source\].*?(?=\[uplink\])", SOURCE.strip() + "\n", toml.read_text(), flags=re.S)
        toml.write_text(text.replace("[uplink]\n", "[uplink]\nheartbeat_s = 5\n"))
        return toml

    def start(self, toml: Path) -> Program:
        return self.programs.run(toml.with_suffix(".log"), "edge_agent", "run", str(toml))

    def stored(self, name: str) -> int:
        return query(self.catalogue, f"select count(*) from sample where device = '{name}'")[0][0]

    def row(self, name: str) -> dict:
        return next(row for row in json.loads(call("server", "devices", "--json", self.toml)) if row["device"] == name)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Programs() as programs:
        yield Fleet(tmp_path, programs)


def test_from_init_to_revocation(fleet: Fleet) -> None:
    assert "Next: winnow-server run" in fleet.said
    cam, other = fleet.enrol("cam-1"), fleet.enrol("cam-2")
    agents = [fleet.start(cam), fleet.start(other)]
    fleet.programs.wait_for("samples of both", lambda: fleet.stored("cam-1") > 3 and fleet.stored("cam-2") > 3)
    row = fleet.row("cam-1")
    assert (row["online"], row["revoked"], row["certificate_until"][:2]) == (True, False, "20")
    for toml, agent in zip((cam, other), agents, strict=True):  # the model came signed, and by HTTPS
        assert (toml.parent / "data" / "trust" / "trust.json").exists()
        assert "messages carry the blocks" not in agent.said()
    assert all("/files" in desired for (desired,) in query(fleet.catalogue, "select desired from device"))

    lost = agents[0].said().count("connection lost")  # a busy machine may lose one by itself
    call("server", "device", "revoke", "cam-1", "--exclude-samples", fleet.toml)
    fleet.programs.wait_for("it is cut off", lambda: agents[0].said().count("connection lost") > lost)
    before = fleet.stored("cam-1"), fleet.stored("cam-2")
    fleet.programs.wait_for("more of the other", lambda: fleet.stored("cam-2") > before[1] + 5)
    assert fleet.stored("cam-1") == before[0]
    row = fleet.row("cam-1")
    assert (row["online"], row["revoked"]) == (False, True)
    assert "connection lost" not in agents[1].said()

    fleet.server.stop()  # nor does another server let it in
    fleet.server.start()
    fleet.programs.wait_for("more of the other", lambda: fleet.stored("cam-2") > before[1] + 30)
    assert fleet.stored("cam-1") == before[0]


def test_a_server_that_was_not_told_who_may_come_in_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text('[server]\nfleet = "farm"\n')
    words = [sys.executable, "-m", "server", "run", str(tmp_path / "server.toml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, "winnow-server init" in done.stderr, "plain = true" in done.stderr) == (78, True, True)
