"""Somebody asks for more like one sample: a running agent finds them as they go by, and among what went by."""

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

ROWS = 40_000
RATE = 400

AGENT = """
[device]
name = "cam-1"
fleet = "test"
data_dir = "cam-1"
[source]
kind = "replay"
path = "stream.npz"
rate_per_s = {rate}
[model]
artifact = "first"
[budget]
label_share = 0.05
[recent]
bytes_per_day = 1e13
[uplink]
broker = "{broker}"
heartbeat_s = 0.3
[drift]
enabled = false
"""


def scenes() -> np.ndarray:
    """Images of which hardly two are alike: each with weaker ones behind it."""
    behind = sum(share * images(ROWS, seed=seed)[0] for share, seed in ((1.0, 5), (0.5, 6), (0.3, 7)))
    return np.clip(behind, 0, 255).astype(np.uint8)


class World:
    """A server that knows the model, and an agent on a stream."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalogue = folder / "server" / "catalogue.db"
        self.config = str(folder / "server.toml")
        artifact(folder / "first")
        np.savez(folder / "stream.npz", x=scenes())
        (folder / "server.toml").write_text(SERVER)
        assert main(["model", "add", str(folder / "first"), self.config]) == 0
        self.server = Program(folder / "server.log", "server", "run", self.config)
        url = folder / "server" / "broker.url"
        wait_for("the server listens", lambda: url.exists() and bool(url.read_text()), [self.server])
        (folder / "cam-1.toml").write_text(AGENT.format(rate=RATE, broker=url.read_text().strip()))
        self.agent = Program(folder / "cam-1.log", "edge_agent", "run", str(folder / "cam-1.toml"))

    def wait_for(self, what: str, true) -> None:
        wait_for(what, true, [self.agent, self.server])

    def stored(self, where: str) -> list[tuple]:
        columns = "id, seq, boot, predicted, probability, strategy"
        return query(self.catalogue, f"select {columns} from sample where {where} order by boot, seq")

    def said(self, capsys) -> dict:
        """The row of `winnow-server requests`."""
        capsys.readouterr()
        assert main(["requests", "--json", self.config]) == 0
        rows = json.loads(capsys.readouterr().out)
        return rows[0] if rows else {}

    def beat(self) -> Heartbeat:
        return msgspec.json.decode((self.folder / "cam-1" / "status.json").read_bytes(), type=Heartbeat)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        yield made
    finally:
        for program in (made.agent, made.server):
            if program.running():
                program.kill()


def test_more_like_one_sample_comes_from_the_stream_and_from_the_ring(world: World, capsys) -> None:
    clear = "confidence > 0.9 and predicted = 3 and seq > 1000"
    world.wait_for("samples and a ring", lambda: bool(world.stored(clear)))
    asked_for = world.stored(clear)[0][0]
    assert main(["request", asked_for, "--count", "500", "--similar", "0.8", world.config]) == 0
    assert "request 1: for cam-1" in capsys.readouterr().out
    world.wait_for("the ring was searched", lambda: world.said(capsys)["searched"] is not None)
    row = world.said(capsys)
    assert row["recalled"] > 0
    assert row["unsearchable"] == 0
    assert row["state"] == "looking out"
    world.wait_for("more goes by", lambda: world.said(capsys)["found"] > row["found"])

    world.agent.kill()
    known = world.said(capsys)["stored"]
    world.agent.start()
    world.wait_for("it looks on", lambda: world.said(capsys)["stored"] > known)
    assert main(["cancel-request", "1", world.config]) == 0
    world.wait_for("the agent has heard", lambda: world.beat().requests == ())
    assert world.said(capsys) == {}
    assert world.agent.stop() == 0

    found = world.stored("reason = 'requested'")
    assert len({boot for _, _, boot, *_ in found}) == 2
    assert all((probability, strategy) == (1.0, "request-1") for *_, probability, strategy in found)
    assert np.mean([predicted == 3 for _, _, _, predicted, _, _ in found]) > 0.9
    outbox = world.folder / "cam-1" / "outbox.db"
    ((put,),) = query(outbox, "select value from counter where name = 'put_total'")
    waiting = {id_ for (id_,) in query(outbox, "select id from sample")}
    assert put == len(waiting | {id_ for id_, *_ in world.stored("1 = 1")})  # nothing put twice, nothing lost
    world.server.stop()
