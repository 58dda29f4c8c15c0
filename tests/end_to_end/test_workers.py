"""Three processes take in what one fleet sends; each is killed in mid-stream, and nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from device_words import birth, event, frames, heartbeat, image
from processes import Programs, children_of, kill
from resending import Device

from edge_agent.contract.wire import encode
from server.config import load_config
from server.roles.workers import ENDED
from server.store import devices
from server.store.samples import body_names
from server.store.schema import event as event_table
from server.store.schema import part, sample
from server.store.store import Store

pytestmark = pytest.mark.end_to_end

WORKERS, DEVICES, SAMPLES, LARGE = 3, 6, 36, 3  # samples of each device, and how many of them come in parts
EVERY_S = 0.05  # between samples of a device

SERVER = """
[server]
data_dir = "server"
fleet = "test"
[broker]
plain = true
[teach]
enabled = false
[web]
enabled = false
[collect]
workers = {workers}
divide = "{divide}"
"""


class Fleet:
    """A server whose workers take in, and devices that feed it."""

    def __init__(self, folder: Path, programs: Programs, *, divide: str, store: str = "") -> None:
        config = folder / "server.toml"
        config.write_text(SERVER.format(workers=WORKERS, divide=divide) + store)
        self._programs = programs
        self.server = programs.run(folder / "server.log", "server", "run", str(config))
        programs.wait_for("all workers", lambda: self.server.said().count(": takes ") == WORKERS)
        settings = load_config(config)
        self.store = Store.open(Path(settings.server.data_dir), settings.store)
        port = int((folder / "server" / "broker.url").read_text().rsplit(":", 1)[1])
        self.devices = [Device(f"cam-{number}", port) for number in range(DEVICES)]

    def workers(self) -> list[int]:
        """Their processes, by number: those that are being started are left out."""
        found = {}
        for pid in children_of(self.server.pid):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            if "ingest" in words and "-c" not in words:
                found[words[words.index("--worker") + 1]] = pid
        return [found[name] for name in sorted(found)]

    def feed(self, seq: int) -> None:
        """Every device has a new sample; it says something else, too."""
        for one in self.devices:
            large = image(seq, (3, 300, 301)) if seq % (SAMPLES // LARGE) == 0 else None
            one.waiting[f"{one.name}.main.1.{seq}"] = frames(one.name, seq, data=large)
            one.tell("heartbeat", encode(heartbeat("s", uptime_s=float(seq))))

    def expected(self) -> list[str]:
        return sorted(f"{one.name}.main.1.{seq}" for one in self.devices for seq in range(SAMPLES))

    def rows(self, what: sa.Select) -> Sequence:
        with self.store.database.read() as connection:
            return connection.execute(what).all()

    def close(self) -> None:
        for one in self.devices:
            one.close()
        self.store.close()


@pytest.fixture
def programs() -> Iterator[Programs]:
    with Programs() as running:
        yield running


@pytest.mark.parametrize("divide", ["auto", "devices"])
def test_each_is_killed_in_mid_stream_and_nothing_is_lost_or_doubled(
    tmp_path: Path, programs: Programs, divide: str
) -> None:
    fleet = Fleet(tmp_path, programs, divide=divide)
    try:
        strike(fleet)
        programs.wait_for("all receipted", lambda: not any(one.waiting for one in fleet.devices))
        judge(fleet)
    finally:
        fleet.close()


def strike(fleet: Fleet) -> None:
    """Devices send; one worker after the other is killed meanwhile."""
    for one in fleet.devices:
        one.say("birth", encode(birth("s")))
    for seq in range(SAMPLES):
        fleet.feed(seq)
        time.sleep(EVERY_S)
        if seq % (SAMPLES // WORKERS) == SAMPLES // WORKERS // 2:
            kill(fleet.workers()[seq * WORKERS // SAMPLES % len(fleet.workers())])
        for one in fleet.devices:
            one.tell("event", encode(event(seq)))


def judge(fleet: Fleet) -> None:
    assert sorted(row.id for row in fleet.rows(sa.select(sample.c.id))) == fleet.expected()
    with fleet.store.database.read() as connection:
        for name in body_names(connection, fleet.expected()).values():
            fleet.store.blobs.get(name)
        for known in devices.devices(connection):
            assert (known.messages_bad, known.throttled) == (0, 0)
            assert known.heartbeat is not None
    assert fleet.rows(sa.select(part.c.sample_id)) == []
    said = fleet.rows(sa.select(event_table.c.device, event_table.c.n).where(event_table.c.device != ""))
    assert len(said) == len(set(said))
    ended = fleet.rows(sa.select(event_table.c.text).where(event_table.c.kind == ENDED))
    assert len(ended) == WORKERS
    assert all("was killed by SIGKILL" in text for (text,) in ended)
