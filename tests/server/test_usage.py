"""Is what is used of the disk shown wherever somebody looks, and is somebody told when it fills up?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from api_scene import Scene
from device_words import FLEET, NOW_MS, uploads
from fastapi.testclient import TestClient

from server import config
from server.__main__ import main
from server.collect.ingest import Ingest
from server.config import Retention
from server.errors import StoreError
from server.keep.sweep import Sweep
from server.status import overview
from server.store import room, usage
from server.store.store import Store
from server.tell.conditions import conditions

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("usage"))
    yield made
    made.close()


def looking(scene: Scene) -> TestClient:
    return TestClient(scene.app, headers={"Authorization": "Bearer secret of viewer"}, follow_redirects=False)


def test_before_and_after_the_first_look(scene: Scene) -> None:
    assert "Nothing was measured yet" in looking(scene).get("/governance/disk").text
    Sweep(scene.store, Retention()).run(NOW_MS)
    page = looking(scene).get("/governance/disk").text
    assert '<td class="num">24</td>' in page or "24" in page
    assert "snapshot_member" in page
    assert "winnow_class_bytes{class=" in looking(scene).get("/metrics").text
    rows = looking(scene).get("/governance/disk.csv").text.splitlines()
    assert rows[0] == "day,name,rows,bytes"
    assert any(row.split(",")[1:3] == ["table sample", "24"] for row in rows)
    with scene.store.database.read() as connection:
        view = usage.outline(connection, Retention(), now_ms=NOW_MS)
    assert view is not None
    status = looking(scene).get("/api/v1/status").json()
    assert status["disk"]["bytes"] == view["bytes"] > 0
    settings = config.ServerConfig(server=config.Server(data_dir=str(scene.store.folder)))
    assert overview(settings, scene.store, now_ms=NOW_MS)["disk"] == view


def test_it_is_an_alarm_when_the_bound_is_not_kept_or_the_disk_fills_up(scene: Scene) -> None:
    Sweep(scene.store, Retention()).run(NOW_MS)

    def standing(**rules: int) -> list[str]:
        settings = config.ServerConfig(retention=Retention(**rules))
        with scene.store.database.read() as connection:
            found = conditions(connection, settings, stand=(), listening_ms=0, now_ms=NOW_MS)
            return [f"{one.subject}: {one.text}" for one in found if one.kind == "disk"]

    assert standing() == []
    (over,) = standing(max_bytes=1000)
    assert over.startswith("bound of the store: the store has ")
    assert "at most 1000, and what is left may not go" in over
    (free,) = standing(min_free_bytes=10**15)
    assert "below 1000000000000000 no sample is taken in" in free
    with scene.store.database.write() as connection:  # a week ago there was nothing
        row = {"day": usage.day_of(NOW_MS - 5 * DAY_MS), "rows": 0, "bytes": 0, "at_ms": 0}
        connection.execute(usage.table.insert(), [row | {"name": name} for name in (usage.BLOBS, usage.CATALOGUE)])
        found = usage.noted(connection)[1] | {usage.FREE: usage.Used(0, 100_000)}
        look = usage.outlook(connection, found, max_bytes=0, now_ms=NOW_MS)
    assert look.full_in_days is not None
    assert look.full_in_days < 7


def test_the_disk_of_the_blobs_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "data", config.Store(blobs=str(tmp_path / "bytes")))
    disk = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk._replace(free=7 if path.name == "bytes" else 900))
    assert usage.measure(store)[usage.FREE].bytes == 7
    room.check(store.folders, 7)
    with pytest.raises(StoreError, match="bytes: 0 MB are free"):
        room.check(store.folders, 8)
    full = Ingest(store, fleet=FLEET, offline_after_s=90.0, min_free_bytes=8)
    with pytest.raises(StoreError, match="make room"):
        full.take(list(uploads("cam-1", 0)))
    store.close()


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config_file = tmp_path / "server.toml"
    config_file.write_text('[server]\ndata_dir = "data"\n[broker]\nplain = true\n[retention]\nmax_bytes = 10_000_000\n')
    made = Scene(tmp_path / "data")
    made.close()
    assert main(["store", "show", "--json", str(config_file)]) == 0
    view = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in view["classes"]} == {"unlabelled", "labelled"}
    assert view["max_bytes"] == 10_000_000
    assert main(["store", "sweep", "--json", str(config_file)]) == 0
    assert "sample" not in msgspec.json.decode(capsys.readouterr().out)
    assert main(["store", "show", str(config_file)]) == 0
    assert "unlabelled" in capsys.readouterr().out
    assert main(["status", str(config_file)]) == 0
    assert "GB free" in capsys.readouterr().out
