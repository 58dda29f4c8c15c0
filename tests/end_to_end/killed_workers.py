"""Is anything lost or doubled when the processes that take in are killed, one after the other, in mid-stream?

A server with three of them, and light devices that send small samples and large ones, heartbeats and events. In the end
what is stored is exactly what the devices sent, each of them has its receipts, and each end of a worker was said.

Longer than the test in `test_killed_workers.py`; with a file, and with PostgreSQL where it is here:

    python tests/end_to_end/killed_workers.py [--seconds 120]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

if __name__ == "__main__":  # pytest does it for the test
    sys.path[:0] = [str(Path(__file__).parents[depth]) for depth in (0, 1, 2)]

import postgres
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

WORKERS, DEVICES = 3, 6
LARGE_EVERY = 12  # samples, one comes in parts
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
        self.programs = programs
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

    def kill(self, turn: int) -> None:
        """One that is there, the next one each time."""
        self.programs.wait_for("a worker", self.workers)
        there = self.workers()
        kill(there[turn % len(there)])

    def feed(self, seq: int) -> None:
        """Every device has a new sample; it says something else, too."""
        for one in self.devices:
            large = image(seq, (3, 300, 301)) if seq % LARGE_EVERY == 0 else None
            one.waiting[f"{one.name}.main.1.{seq}"] = frames(one.name, seq, data=large)
            one.tell("heartbeat", encode(heartbeat("s", uptime_s=float(seq))))

    def expected(self, samples: int) -> list[str]:
        return sorted(f"{one.name}.main.1.{seq}" for one in self.devices for seq in range(samples))

    def rows(self, what: sa.Select) -> Sequence:
        with self.store.database.read() as connection:
            return connection.execute(what).all()

    def close(self) -> None:
        for one in self.devices:
            one.close()
        self.store.close()


def strike(fleet: Fleet, samples: int, kills: int) -> None:
    """Devices send; one worker after the other is killed meanwhile."""
    every = samples // kills
    for one in fleet.devices:
        one.say("birth", encode(birth("s")))
    for seq in range(samples):
        fleet.feed(seq)
        time.sleep(EVERY_S)
        if seq % every == every // 2 and seq // every < kills:
            fleet.kill(seq // every)
        for one in fleet.devices:
            one.tell("event", encode(event(seq)))


def judge(fleet: Fleet, samples: int, kills: int) -> None:
    assert sorted(row.id for row in fleet.rows(sa.select(sample.c.id))) == fleet.expected(samples)
    with fleet.store.database.read() as connection:
        for name in body_names(connection, fleet.expected(samples)).values():
            fleet.store.blobs.get(name)
        for known in devices.devices(connection):
            assert (known.messages_bad, known.throttled) == (0, 0)
            assert known.heartbeat is not None
    assert fleet.rows(sa.select(part.c.sample_id)) == []
    said = fleet.rows(sa.select(event_table.c.device, event_table.c.n).where(event_table.c.device != ""))
    assert len(said) == len(set(said))
    ended = fleet.rows(sa.select(event_table.c.text).where(event_table.c.kind == ENDED))
    assert len(ended) == kills
    assert all("was killed by SIGKILL" in text for (text,) in ended)


def run(folder: Path, *, engine: str, divide: str, samples: int, kills: int) -> None:
    """One run; AssertionError when something does not hold."""
    with ExitStack() as stack:
        store = ""
        if engine == "postgresql":
            server = stack.enter_context(postgres.running())
            server.create("winnow")
            store = f'[store]\nurl = "{server.settings("winnow").url}"\n'
        programs = stack.enter_context(Programs())
        fleet = Fleet(folder, programs, divide=divide, store=store)
        stack.callback(fleet.close)
        strike(fleet, samples, kills)
        programs.wait_for("all receipted", lambda: not any(one.waiting for one in fleet.devices), within_s=120.0)
        judge(fleet, samples, kills)


def main(say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="of sending, of all runs together")
    samples = int(parser.parse_args().seconds / 4 / EVERY_S)
    for engine in ["sqlite", *([] if postgres.WHY_NOT else ["postgresql"])]:
        for divide in ("auto", "devices"):
            kills = max(WORKERS, samples // 60)
            with tempfile.TemporaryDirectory() as folder:
                run(Path(folder), engine=engine, divide=divide, samples=samples, kills=kills)
            say(f"{engine}, {divide}: {samples} samples of {DEVICES} devices, {kills} workers killed: none lost")


if __name__ == "__main__":
    main()
