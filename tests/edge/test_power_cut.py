"""Does what was put survive a power cut, at any moment, on a disk that loses and tears what was not flushed?"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from sending import a_put, ids

from edge_agent.send.outbox import Outbox

power_cut = pytest.importorskip("power_cut", reason="needs apsw, of the extra `dev`")

CUTS = 150
LIMITS = {"max_bytes": 900_000, "max_rows": 60, "min_free_disk_bytes": 0}


class Seen(NamedTuple):
    """All that an outbox tells of itself. Of two that are alike, nobody could tell which is which."""

    waiting: tuple[str, ...]
    parked: tuple[tuple[str, str], ...]
    put: int
    acked: int
    evicted: dict[str, int]
    cursor: bytes | None


def seen(outbox: Outbox) -> Seen:
    """Of rows whose bodies are whole."""
    status, found = outbox.status(), outbox.peek(1000)
    assert all(hashlib.sha256(waiting.body).hexdigest() == waiting.header.body_sha256 for waiting in found)
    assert status.put_total == len(found) + status.parked + status.acked_total + sum(status.evicted.values())
    return Seen(
        tuple(ids(found)),
        tuple(outbox.parked()),
        status.put_total,
        status.acked_total,
        status.evicted,
        outbox.state("cursor"),
    )


NOTHING = Seen((), (), 0, 0, {}, None)


class Recording(NamedTuple):
    """The disk, and how the outbox stood when each call returned: (events by then, what was seen)."""

    disk: power_cut.Disk
    returned: list[tuple[int, Seen]]


def record(path: Path, synchronous: str) -> Recording:
    """A life of puts, receipts, refusals and evictions, a close and a second opening; through several checkpoints."""
    rng = np.random.default_rng(7)
    disk = power_cut.Disk()
    vfs = power_cut.RecordingVfs(disk)
    returned, seq = [], 0
    for boot in (1, 2):
        outbox = Outbox(path, **LIMITS, connect=lambda at: power_cut.Connection(at, vfs, synchronous=synchronous))
        for _ in range(60):
            numbers = range(seq, seq + int(rng.integers(0, 11)))
            size, label = int(rng.integers(50, 30_000)), int(rng.integers(4))
            rows = [a_put(n, boot=boot, size=size, utility=rng.random(), label=label) for n in numbers]
            seq += len(rows)
            outbox.put(rows, state={"cursor": b"%d" % seq})
            returned.append((len(disk.events), seen(outbox)))
            if rng.random() < 0.3:
                outbox.ack(ids(outbox.peek(int(rng.integers(1, 20)))))
                returned.append((len(disk.events), seen(outbox)))
            if rng.random() < 0.1 and (first := ids(outbox.peek(1))):
                outbox.park(first[0], "no")
                returned.append((len(disk.events), seen(outbox)))
        outbox.close()
        returned.append((len(disk.events), returned[-1][1]))
    return Recording(disk, returned)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory):
    made = {}
    for synchronous in ("FULL", "NORMAL", "OFF"):
        made[synchronous] = record(tmp_path_factory.mktemp("recorded") / "outbox.db", synchronous)
    return made


class Outcome(NamedTuple):
    """Of one power cut."""

    damaged: bool
    at_return: Seen  # how it stood when the last call returned
    at_next: Seen  # and how after the call that was cut
    found: Seen | None


def cut(recording: Recording, folder: Path, *, seed: int) -> Outcome:
    """Let the power go at a random moment, and start again with Python's own SQLite."""
    rng = np.random.default_rng(seed)
    after = int(rng.integers(1, len(recording.disk.events) + 1))
    folder.mkdir()
    for name, content in recording.disk.cut(after, rng).items():
        (folder / name).write_bytes(content)
    past = [state for events, state in recording.returned if events <= after]
    coming = [state for events, state in recording.returned if events > after]
    outbox = Outbox(folder / "outbox.db", **LIMITS)
    try:
        at_return = past[-1] if past else NOTHING
        return Outcome(bool(outbox.damage), at_return, coming[0] if coming else at_return, seen(outbox))
    finally:
        outbox.close()


def test_no_power_cut_loses_what_was_acknowledged_or_leaves_a_file_that_cannot_be_read(recorded, tmp_path) -> None:
    for seed in range(CUTS):
        outcome = cut(recorded["FULL"], tmp_path / str(seed), seed=seed)
        assert not outcome.damaged, f"seed {seed}"
        assert outcome.found in (outcome.at_return, outcome.at_next), f"seed {seed}"


def test_the_same_cuts_are_noticed_where_the_disk_is_not_waited_for(recorded, tmp_path) -> None:
    """What makes the test above worth something: it fails for the settings that others recommend."""
    normal = [cut(recorded["NORMAL"], tmp_path / f"n{seed}", seed=seed) for seed in range(40)]
    assert sum(outcome.found not in (outcome.at_return, outcome.at_next) for outcome in normal) > 5
    assert not any(outcome.damaged for outcome in normal)
    off = [cut(recorded["OFF"], tmp_path / f"o{seed}", seed=seed) for seed in range(40)]
    assert sum(outcome.damaged for outcome in off) > 5
