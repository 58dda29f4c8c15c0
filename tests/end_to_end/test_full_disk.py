"""A device whose disk is full goes on inferring, and stores again by itself."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Programs
from world import World

pytestmark = pytest.mark.end_to_end

ROWS, RATE = 3500, 350.0
SETTINGS = """
[outbox]
min_free_disk_bytes = 0  # to the last byte
[recent]
max_bytes = 0
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Where the agent will keep all it has."""
    folder = tmp_path / "cam-1"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def world(tmp_path: Path, small_disk: Path) -> Iterator[World]:
    with Programs() as programs:
        yield World(tmp_path, programs)


def fill(folder: Path) -> None:
    """Take what is free, again when the agent has freed some."""
    with open(folder / "ballast", "ab", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(b"x" * 512):
            pass


def test_inference_goes_on_and_storing_resumes(world: World, small_disk: Path) -> None:
    camera = world.add("cam-1", rows=ROWS, rate=RATE, settings=SETTINGS)
    world.wait("60 samples", lambda: len(camera.stored()) >= 60)
    before = world.heard("cam-1")
    assert before is not None
    assert before.outbox.storing

    def went_on(samples: int, *, storing: bool) -> bool:
        if not storing:
            fill(small_disk)
        now = world.heard("cam-1")
        return now is not None and now.counts.read >= samples and now.outbox.storing is storing

    world.wait("a full disk", lambda: went_on(0, storing=False))
    full_at = world.heard("cam-1").counts.read
    world.wait("inference on a full disk", lambda: went_on(full_at + 500, storing=False))
    (small_disk / "ballast").unlink()
    world.wait("storing again", lambda: went_on(0, storing=True))

    def has_ended() -> bool:
        """The last block is read before what was selected of it is put."""
        now = world.heard("cam-1").outbox
        return went_on(ROWS, storing=True) and now.put_total == len(camera.expected) and not now.rows

    world.wait("the end", has_ended)
    outbox, stored = world.heard("cam-1").outbox, camera.stored()
    assert set(outbox.evicted) == {"disk"}
    assert len(stored) == len(set(stored)) == outbox.acked_total
    assert set(stored) < set(camera.expected)
    assert len(stored) + outbox.evicted["disk"] == outbox.put_total == len(camera.expected)
    said = camera.agent.said()
    assert "status cannot be written" in said
    assert "Traceback" not in said
    world.stop()
