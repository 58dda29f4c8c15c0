"""Kill -9 the agent, the server and the broker in mid-stream: what is stored in the end is what would have been."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Program, Programs, children_of, kill, query, wait_for
from world import Camera, World

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Programs() as programs:
        yield World(tmp_path, programs)


@pytest.fixture
def camera(world: World) -> Camera:
    return world.add("cam-1", rows=3000, rate=300)


def wait_for_samples(world: World, camera: Camera, count: int) -> None:
    world.wait(f"{count} samples", lambda: len(camera.stored()) >= count)


@pytest.mark.parametrize("victims", [("agent",), ("server",), ("broker",), ("agent", "broker", "server", "agent")])
def test_what_is_stored_is_what_an_undisturbed_agent_selects(
    world: World, camera: Camera, victims: tuple[str, ...]
) -> None:
    for turn, victim in enumerate(victims, start=1):
        wait_for_samples(world, camera, 60 * turn)
        if victim == "broker":
            (broker,) = world.brokers()
            kill(broker)
            continue
        program: Program = camera.agent if victim == "agent" else world.server
        program.kill()
        program.start()
    world.finish()
    assert camera.stored() == camera.expected  # each once, none missing, none besides
    outbox, count = camera.beat().outbox, len(camera.expected)
    assert (outbox.put_total, outbox.acked_total, outbox.evicted) == (count, count, {})
    world.stop()


def test_what_went_with_a_damaged_outbox_is_counted_and_said(world: World) -> None:
    camera = world.add("cam-1", rows=1500, rate=300)
    wait_for_samples(world, camera, 40)
    world.server.kill()
    outbox = world.folder / "cam-1" / "outbox.db"
    waiting = "select count(*) from sample"
    world.wait("samples that wait", lambda: query(outbox, waiting)[0][0] >= 40)
    camera.agent.kill()
    (held,) = query(outbox, waiting)[0]
    damage(outbox)
    before = len(camera.stored())
    world.server.start()
    camera.agent.start()
    world.wait("all of it again", lambda: len(camera.stored()) == before + len(camera.expected))
    world.wait("and known", lambda: world.heard("cam-1").outbox.rows == 0)
    assert world.heard("cam-1").outbox.evicted == {"damaged": held}
    said = "select text from event where kind = 'error'"
    world.wait("and why", lambda: query(world.catalogue, said))  # it comes in a message of its own
    ((text,),) = query(world.catalogue, said)
    assert "outbox" in text
    assert "set aside" in text
    (row,) = world.shown()
    assert 0 < row["missing"] <= held  # some may have arrived, their receipts not


def damage(outbox: Path) -> None:
    """The pages that hold the samples; the counters can be read."""
    with contextlib.closing(sqlite3.connect(outbox)) as db:
        db.execute("pragma wal_checkpoint(truncate)")
        (root,) = db.execute("select rootpage from sqlite_master where name = 'sample'").fetchone()
    with open(outbox, "r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)


def test_the_programs_end_within_five_seconds_and_leave_nobody_behind(world: World, camera: Camera) -> None:
    wait_for_samples(world, camera, 20)
    family = [*children_of(world.server.pid), *children_of(camera.agent.pid)]
    assert family
    assert camera.agent.stop(within_s=5) == 0
    assert world.server.stop(within_s=5) == 0
    wait_for("everybody has gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), within_s=5)


def test_a_killed_server_takes_its_broker_along(world: World) -> None:
    (broker,) = world.brokers()
    world.server.kill()
    wait_for("the broker has gone", lambda: not Path(f"/proc/{broker}").exists(), within_s=5)
