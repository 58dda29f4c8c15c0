"""Somebody asks for more like one sample: a running agent finds them as they go by, and among what went by."""

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


class World(Served):
    """A server that knows the model, and an agent on a stream."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        artifact(folder / "first")
        np.savez(folder / "stream.npz", x=scenes())
        super().__init__(folder, programs, before=[("model", "add", str(folder / "first"))])
        self.agent = self.start_agent("cam-1", AGENT.format(rate=RATE, broker=self.broker_url))

    def stored(self, where: str) -> list[tuple]:
        columns = "id, seq, boot, predicted, probability, strategy"
        return query(self.catalogue, f"select {columns} from sample where {where} order by boot, seq")

    def said(self, capsys) -> dict:
        """The row of `winnow-server requests`."""
        capsys.readouterr()
        self.command("requests", "--json")
        rows = json.loads(capsys.readouterr().out)
        return rows[0] if rows else {}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Programs() as programs:
        yield World(tmp_path, programs)


def test_more_like_one_sample_comes_from_the_stream_and_from_the_ring(world: World, capsys) -> None:
    clear = "confidence > 0.9 and predicted = 3 and seq > 1000"
    world.programs.wait_for("samples and a ring", lambda: bool(world.stored(clear)))
    asked_for = world.stored(clear)[0][0]
    world.command("request", asked_for, "--count", "500", "--similar", "0.8")
    assert "request 1: for cam-1" in capsys.readouterr().out
    world.programs.wait_for("the ring was searched", lambda: world.said(capsys)["searched"] is not None)
    row = world.said(capsys)
    assert row["recalled"] > 0
    assert row["unsearchable"] == 0
    assert row["state"] == "looking out"
    world.programs.wait_for("more goes by", lambda: world.said(capsys)["found"] > row["found"])

    world.agent.kill()
    known = world.said(capsys)["stored"]
    world.agent.start()
    world.programs.wait_for("it looks on", lambda: world.said(capsys)["stored"] > known)
    world.command("cancel-request", "1")
    world.programs.wait_for("the agent has heard", lambda: world.beat("cam-1").requests == ())
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
