"""Does what was kept survive a power cut, at any moment, on a disk that loses and tears what was not flushed?"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from power_cut import Disk, Flush
from sending import a_put, ids

from edge_agent.contract import artifact
from edge_agent.send.outbox import Outbox

recording = pytest.importorskip("recording", reason="needs apsw, of the extra `dev`")

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

    disk: Disk
    returned: list[tuple[int, Seen]]
    begun: int = 1  # the first event that the power may go after


def record(path: Path, synchronous: str) -> Recording:
    """A life of puts, receipts, refusals and evictions, a close and a second opening; through several checkpoints."""
    rng = np.random.default_rng(7)
    disk = Disk()
    vfs = recording.RecordingVfs(disk)
    returned, seq = [], 0
    for boot in (1, 2):
        outbox = Outbox(path, **LIMITS, connect=lambda at: recording.Connection(at, vfs, synchronous=synchronous))
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
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: the disk that is cut is ours, and need not be waited for."""
    ram = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=ram if ram.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def recorded(memory: Path) -> dict[str, Recording]:
    made = {}
    for synchronous in ("FULL", "NORMAL", "OFF"):
        (memory / synchronous).mkdir()
        made[synchronous] = record(memory / synchronous / "outbox.db", synchronous)
    return made


class Outcome(NamedTuple):
    """Of one power cut."""

    damaged: bool
    at_return: Seen  # how it stood when the last call returned
    at_next: Seen  # and how after the call that was cut
    found: Seen | None


def cut(recorded: Recording, memory: Path, *, seed: int) -> Outcome:
    """Let the power go at a random moment, and start again with Python's own SQLite."""
    rng = np.random.default_rng(seed)
    after = int(rng.integers(recorded.begun, len(recorded.disk.events) + 1))
    folder = Path(tempfile.mkdtemp(dir=memory))
    for name, content in recorded.disk.cut(after, rng).items():
        (folder / name).write_bytes(content)
    past = [state for events, state in recorded.returned if events <= after]
    coming = [state for events, state in recorded.returned if events > after]
    outbox = Outbox(folder / "outbox.db", **LIMITS)
    try:
        at_return = past[-1] if past else NOTHING
        return Outcome(bool(outbox.damage), at_return, coming[0] if coming else at_return, seen(outbox))
    finally:
        outbox.close()
        shutil.rmtree(folder)


def test_no_power_cut_loses_what_was_acknowledged_or_leaves_a_file_that_cannot_be_read(recorded, memory) -> None:
    for seed in range(CUTS):
        outcome = cut(recorded["FULL"], memory, seed=seed)
        assert not outcome.damaged, f"seed {seed}"
        assert outcome.found in (outcome.at_return, outcome.at_next), f"seed {seed}"


def test_a_second_power_cut_while_the_first_is_got_over_loses_nothing_either(recorded, memory) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        after = int(rng.integers(len(recorded["FULL"].disk.events) // 2, len(recorded["FULL"].disk.events) + 1))
        left = recorded["FULL"].disk.cut(after, rng)
        again = come_back(left, Path(tempfile.mkdtemp(dir=memory)))
        outcome = cut(again, memory, seed=seed)
        assert not outcome.damaged, f"seed {seed}"
        assert outcome.found in (outcome.at_return, outcome.at_next), f"seed {seed}"


def come_back(left: dict[str, bytes], folder: Path) -> Recording:
    """An outbox after a power cut: found, and put into."""
    for name, content in left.items():
        (folder / name).write_bytes(content)
    disk = Disk(left)
    vfs, begun = recording.RecordingVfs(disk), len(disk.events)
    outbox = Outbox(folder / "outbox.db", **LIMITS, connect=lambda at: recording.Connection(at, vfs))
    returned = [(0, seen(outbox))]
    for seq in range(3):
        outbox.put([a_put(seq, boot=3, size=9000)], state={"cursor": b"again %d" % seq})
        returned.append((len(disk.events), seen(outbox)))
    outbox.close()
    shutil.rmtree(folder)
    return Recording(disk, returned, begun)


def test_the_same_cuts_are_noticed_where_the_disk_is_not_waited_for(recorded, memory) -> None:
    """What makes the test above worth something: it fails for the settings that others recommend."""
    normal = [cut(recorded["NORMAL"], memory, seed=seed) for seed in range(40)]
    assert sum(outcome.found not in (outcome.at_return, outcome.at_next) for outcome in normal) > 5
    assert not any(outcome.damaged for outcome in normal)
    off = [cut(recorded["OFF"], memory, seed=seed) for seed in range(40)]
    assert sum(outcome.damaged for outcome in off) > 5


# --- small files: slots, boot numbers, what is on its way -------------------------------------------------------------


@pytest.fixture
def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replaced:
    """By write_durably, again and again."""
    rng = np.random.default_rng(3)
    made = Replaced(Disk(), [])
    files = recording.Files(made.disk)
    monkeypatch.setattr(artifact, "open", files.builtin_open, raising=False)
    monkeypatch.setattr(artifact, "os", files)
    monkeypatch.setattr(Path, "replace", lambda path, target: files.replace(path, target))
    for _ in range(20):
        content = rng.bytes(int(rng.integers(1, 3000)))
        artifact.write_durably(tmp_path / "slots.json", content)
        made.returned.append((len(made.disk.events), content))
    return made


class Replaced(NamedTuple):
    """The disk, and what the file held when each call returned: (events by then, content)."""

    disk: Disk
    returned: list[tuple[int, bytes]]

    def wrong_after(self, flushed: Callable[[Flush], bool]) -> int:
        """In how many power cuts, were those flushes all there are, the file is not as one of two calls left it."""
        rng, wrong = np.random.default_rng(0), 0
        for after in range(1, len(self.disk.events) + 1):
            part = Disk()
            part.events = [
                event for event in self.disk.events[:after] if not isinstance(event, Flush) or flushed(event)
            ]
            found = part.cut(len(part.events), rng).get("slots.json")
            past = [content for events, content in self.returned if events <= after]
            coming = [content for events, content in self.returned if events > after]
            wrong += found not in (past[-1] if past else None, coming[0] if coming else None)
        return wrong


def test_a_file_that_is_replaced_is_the_old_one_or_the_new_one(replaced: Replaced) -> None:
    assert replaced.wrong_after(lambda _flush: True) == 0
    assert replaced.wrong_after(lambda flush: flush.file == 0) > 0  # without a flush of the file
    assert replaced.wrong_after(lambda flush: flush.file != 0) > 0  # without one of the folder
