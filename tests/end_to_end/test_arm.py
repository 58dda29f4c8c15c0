"""Does the agent do on aarch64 what it does here? Under emulation of a Raspberry Pi 4, whose processor has no dot
products, and of a 5: its real dependencies for aarch64, a real broker outside, a real server.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from emulated import on_every_board, python
from processes import Programs, query
from quadrants import another, artifact, images, overflowing
from world import AGENT, SHARE, Served, expected

pytestmark = pytest.mark.timeout(900)
LONG_S = 240.0  # an emulated start takes 10 s of a processor that others may want
ROWS = 60_000  # more than is played
AS_HERE = 60  # selected samples, at least, that are held against what this machine selects
RINGS = """
[rollout]
soak_s = 0.5
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that knows the agent's model."""
    monkeypatch.chdir(tmp_path)
    artifact(tmp_path / "first")
    with Programs() as programs:
        yield Served(tmp_path, programs, settings=RINGS, before=[("model", "add", str(tmp_path / "first"))])


@on_every_board
def test_an_agent_selects_as_here_sends_and_changes_its_model(
    board: str, world: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(world.folder / "pi.npz", x=images(ROWS, seed=5)[0])
    settings = AGENT.format(name="pi", rate=100, share=SHARE, broker=world.broker_url, updates="true")
    # A bad model is to run, and be reverted; and emulated times say nothing.
    settings = settings.replace("shadow_samples = 20", "shadow_samples = 0\nmax_latency_ratio = 1000.0")
    world.start_agent("pi", settings, python=str(python(board, monkeypatch)))
    wait = world.programs.wait_for
    path = world.folder / "pi" / "status.json"

    def runs(version: int) -> bool:
        model = world.beat("pi").model if path.exists() else None
        return model is not None and (model.version, model.slot) == (version, "steady")

    def told(kind: str, version: int) -> bool:
        sql = f"select text from event where device = 'pi' and kind = '{kind}' and model_version = {version}"
        return bool(query(world.catalogue, sql))

    wait("the first model runs", lambda: runs(1), within_s=LONG_S)
    by_the_first = "select seq from sample where device = 'pi' and model_version = 1 order by seq"
    wait("it sends", lambda: len(query(world.catalogue, by_the_first)) >= AS_HERE, within_s=LONG_S)
    another(world.folder / "second", version=2)
    world.command("model", "add", str(world.folder / "second"))
    wait("a good model is committed", lambda: runs(2) and told("commit", 2), within_s=LONG_S)
    overflowing(world.folder / "third", version=3)
    world.command("model", "add", str(world.folder / "third"))
    wait("a bad one is reverted", lambda: told("revert", 3) and runs(2), within_s=LONG_S)
    selected = world.beat("pi").outbox.put_total
    count = "select count(*) from sample where device = 'pi'"
    wait("what was selected is stored", lambda: query(world.catalogue, count)[0][0] >= selected > 0, within_s=LONG_S)
    found = [seq for (seq,) in query(world.catalogue, by_the_first)]
    assert found == [seq for seq in expected("pi", ROWS, 5) if seq <= found[-1]]
