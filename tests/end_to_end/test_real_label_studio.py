"""Do questions and annotations get through a real Label Studio, both ways, whatever stops in between?

It is started here, out of an environment of its own: `make label-studio` makes that (about 1 GB) and runs this.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from device_words import FLEET, uploads

from models.data import default_cache
from server import config
from server.collect.ingest import Ingest
from server.label import label_studio
from server.label.label_studio import POLL_S, LabelStudio
from server.label.labelling import Labelling
from server.label.queue import Rules
from server.store import labels, users
from server.store.schema import label
from server.store.store import Store
from server.web.access import digest
from server.web.service import Pages

HOME = default_cache() / "label-studio"
PROGRAM = HOME / "bin" / "label-studio"
READY = HOME / "ready"  # a data folder as after the first start, which takes most of a minute
TOKEN = "0123456789abcdef0123456789abcdef01234567"
INTERFACE = """<View><Image name="img" value="$image"/><Choices name="cls" toName="img">
<Choice value="cat"/><Choice value="owl"/><Choice value="rat"/><Choice value="dog"/></Choices></View>"""
ALONE = {  # it calls nobody, and may be called from and call this machine
    "COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "",
    "SECRET_KEY": "of a test", "ML_BLOCK_LOCAL_IP": "false", "USE_DEFAULT_BANNED_SUBNETS": "false",
}  # fmt: skip
START_S, STOP_S = 600.0, 20.0

pytestmark = [
    pytest.mark.label_studio,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not PROGRAM.exists(), reason="Label Studio is not installed: `make label-studio` does it (1 GB)"
    ),
]


class Studio:
    """The program, and a project in it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._process = folder, None
        if READY.exists():
            shutil.copytree(READY, folder)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        account = ["--username", "ann@example.org", "--password", "long enough to be one"]
        account += ["--user-token", TOKEN, "--enable-legacy-api-token"]
        self._process = subprocess.Popen(
            [PROGRAM, "start", "--no-browser", "--internal-host", "127.0.0.1", "-p", str(self._port), *account],
            cwd=self._folder,
            env={**os.environ, **ALONE, "LABEL_STUDIO_BASE_DATA_DIR": str(self._folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._up, START_S)

    def _up(self) -> bool:
        assert self._process.poll() is None, "Label Studio ended by itself"
        with suppress(OSError):
            return self.call("GET", "/health") == {"status": "UP"}
        return False

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers, method=method)) as answer:
            return json.loads(answer.read() or b"null")

    def new_project(self) -> int:
        return self.call("POST", "/api/projects/", {"title": "a test", "label_config": INTERFACE})["id"]

    def tasks(self, project: int) -> dict[str, dict[str, Any]]:
        found = self.call("GET", f"/api/tasks?project={project}&fields=all&page_size=100")["tasks"]
        return {task["data"]["sample_uid"]: task for task in found}

    def annotate(self, project: int, uid: str, choice: str) -> int:
        task = self.tasks(project)[uid]["id"]
        return self.call("POST", f"/api/tasks/{task}/annotations/", {"result": chosen(choice), "lead_time": 2.5})["id"]


def chosen(choice: str) -> list[dict[str, Any]]:
    return [{"from_name": "cls", "to_name": "img", "type": "choices", "value": {"choices": [choice]}}]


def until(true: Callable[[], Any], timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end_s, f"not within {timeout_s:g} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("studio") / "data"
    made = Studio(folder)
    made.start()
    if not READY.exists():
        made.stop()
        shutil.copytree(folder, READY)
        made.start()
    yield made
    made.stop()


class Side:
    """Our side of it: a store with five questions, and a labeler that may be killed and made anew."""

    def __init__(self, folder: Path, studio: Studio, project: int) -> None:
        self.store, self._url, self._project, self.clock_s = Store.open(folder), studio.url, project, 100.0
        Ingest(self.store, fleet=FLEET, offline_after_s=90.0).take(
            [one for seq in range(5) for one in uploads("cam-1", seq)]
        )
        with self.store.database.write() as connection:
            labels.ensure_names(connection, ["cat", "owl", "rat", "dog"])  # the device's guess is class 3
        self.restart()

    def restart(self) -> None:
        client = LabelStudio(self._url, TOKEN, self._project, now_s=lambda: self.clock_s)
        self.labelling = Labelling(
            self.store,
            client,
            name=label_studio.KIND,
            batch=5,
            now_ms=lambda: time.time_ns() // 1_000_000,
            rules=Rules(),
        )

    def send(self) -> None:
        while self.labelling.step():
            pass

    def poll(self) -> None:
        self.clock_s += POLL_S + 1
        self.labelling.collect()

    def in_force(self) -> dict[str, int]:
        with self.store.database.read() as connection:
            return {row.sample_id: row.class_index for row in connection.execute(labels.in_force())}

    def answers(self) -> list[tuple[str, str, bool]]:
        with self.store.database.read() as connection:
            rows = connection.execute(label.select().order_by(label.c.id))
            return [(row.sample_id, row.labeler, row.undone_at_ms is not None) for row in rows]


def name(seq: int) -> str:
    return f"cam-1.main.1.{seq}"


def test_both_ways_by_poll_and_by_webhook_through_restarts_and_deletions(studio, tmp_path):
    project = studio.new_project()
    side = Side(tmp_path, studio, project)
    side.send()
    tasks = studio.tasks(project)
    assert sorted(tasks) == [name(seq) for seq in range(5)]
    (prediction,) = tasks[name(0)]["predictions"]
    assert (prediction["result"][0]["value"], prediction["score"]) == ({"choices": ["dog"]}, 0.5)

    first = studio.annotate(project, name(0), "cat")
    studio.annotate(project, name(1), "owl")
    side.poll()
    assert side.in_force() == {name(0): 0, name(1): 1}
    assert {who for _, who, _ in side.answers()} == {"label_studio:1"}  # its number of the one user there is

    time.sleep(1.1)  # its times are compared by the second
    studio.call("PATCH", f"/api/annotations/{first}/", {"result": chosen("rat")})
    side.poll()
    assert side.in_force() == {name(0): 2, name(1): 1}

    studio.annotate(project, name(2), "dog")  # and both ends stop before anybody has asked for it
    studio.stop()
    side.restart()
    studio.start()
    side.send()
    assert len(studio.tasks(project)) == 5
    assert side.in_force() == {name(0): 2, name(1): 1, name(2): 3}
    assert len(side.answers()) == 4

    studio.call("DELETE", f"/api/annotations/{first}/")
    side.poll()
    assert side.in_force() == {name(1): 1, name(2): 3}
    assert [undone for sample, _, undone in side.answers() if sample == name(0)] == [True, True]
    studio.annotate(project, name(0), "cat")
    side.poll()
    assert side.in_force() == {name(0): 0, name(1): 1, name(2): 3}

    with closing(Served(side, tmp_path)) as served:
        hook = {"url": f"{served.url}api/v1/label/hint", "project": project, "send_payload": True}
        studio.call("POST", "/api/webhooks/", hook | {"headers": {"Authorization": "Bearer of studio"}})
        side.poll()
        assert side.labelling.collect() == 0  # it is not time yet, and nobody gave a hint
        studio.annotate(project, name(3), "owl")
        until(lambda: side.labelling.collect() and name(3) in side.in_force(), 20.0)
    studio.annotate(project, name(4), "rat")  # a hook that finds nobody is lost for good
    assert side.labelling.collect() == 0
    side.poll()
    assert side.in_force() == {name(0): 0, name(1): 1, name(2): 3, name(3): 1, name(4): 2}
    side.store.close()


class Served:
    """The pages of our side, for the webhook."""

    def __init__(self, side: Side, folder: Path) -> None:
        with side.store.database.write() as connection:
            users.add(connection, "studio", "labeler", password_hash="", by="test", now_ms=1)
            secret = {"secret_sha256": digest("of studio"), "expires_at_ms": None}
            users.add_token(connection, "studio", "webhook", **secret, by="test", now_ms=1)
        settings = config.ServerConfig(server=config.Server(data_dir=str(folder)), web=config.Web(port=0))
        self._pages = Pages(side.store, settings, now_ms=lambda: 1, hint=side.labelling.hint)
        self.url = self._pages.start()

    def close(self) -> None:
        self._pages.stop()
