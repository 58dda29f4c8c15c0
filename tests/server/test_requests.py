"""Do the devices hear of what people ask for, in terms of the model that each of them runs?"""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
import quadrants
from device_words import FLEET, MODEL, NOW_MS, SELECTION, birth, heartbeat, message, uploads

from edge_agent.choose.wanted import Sketcher
from edge_agent.contract.artifact import decode_manifest
from edge_agent.contract.wire import REQUESTS_MAX, Desired, Request, RequestState, decode, encode, parse_topic
from edge_agent.model import Model
from server import config
from server.__main__ import main
from server.collect.ingest import Ingest
from server.errors import RequestError
from server.release import requests
from server.release.fleet import REST_MS, Fleet
from server.release.registry import add_artifact
from server.store import versions
from server.store.store import Store

DAY_MS = 86_400_000
SAMPLE = "cam-1.main.1.7"
IMAGE = quadrants.images(1, seed=3)[0][0]


class Scene:
    """A server's store, two devices, a sample of the first, and what the devices are told."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.store = Store.open(folder / "winnow-server-data")
        self.ingest = Ingest(self.store, fleet=FLEET, offline_after_s=90.0)
        self.now_ms = NOW_MS
        self.told: dict[str, Desired] = {}
        self.restart()
        self.add(1)
        self.reports("cam-1", 1)
        self.reports("cam-2", 1)
        self.ingest.take(uploads("cam-1", 7, data=IMAGE))

    def restart(self) -> None:
        self.fleet = Fleet(self.store, fleet=FLEET, rules=config.Rollout(), publish=self._publish)

    def _publish(self, topic, payload, *, qos, retain):
        self.told[parse_topic(topic).device] = decode(Desired, payload)

    def add(self, number: int, *, other: bool = False, **changes: object) -> None:
        folder = self.folder / str(number)
        if other:
            quadrants.another(folder, version=number)
        else:
            quadrants.artifact(folder, version=number, **changes)
        add_artifact(self.store, folder, weights=None, now_ms=self.now_ms)

    def reports(self, name: str, number: int, *states: RequestState, sha256: str = "") -> None:
        with self.store.database.read() as connection:
            version = versions.get(connection, number)
        if version is not None and not sha256:
            manifest = decode_manifest(self.store.blobs.get(version.manifest_sha256))
            sha256 = manifest.variant("cpu-int8").sha256
        self.now_ms += 1
        model = msgspec.structs.replace(MODEL, version=number, sha256=sha256 or "00", refused={})
        said = msgspec.structs.replace(heartbeat("s"), at_ms=self.now_ms, model=model, requests=states)
        words = [message(name, "birth", encode(birth("s"))), message(name, "heartbeat", encode(said))]
        self.ingest.take(words)

    def ask(self, sample_id: str = SAMPLE, **changes: object) -> requests.Made:
        known = {"devices_named": None, "count": 20, "similar": 0.9, "days": 7.0, "now_ms": self.now_ms}
        return requests.make(self.store, sample_id, **(known | changes))  # type: ignore[arg-type]

    def tick(self, seconds: float = 1.0) -> dict[str, tuple[Request, ...]]:
        """Device -> requests of what one look published."""
        self.now_ms += int(seconds * 1000)
        self.told.clear()
        self.fleet.tick(self.now_ms)
        return {name: desired.requests for name, desired in self.told.items()}


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    yield scene
    scene.store.close()


def test_every_device_is_told_the_sketch_that_it_would_make_itself(scene):
    scene.tick()
    made = scene.ask(count=5, similar=0.8, days=2.0)
    assert (made.id, made.devices, made.silent) == (1, ["cam-1", "cam-2"], {})
    told = scene.tick()
    assert set(told) == {"cam-1", "cam-2"}
    (request,) = told["cam-2"]
    assert (request.id, request.version, request.count, request.similar) == (1, 1, 5, 0.8)
    assert 0 <= scene.now_ms + 2 * DAY_MS - request.until_ms < 2000
    device = Model(scene.folder / "1")
    device.run(0, IMAGE)
    sketch = Sketcher(device.manifest.reference.embedding_mean.array())(device.embedding[:1])[0]
    np.testing.assert_allclose(request.sketch, sketch, atol=1e-5)
    assert scene.tick() == {}


def test_the_order_for_the_model_and_other_wishes_are_kept(scene):
    scene.ask(devices_named=["cam-1"])
    told = scene.tick()
    assert len(told["cam-1"]) == 1
    assert scene.told["cam-1"].model.version == 1  # from the rollout, in the same message
    assert "cam-2" not in told or told["cam-2"] == ()


def test_another_version_is_told_another_sketch(scene):
    scene.ask()
    before = scene.tick()["cam-1"][0]
    scene.add(2, other=True)
    scene.reports("cam-1", 2)
    after = scene.tick(REST_MS / 1000)["cam-1"][0]
    assert (before.version, after.version, before.id) == (1, 2, after.id)
    assert np.abs(np.array(before.sketch) - after.sketch).max() > 0.01


def test_requests_end_by_cancelling_and_by_time(scene):
    scene.ask()
    scene.ask(days=1.0)
    assert [request.id for request in scene.tick()["cam-1"]] == [1, 2]
    requests.cancel(scene.store, 1, now_ms=scene.now_ms)
    assert [request.id for request in scene.tick()["cam-1"]] == [2]
    with pytest.raises(RequestError, match="request 1 is not open; open: 2"):
        requests.cancel(scene.store, 1, now_ms=scene.now_ms)
    assert scene.tick(86_400)["cam-1"] == ()


def test_a_server_that_starts_tells_them_again(scene):
    scene.ask()
    first = scene.tick()
    scene.restart()
    assert scene.tick() == first


def test_devices_that_come_later_hear_of_what_is_asked_of_all(scene):
    scene.ask()
    scene.ask(devices_named=["cam-2"])
    scene.tick()
    scene.reports("cam-9", 1)
    scene.fleet.on_birth("cam-9")
    assert [request.id for request in scene.tick()["cam-9"]] == [1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sample_id": "cam-1.main.1.8"}, r"'cam-1.main.1.8' is not here \(did you mean 'cam-1.main.1.7'\?\)"),
        ({"sample_id": "nonsense"}, "expected an id such as"),
        ({"devices_named": ["cam-3"]}, r"device 'cam-3' has never been seen \(did you mean 'cam-[12]'\?\)"),
    ],
)
def test_what_cannot_be_asked_for_is_said(scene, changes, said):
    with pytest.raises(RequestError, match=said):
        scene.ask(**changes)


def test_nobody_seen_yet(tmp_path):
    store = Store.open(tmp_path)
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    ingest.take(uploads("cam-1", 7))
    with pytest.raises(RequestError, match="has not said which model"):
        requests.make(store, SAMPLE, devices_named=None, count=1, similar=0.9, days=1, now_ms=NOW_MS)
    store.close()


def test_models_that_cannot_compare_it_are_named(scene):
    scene.add(2, embedding="")
    scene.reports("cam-1", 2)
    scene.reports("cam-2", 9)
    with pytest.raises(RequestError, match="could answer: cam-1: version 2 has no embedding.*cam-2: version 9"):
        scene.ask()
    scene.reports("cam-2", 1)
    made = scene.ask()
    assert made.devices == ["cam-2"]
    assert "no embedding" in made.silent["cam-1"]
    assert "cam-1" not in {name for name, asked in scene.tick().items() if asked}
    scene.reports("cam-2", 1, sha256="ff")  # another file under the same number
    with pytest.raises(RequestError, match="not in the registry"):
        scene.ask(devices_named=["cam-2"])
    scene.ingest.take(uploads("cam-1", 8))  # 6 x 6
    scene.reports("cam-2", 1)
    with pytest.raises(RequestError, match=r"is \(6, 6\) uint8, version 1 takes \(8, 8\)"):
        scene.ask("cam-1.main.1.8")


def test_no_more_than_fit_a_message(scene):
    for _ in range(REQUESTS_MAX):
        scene.ask()
    with pytest.raises(RequestError, match="cancel one first"):
        scene.ask()
    assert len(scene.tick()["cam-1"]) == REQUESTS_MAX


def test_the_list_says_what_each_device_found(scene):
    scene.ask(count=10)
    scene.tick()
    state = RequestState(id=1, version=1, looking=True, found=2, recalled=1, searched=40, unsearchable=3)
    scene.reports("cam-1", 1, state)
    selection = {"reason": "requested", "probability": 1.0, "floor": 0.0, "strategy": "request-1"}
    for seq in (8, 9):
        (upload,) = uploads("cam-1", seq, selection=msgspec.structs.replace(SELECTION, **selection))
        scene.ingest.take([upload])
    first, second = requests.listed(scene.store, now_ms=scene.now_ms)
    assert (first["device"], first["found"], first["of"], first["stored"]) == ("cam-1", 2, 10, 2)
    assert (first["recalled"], first["searched"], first["unsearchable"]) == (1, 40, 3)
    assert first["state"] == "looking out"
    assert (second["device"], second["stored"], second["state"]) == ("cam-2", 0, "not heard of it yet")
    with scene.store.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT split, reason FROM sample WHERE strategy = 'request-1'").fetchall()
    assert rows == [("train", "requested")] * 2


def test_by_hand(scene, capsys):
    path = scene.folder / "server.toml"
    path.write_text("")
    assert main(["request", SAMPLE, "--devices", "cam-1", "--count", "3", str(path)]) == 0
    assert "request 1: told to cam-1" in capsys.readouterr().out
    assert main(["requests", "--json", str(path)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["request"], row["device"], row["of"]) == (1, "cam-1", 3)
    assert main(["requests", str(path)]) == 0
    assert "cam-1.main.1.7" in capsys.readouterr().out
    assert main(["cancel-request", "1", str(path)]) == 0
    assert main(["cancel-request", "1", str(path)]) == 1
    assert "request 1 is not open; open: none" in capsys.readouterr().err
    assert main(["request", "cam-1.main.1.1", str(path)]) == 1
    assert "did you mean 'cam-1.main.1.7'" in capsys.readouterr().err
