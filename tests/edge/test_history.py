"""Does the device know itself what became of its updates?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_agent.contract.wire import Event, Heartbeat, ModelState, OutboxState, StreamCounts, encode
from edge_agent.history import HISTORY, KEPT, History, Step, read
from edge_agent.status import STATUS, describe, read_status


def event(n: int, kind: str = "commit") -> Event:
    return Event(session="s", boot=1, n=n, at_ms=1_790_000_000_000 + n, kind=kind, text=f"step {n}", model_version=n)


def test_steps_of_updates_are_kept_with_their_reasons_over_a_restart(tmp_path: Path) -> None:
    History(tmp_path).add(event(1, "staged"))
    History(tmp_path).add(event(2, "alarm"))  # no step of an update
    History(tmp_path).add(event(3, "revert"))
    assert read(tmp_path) == [
        Step(1_790_000_000_001, "staged", 1, "step 1"),
        Step(1_790_000_000_003, "revert", 3, "step 3"),
    ]


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    for n in range(KEPT + 5):
        History(tmp_path).add(event(n))
    assert [step.version for step in read(tmp_path)] == list(range(5, KEPT + 5))


@pytest.mark.parametrize("content", [b"", b"not JSON", b'{"steps": 1}', b'[{"at_ms": "x"}]'])
def test_a_file_that_cannot_be_read_begins_afresh(tmp_path: Path, content: bytes) -> None:
    (tmp_path / HISTORY).write_bytes(content)
    assert read(tmp_path) == []
    History(tmp_path).add(event(1))
    assert len(read(tmp_path)) == 1


def test_a_disk_that_will_not_stops_nothing(tmp_path: Path) -> None:
    History(tmp_path / "missing").add(event(1))
    assert read(tmp_path / "missing") == []


def test_status_says_the_last_steps(tmp_path: Path) -> None:
    beat = Heartbeat(
        session="s",
        boot=1,
        at_ms=0,
        uptime_s=1.0,
        model=ModelState(version=1, sha256="", slot="steady"),
        counts=StreamCounts(read=0, scored=0, invalid=0, selected={}),
        outbox=OutboxState(rows=0, bytes=0),
        samples_per_s=1.0,
    )
    (tmp_path / STATUS).write_bytes(msgspec.json.format(encode(beat)))
    for n in range(1, 20):
        History(tmp_path).add(event(n))
    lines = describe(read_status(tmp_path)).splitlines()
    said = [line for line in lines if line.startswith("update ")]
    assert len(said) == 8
    assert said[-1] == "update     2026-09-21T14:13:20+00:00 commit: step 19"
