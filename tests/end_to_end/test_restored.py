"""A server whose disk breaks goes on from its backup: are all samples there that it had accepted, each once?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Programs, query
from world import World

from server.config import Store as Settings
from server.keep import restore
from server.store.store import Store

pytestmark = pytest.mark.end_to_end

ROWS, RATE = 1000, 300.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Programs() as programs:
        yield World(tmp_path, programs)


def accepted(world: World) -> dict[str, str]:
    """Id -> sha256 of the body."""
    return dict(query(world.catalogue, "select id, body_sha256 from sample"))


def check_bodies(folder: Path, expected: dict[str, str]) -> None:
    store = Store.open(folder)
    for sha256 in expected.values():
        assert hashlib.sha256(store.blobs.get(sha256)).hexdigest() == sha256
    store.close()


def test_no_accepted_sample_is_lost_with_a_last_backup_of_what_is_left(world: World, tmp_path: Path) -> None:
    """The machine dies, its disk can be read: what came since the last backup is added to it."""
    copy = tmp_path / "copy"
    cameras = [world.add(f"cam-{n}", rows=ROWS, rate=RATE, seed=n) for n in (1, 2)]
    world.wait("60 samples", lambda: len(accepted(world)) >= 60)
    early = accepted(world)
    world.command("backup", str(copy))  # while devices send
    restore.restore(copy, tmp_path / "early", Settings(), who="ann", why="to see", now_ms=0)
    there = dict(query(tmp_path / "early" / "catalogue.db", "select id, body_sha256 from sample"))
    assert early.items() <= there.items()  # what came while it was copied may be there too
    check_bodies(tmp_path / "early", there)
    world.wait("60 more", lambda: len(accepted(world)) >= 120)
    world.server.kill()
    before = accepted(world)
    world.command("backup", str(copy))
    (world.folder / "server").rename(tmp_path / "broken")
    world.command("restore", str(copy), "--why", "the machine died")
    assert accepted(world) == before
    check_bodies(world.folder / "server", before)
    world.server.start()
    world.finish()
    for camera in cameras:
        assert camera.stored() == camera.expected  # each once, none missing, none besides
    assert [row["missing"] for row in world.shown()] == [0, 0]
    world.command("audit", "verify")
    world.stop()
