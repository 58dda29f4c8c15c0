"""While the store is slow receipts are late, devices keep what they have, and memory stays bounded."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from broker import Broker
from device_words import frames, image
from processes import Programs
from resending import Device

from server.store.schema import sample
from server.store.store import Store

pytestmark = pytest.mark.end_to_end

MB = 1 << 20
SENT_MB = 60  # many times the backlog, its groups, and what the allocator keeps
SLACK_MB = 24
CONFIG = """
[server]
data_dir = "server"
fleet = "test"
[broker]
url = "mqtt://127.0.0.1:{port}"
[collect]
backlog_bytes = 1000000
"""


def test_a_store_that_stands_still_costs_time_and_no_memory(tmp_path: Path) -> None:
    """The lock of writers is held by another connection, as a long transaction of another process would."""
    (tmp_path / "broker").mkdir()
    broker = Broker(tmp_path / "broker", options="max_queued_bytes 30000000\n")
    broker.start()
    (tmp_path / "server.toml").write_text(CONFIG.format(port=broker.port))
    store = Store.open(tmp_path / "server")
    devices = [Device(f"cam-{number}", broker.port) for number in range(4)]
    with Programs() as programs:
        worker = programs.run(tmp_path / "log", "server", "ingest", str(tmp_path / "server.toml"))
        programs.wait_for("it listens", lambda: "takes all" in worker.said())
        lock = sqlite3.connect(tmp_path / "server" / "catalogue.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        before = memory_mb(worker.pid)
        for one in devices:
            for n in range(20):
                one.waiting[f"{one.name}.main.1.{n}"] = frames(one.name, n, data=image(n, (3, 150, 150)))
        programs.wait_for("much is sent", lambda: sum(one.sent_bytes for one in devices) > SENT_MB * MB)
        assert [one.told for one in devices] == [[]] * 4
        assert memory_mb(worker.pid) - before < SLACK_MB
        lock.execute("ROLLBACK")
        lock.close()
        programs.wait_for("all receipted", lambda: not any(one.waiting for one in devices))
        assert memory_mb(worker.pid) - before < SLACK_MB
        worker.stop()
    with store.database.read() as connection:
        stored = sorted(connection.scalars(sa.select(sample.c.id)))
    assert stored == sorted(f"{one.name}.main.1.{n}" for one in devices for n in range(20))
    for one in devices:
        one.close()
    store.close()
    broker.kill()


def memory_mb(pid: int) -> float:
    """That is its own, in RAM."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024
