"""Is a server in parts the same server, and does it outlive the process that leads?"""

from __future__ import annotations

import io
import json
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import postgres
import pytest
import quadrants
from broker import Broker
from device_words import frames
from fetching import Device
from processes import Program, Programs

from server.__main__ import main
from server.config import load_config
from server.errors import ServerError
from server.store import users
from server.store.leadership import SEATS
from server.store.lock import one_server
from server.store.presence import leader
from server.store.store import Store
from server.store.users import Role

pytestmark = pytest.mark.end_to_end

SETTINGS = """
[server]
fleet = "test"
data_dir = "data"
lease_s = 10.0
[store]
url = "{catalogue}"
[broker]
url = "{broker}"
[web]
port = 0
[labeler]
kind = "human"
blind_share = 0.0
gold_share = 0.0
overlap_share = 0.0
[teach]
labels_per_round = 1000
epochs = 2
[rollout]
rings = ["all"]
soak_s = 0.5
"""
PATIENCE_S = 150.0  # five processes at once on two cores
CLASSES = ["a", "b", "c", "d"]


class Parts:
    """The processes of one server, on one machine."""

    def __init__(self, folder: Path, broker: Broker, programs: Programs, *, catalogue: str = "") -> None:
        """`catalogue`: its URL; empty: SQLite."""
        self.folder, self.programs = folder, programs
        self.url = f"mqtt://{broker.host}:{broker.port}"
        self.config = str(folder / "server.toml")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.health: int = probe.getsockname()[1]
        (folder / "server.toml").write_text(SETTINGS.format(broker=self.url, catalogue=catalogue))
        self.store = Store.open(folder / "data", load_config(folder / "server.toml").store)

    def start(self, name: str, *words: str) -> Program:
        return self.programs.run(self.folder / f"{name}.log", "server", *words, self.config)

    def say(self, *words: str) -> str:
        """In this process: one of its own takes a second only to begin."""
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main([*words, self.config])
        assert code == 0, err.getvalue()
        return out.getvalue()

    def token(self, name: str, role: Role) -> str:
        with self.store.database.write() as connection:
            users.add(connection, name, role, password_hash="", by="test", now_ms=1)
        return self.say("user", "token", name, "--name", "test").split()[-1]

    def read(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/{path}", timeout=20) as answer:
            return json.load(answer)

    def query(self, sql: str) -> list[tuple]:
        with self.store.database.read() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql)]

    def wait(self, what: str, sql: str, rows: list[tuple]) -> None:
        self.programs.wait_for(what, lambda: self.query(sql) == rows, within_s=PATIENCE_S)

    def post(self, token: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{(self.folder / 'data' / 'web.url').read_text()}api/v1/{path}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


@pytest.fixture
def parts(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Parts]:
    with ExitStack() as stack:
        catalogue = ""
        if request.config.getoption("--catalogue") == "postgresql":
            server = stack.enter_context(postgres.running())
            server.create("parts")
            catalogue = server.settings("parts").url
        broker = Broker(tmp_path)
        broker.start()
        stack.callback(broker.kill)
        made = Parts(tmp_path, broker, stack.enter_context(Programs()), catalogue=catalogue)
        stack.callback(made.store.close)
        yield made


LED = "select holder <> '', term from leadership where name = '{}'"


def test_a_fleet_is_taught_by_processes_of_one_part_each_and_who_leads_is_killed(parts: Parts) -> None:
    x, y = quadrants.images(240, seed=1)
    for split, part in (("train", slice(0, 160)), ("holdout", slice(160, 240))):
        np.savez(parts.folder / f"{split}.npz", x=x[part], y=y[part], names=np.array(CLASSES))
        parts.say("data", "import", str(parts.folder / f"{split}.npz"), "--split", split)
    token = parts.token("ann", "labeler")

    leads = parts.start("leads", "schedule", "--health", f"127.0.0.1:{parts.health}")
    parts.wait("one leads", LED.format("schedule"), [(1, 1)])
    others = ["schedule"], ["web"], ["ingest"], ["train", "--wait"]
    stands_by, web, ingest, _ = (parts.start(words[0], *words) for words in others)
    parts.programs.wait_for("another stands by", lambda: "stands by" in stands_by.said())
    parts.programs.wait_for("one takes in", lambda: "takes all" in ingest.said())
    assert parts.read("healthz")["leads"] == {"schedule": 1}
    with pytest.raises(ServerError, match="as several processes"), one_server(parts.folder / "data"):
        pass

    device = Device("cam-1", parts.url)
    try:
        for seq in range(4):
            for frame in frames("cam-1", seq, data=x[seq]):
                device.say("sample", frame)
        parts.programs.wait_for("receipts", lambda: sum(len(one.accepted) for one in device.receipts) == 4)
        parts.wait("questions", "select count(*) from question", [(4,)])
        parts.programs.wait_for("pages", lambda: "pages at" in web.said(), within_s=PATIENCE_S)
        asked = parts.post(token, "label/next?count=4")["questions"]
        said = [{"sample_id": one["sample_id"], "said": CLASSES[y[number(one["sample_id"])]]} for one in asked]
        answered = parts.post(token, "label/answers", {"answers": said})["outcomes"]
        assert [one["error"] for one in answered] == [""] * 4

        leads.kill()
        parts.wait("rounds can begin", LED.format("train"), [(1, 1)])
        assert "whoever begins rounds begins it" in parts.say("train", "--why", "a first model")
        parts.wait("another leads", LED.format("schedule"), [(1, 2)])
        parts.wait("a round passes, and is published", "select state from run", [("published",)])
        parts.programs.wait_for("the device runs it", lambda: device.model.version == 1, within_s=PATIENCE_S)
        parts.wait("the rollout ends", "select version, status from rollout", [(1, "done")])
        assert parts.query("select number from version") == [(1,)]
        assert parts.query("select run_id from training_order") == [(1,)]
        assert parts.query("select count(*) from sample where origin = 'device'") == [(4,)]
        assert all(leader(parts.store, name) for name in SEATS)
    finally:
        device.stop()
    for program in parts.programs:
        assert program.stop() in (0, -9), program.said()
    assert parts.query("select holder from leadership") == [("",), ("",)]


def number(sample_id: str) -> int:
    return int(sample_id.rsplit(".", 1)[1])
